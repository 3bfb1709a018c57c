package metadata

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/metadata/internal/records"
	"github.com/cleatproject/cleat/proto/reason"
)

// Images are the images of a namespace.
type Images struct {
	table table[Image]
	at    time.Time // see At
}

// Images returns the images of the namespace ns.
func (tx *Tx) Images(ns string) Images {
	return Images{table: table[Image]{
		tx: tx, ns: ns, path: []string{imagesBucket}, noun: "image", keyField: "name", columns: imageColumn,
		encode: encodeImage, decode: decodeImage, missing: reason.ImageNotFound,
	}}
}

// Create records an image and returns it with its times. The name must be free.
func (i Images) Create(v Image) (Image, error) {
	if err := v.validate(); err != nil {
		return v, fmt.Errorf("create image: %w", err)
	}
	v.CreatedAt = i.time()
	v.UpdatedAt = v.CreatedAt
	v.unknown = nil
	return v, i.table.create(v.Name, &v)
}

// At returns i with a fixed time instead of the clock's, for reproducible records; the zero time restores
// the clock's.
func (i Images) At(t time.Time) Images {
	i.at = t
	return i
}

// time returns the time of a change.
func (i Images) time() time.Time {
	if !i.at.IsZero() {
		return i.at.UTC().Round(0)
	}
	return i.table.tx.time()
}

// Get returns an image, or ErrNotFound.
func (i Images) Get(name string) (Image, error) { return i.table.get(name) }

// List returns the images that match one of the filters, by name; the fields are "name",
// "target.digest", "target.mediatype", "labels.<key>" and "annotations.<key>".
func (i Images) List(filter ...string) ([]Image, error) { return i.table.list(filter...) }

func imageColumn(path []string) column {
	const target = records.ImageTargetField
	switch path[0] {
	case "name":
		return column{num: records.ImageNameField, always: true}
	case "target":
		if len(path) != 2 {
			return column{}
		}
		switch path[1] {
		case "digest":
			return column{in: target, num: records.DescriptorDigestField, always: true}
		case "mediatype":
			return column{in: target, num: records.DescriptorMediaTypeField, always: true}
		}
		return column{}
	case "annotations":
		c := mapColumn(path, records.DescriptorAnnotationsField)
		c.in = target
		return c
	default:
		return labelColumn(path, records.ImageLabelsField)
	}
}

// Update changes the fields that paths name: "labels", "labels.<key>", "target",
// "annotations", "annotations.<key>" (those of the target). Without paths the labels and
// the target are replaced.
func (i Images) Update(v Image, paths ...string) (Image, error) {
	old, err := i.table.get(v.Name)
	if err != nil {
		return old, err
	}
	if len(paths) == 0 {
		paths = []string{"labels", "target"}
	}
	for _, p := range paths {
		switch {
		case p == "target":
			old.Target = v.Target
		case setMap(p, "labels", &old.Labels, v.Labels):
		case setMap(p, "annotations", &old.Target.Annotations, v.Target.Annotations):
		default:
			return old, i.table.errorf(v.Name, badPath(p))
		}
	}
	if err := old.validate(); err != nil {
		return old, i.table.errorf(v.Name, err)
	}
	old.UpdatedAt = i.time()
	return old, i.table.put(old.Name, &old)
}

func (v *Image) validate() error {
	if err := validateName("image name", v.Name); err != nil {
		return err
	}
	if err := validateTarget(v.Target); err != nil {
		return fmt.Errorf("image %q: %w", v.Name, err)
	}
	return ValidateLabels(v.Labels)
}

func validateTarget(d ocispec.Descriptor) error {
	if err := validateDigest(d.Digest); err != nil {
		return err
	}
	if d.MediaType == "" {
		return fmt.Errorf("target has no media type: %w", errdefs.ErrInvalidArgument)
	}
	if d.Size <= 0 {
		return fmt.Errorf("target has the size %d: %w", d.Size, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Delete removes the name, or returns ErrNotFound. The content stays.
func (i Images) Delete(name string) error { return i.table.remove(name) }
