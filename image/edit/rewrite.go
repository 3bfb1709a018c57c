package edit

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/rawjson"
)

// rewrite stores the converted form of a document once the layers are converted, and returns its
// descriptor. One that is not converted is returned unchanged.
func (v *conversion) rewrite(ctx context.Context, desc ocispec.Descriptor, depth int) (ocispec.Descriptor, error) {
	made, ok := v.made[desc.Digest]
	if !ok || depth > image.MaxNesting {
		return desc, nil
	}
	if made.Digest != "" {
		return made, nil
	}
	raw, err := image.ReadDocument(ctx, v.content, desc)
	if err != nil {
		return desc, err
	}
	doc, err := rawjson.Parse(raw)
	if err != nil {
		return desc, err
	}
	out := ocispec.Descriptor{MediaType: image.Formatted(desc.MediaType, v.opts.Format), Digest: desc.Digest, Size: desc.Size}
	changed := out.MediaType != desc.MediaType
	if image.IsIndex(desc.MediaType) {
		err = v.rewriteIndex(ctx, doc, depth, &changed)
	} else {
		err = v.rewriteManifest(ctx, doc, desc, &changed)
	}
	if err == nil && changed {
		if raw, err = v.finish(doc, out.MediaType); err == nil {
			out, err = putDocument(ctx, v.content, out.MediaType, raw)
		}
	}
	if err != nil {
		return desc, fmt.Errorf("document %s: %w", desc.Digest, err)
	}
	v.made[desc.Digest] = out
	return out, nil
}

// finish sets the document's media type, and checks the document's shape.
func (v *conversion) finish(doc rawjson.Object, mediaType string) ([]byte, error) {
	if err := doc.Set("mediaType", mediaType); err != nil {
		return nil, err
	}
	raw, err := doc.Encode()
	if err == nil && image.IsIndex(mediaType) {
		_, err = image.ParseIndex(raw, mediaType)
	} else if err == nil {
		_, err = image.ParseManifest(raw, mediaType)
	}
	return raw, err
}

// rewriteManifest changes the descriptors of the configuration and the layers.
func (v *conversion) rewriteManifest(ctx context.Context, doc rawjson.Object, desc ocispec.Descriptor, changed *bool) error {
	m, err := image.ReadManifest(ctx, v.content, desc)
	if err != nil {
		return err
	}
	config, err := image.ReadConfigOf(ctx, v.content, m.Config)
	if err != nil {
		return err
	}
	var configDoc rawjson.Object
	var layers []rawjson.Object
	if err := doc.Get("config", &configDoc); err != nil {
		return err
	}
	if err := doc.Get("layers", &layers); err != nil {
		return err
	}
	if err := setDescriptor(configDoc, image.Formatted(m.Config.MediaType, v.opts.Format), m.Config.Digest, m.Config.Size, changed); err != nil {
		return err
	}
	for i, l := range m.Layers {
		mediaType, d, size := image.Formatted(l.MediaType, v.opts.Format), l.Digest, l.Size
		if to := v.layers[l.Digest]; to != nil {
			if to.diffID != config.RootFS.DiffIDs[i] {
				return invalidf("layer %s: unpacked digest %s, expected %s by this image's configuration", l.Digest, to.diffID, config.RootFS.DiffIDs[i])
			}
			format, foreign, _, _ := image.SplitLayer(mediaType)
			mediaType, d, size = image.JoinLayer(format, foreign, to.to), to.digest, to.size
		}
		if err := setDescriptor(layers[i], mediaType, d, size, changed); err != nil {
			return err
		}
	}
	if err := doc.Set("config", configDoc); err != nil {
		return err
	}
	if layers == nil {
		return nil
	}
	return doc.Set("layers", layers)
}

// rewriteIndex rewrites the entries of an index, and then the index.
func (v *conversion) rewriteIndex(ctx context.Context, doc rawjson.Object, depth int, changed *bool) error {
	var list []rawjson.Object
	if err := doc.Get("manifests", &list); err != nil {
		return err
	}
	became := make(map[digest.Digest]digest.Digest)
	for _, d := range list {
		from, err := descriptorOf(d)
		if err != nil {
			return err
		}
		to, err := v.rewrite(ctx, from, depth+1)
		if err != nil {
			return err
		}
		became[from.Digest] = to.Digest
		if err := setDescriptor(d, to.MediaType, to.Digest, to.Size, changed); err != nil {
			return err
		}
	}
	for _, d := range list {
		if err := v.follow(d, became, changed); err != nil {
			return err
		}
	}
	if list == nil {
		return nil
	}
	return doc.Set("manifests", list)
}

// follow updates the references of manifests that are about another one.
func (v *conversion) follow(d rawjson.Object, became map[digest.Digest]digest.Digest, changed *bool) error {
	var annotations map[string]string
	if err := d.Get("annotations", &annotations); err != nil {
		return err
	}
	of := digest.Digest(annotations[annotationReferenceOf])
	to, ok := became[of]
	if !ok || to == of {
		return nil
	}
	*changed = true
	annotations[annotationReferenceOf] = to.String()
	return d.Set("annotations", annotations)
}

// descriptorOf parses an entry of a document's list.
func descriptorOf(d rawjson.Object) (desc ocispec.Descriptor, err error) {
	raw, err := d.Encode()
	if err == nil {
		err = json.Unmarshal(raw, &desc)
	}
	if err != nil {
		return desc, fmt.Errorf("read descriptor: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return desc, nil
}

// setDescriptor changes the target of a descriptor; other members are kept, except those about the old bytes.
func setDescriptor(d rawjson.Object, mediaType string, name digest.Digest, size int64, changed *bool) error {
	if d == nil {
		return invalidf("null descriptor")
	}
	old, err := descriptorOf(d)
	if err != nil {
		return err
	}
	if old.MediaType == mediaType && old.Digest == name && old.Size == size {
		return nil
	}
	*changed = true
	if err := d.Set("mediaType", mediaType); err != nil {
		return err
	}
	if old.Digest == name {
		return nil
	}
	delete(d, "data")
	if len(old.Annotations) > 0 {
		for key := range old.Annotations {
			if aboutBytes(key) {
				delete(old.Annotations, key)
			}
		}
		if err := d.Set("annotations", old.Annotations); err != nil {
			return err
		}
	}
	if err := d.Set("digest", name); err != nil {
		return err
	}
	return d.Set("size", size)
}
