package metadata

import (
	"maps"
	"slices"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cleatproject/cleat/snapshot"
)

// The numbers below are the format on disk: never reuse one.

func encodeNamespace(v *Namespace) []byte {
	var e encoder
	e.str(1, v.Name)
	e.labels(2, v.Labels)
	return append(e.b, v.unknown...)
}

func decodeNamespace(raw []byte, v *Namespace) (err error) {
	v.unknown, err = decode(raw, func(f field) (bool, error) {
		switch f.num {
		case 1:
			v.Name = f.str()
		case 2:
			return true, f.addTo(&v.Labels)
		default:
			return false, nil
		}
		return true, nil
	})
	return err
}

func encodeContainer(v *Container) []byte {
	var e encoder
	e.str(1, v.ID)
	e.labels(2, v.Labels)
	e.str(3, v.Image)
	e.str(4, v.Runtime.Name)
	e.any(5, v.Runtime.Options)
	e.any(6, v.Spec)
	e.str(7, v.Snapshotter)
	e.str(8, v.SnapshotKey)
	e.time(9, v.CreatedAt)
	e.time(10, v.UpdatedAt)
	e.anyMap(11, v.Extensions)
	e.str(12, v.SandboxID)
	return append(e.b, v.unknown...)
}

func decodeContainer(raw []byte, v *Container) (err error) {
	v.unknown, err = decode(raw, func(f field) (_ bool, err error) {
		switch f.num {
		case 1:
			v.ID = f.str()
		case 2:
			err = f.addTo(&v.Labels)
		case 3:
			v.Image = f.str()
		case 4:
			v.Runtime.Name = f.str()
		case 5:
			v.Runtime.Options, err = f.any()
		case 6:
			v.Spec, err = f.any()
		case 7:
			v.Snapshotter = f.str()
		case 8:
			v.SnapshotKey = f.str()
		case 9:
			v.CreatedAt = f.time()
		case 10:
			v.UpdatedAt = f.time()
		case 11:
			err = f.addAnyTo(&v.Extensions)
		case 12:
			v.SandboxID = f.str()
		default:
			return false, nil
		}
		return true, err
	})
	return err
}

func (e *encoder) anyMap(n protowire.Number, m map[string]Any) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.message(n, func(e *encoder) {
			a := m[k]
			e.str(1, k)
			e.any(2, &a)
		})
	}
}

func (f field) addAnyTo(m *map[string]Any) error {
	var key string
	var value Any
	_, err := decode(f.b, func(f field) (bool, error) {
		switch f.num {
		case 1:
			key = f.str()
		case 2:
			a, err := f.any()
			if err != nil {
				return true, err
			}
			value = *a
		}
		return true, nil
	})
	if *m == nil {
		*m = make(map[string]Any)
	}
	(*m)[key] = value
	return err
}

func encodeImage(v *Image) []byte {
	var e encoder
	e.str(1, v.Name)
	e.labels(2, v.Labels)
	e.message(3, func(e *encoder) { encodeDescriptor(e, &v.Target) })
	e.time(4, v.CreatedAt)
	e.time(5, v.UpdatedAt)
	return append(e.b, v.unknown...)
}

func decodeImage(raw []byte, v *Image) (err error) {
	v.unknown, err = decode(raw, func(f field) (_ bool, err error) {
		switch f.num {
		case 1:
			v.Name = f.str()
		case 2:
			err = f.addTo(&v.Labels)
		case 3:
			v.Target, err = decodeDescriptor(f.b)
		case 4:
			v.CreatedAt = f.time()
		case 5:
			v.UpdatedAt = f.time()
		default:
			return false, nil
		}
		return true, err
	})
	return err
}

// encodeDescriptor leaves embedded data out: content belongs in the content store.
func encodeDescriptor(e *encoder, d *ocispec.Descriptor) {
	e.str(1, d.MediaType)
	e.str(2, d.Digest.String())
	e.int(3, d.Size)
	e.strMap(4, d.Annotations)
	e.strs(5, d.URLs)
	e.str(6, d.ArtifactType)
	if p := d.Platform; p != nil {
		e.message(7, func(e *encoder) {
			e.str(1, p.OS)
			e.str(2, p.Architecture)
			e.str(3, p.Variant)
			e.str(4, p.OSVersion)
			e.strs(5, p.OSFeatures)
		})
	}
}

func decodeDescriptor(raw []byte) (d ocispec.Descriptor, err error) {
	_, err = decode(raw, func(f field) (_ bool, err error) {
		switch f.num {
		case 1:
			d.MediaType = f.str()
		case 2:
			d.Digest = digest.Digest(f.str())
		case 3:
			d.Size = int64(f.u)
		case 4:
			err = f.addTo(&d.Annotations)
		case 5:
			d.URLs = append(d.URLs, f.str())
		case 6:
			d.ArtifactType = f.str()
		case 7:
			d.Platform, err = decodePlatform(f.b)
		}
		return true, err
	})
	return d, err
}

func decodePlatform(raw []byte) (*ocispec.Platform, error) {
	p := &ocispec.Platform{}
	_, err := decode(raw, func(f field) (bool, error) {
		switch f.num {
		case 1:
			p.OS = f.str()
		case 2:
			p.Architecture = f.str()
		case 3:
			p.Variant = f.str()
		case 4:
			p.OSVersion = f.str()
		case 5:
			p.OSFeatures = append(p.OSFeatures, f.str())
		}
		return true, nil
	})
	return p, err
}

func encodeLease(v *Lease) []byte {
	var e encoder
	e.str(1, v.ID)
	e.labels(2, v.Labels)
	e.time(3, v.CreatedAt)
	return append(e.b, v.unknown...)
}

func decodeLease(raw []byte, v *Lease) (err error) {
	v.unknown, err = decode(raw, func(f field) (_ bool, err error) {
		switch f.num {
		case 1:
			v.ID = f.str()
		case 2:
			err = f.addTo(&v.Labels)
		case 3:
			v.CreatedAt = f.time()
		default:
			return false, nil
		}
		return true, err
	})
	return err
}

func encodeSnapshot(v *Snapshot) []byte {
	var e encoder
	e.str(1, v.Key)
	e.str(2, v.Parent)
	e.uint(3, uint64(v.Kind))
	e.uint(4, v.ID)
	e.labels(5, v.Labels)
	e.time(6, v.CreatedAt)
	e.time(7, v.UpdatedAt)
	e.int(8, v.Size)
	e.int(9, v.Inodes)
	return append(e.b, v.unknown...)
}

func decodeSnapshot(raw []byte, v *Snapshot) (err error) {
	v.unknown, err = decode(raw, func(f field) (_ bool, err error) {
		switch f.num {
		case 1:
			v.Key = f.str()
		case 2:
			v.Parent = f.str()
		case 3:
			v.Kind = snapshot.Kind(f.u)
		case 4:
			v.ID = f.u
		case 5:
			err = f.addTo(&v.Labels)
		case 6:
			v.CreatedAt = f.time()
		case 7:
			v.UpdatedAt = f.time()
		case 8:
			v.Size = int64(f.u)
		case 9:
			v.Inodes = int64(f.u)
		default:
			return false, nil
		}
		return true, err
	})
	return err
}

func encodeBlob(v *Blob) []byte {
	var e encoder
	e.str(1, v.Digest.String())
	e.int(2, v.Size)
	e.labels(3, v.Labels)
	e.time(4, v.CreatedAt)
	e.time(5, v.UpdatedAt)
	return append(e.b, v.unknown...)
}

func decodeBlob(raw []byte, v *Blob) (err error) {
	v.unknown, err = decode(raw, func(f field) (_ bool, err error) {
		switch f.num {
		case 1:
			v.Digest = digest.Digest(f.str())
		case 2:
			v.Size = int64(f.u)
		case 3:
			err = f.addTo(&v.Labels)
		case 4:
			v.CreatedAt = f.time()
		case 5:
			v.UpdatedAt = f.time()
		default:
			return false, nil
		}
		return true, err
	})
	return err
}

func encodeIngest(v *Ingest) []byte {
	var e encoder
	e.str(1, v.Ref)
	e.str(2, v.Expected.String())
	e.int(3, v.Total)
	e.time(4, v.StartedAt)
	return append(e.b, v.unknown...)
}

func decodeIngest(raw []byte, v *Ingest) (err error) {
	v.unknown, err = decode(raw, func(f field) (bool, error) {
		switch f.num {
		case 1:
			v.Ref = f.str()
		case 2:
			v.Expected = digest.Digest(f.str())
		case 3:
			v.Total = int64(f.u)
		case 4:
			v.StartedAt = f.time()
		default:
			return false, nil
		}
		return true, nil
	})
	return err
}
