package edit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/internal/rawjson"
)

// Base is the origin of a file system: one manifest of an image, with its configuration.
type Base struct {
	Manifest ocispec.Manifest
	config   []byte
	diffIDs  []digest.Digest
}

// errFound ends a walk.
var errFound = errors.New("found")

// FindBase searches target for the manifest whose layers make the snapshot of that name, ""
// for none, and all of whose content is present. Not found if there is none.
func FindBase(ctx context.Context, p image.Provider, target ocispec.Descriptor, snapshot string) (*Base, error) {
	var found *Base
	err := image.Walk(ctx, p, target, func(d ocispec.Descriptor) error {
		if !image.IsManifest(d.MediaType) {
			return nil
		}
		b, err := readBase(ctx, p, d)
		if err != nil || b == nil || b.snapshot() != snapshot {
			return err
		}
		ok, err := image.Usable(ctx, p, d)
		if err == nil && ok {
			found, err = b, errFound
		}
		return err
	})
	if err != nil && !errors.Is(err, errFound) {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("image %s does not have these layers: %w", target.Digest, errdefs.ErrNotFound)
	}
	return found, nil
}

// readBase reads a manifest with its configuration; nil if it is not an image or not present.
func readBase(ctx context.Context, p image.Provider, desc ocispec.Descriptor) (*Base, error) {
	m, err := image.ReadManifest(ctx, p, desc)
	if err != nil {
		return nil, err
	}
	if !image.IsConfig(m.Config.MediaType) {
		return nil, nil // not an image
	}
	raw, err := image.ReadDocument(ctx, p, m.Config)
	if errdefs.IsNotFound(err) {
		return nil, nil // not present
	}
	if err != nil {
		return nil, err
	}
	config, err := image.ReadConfigOf(ctx, p, m.Config)
	return &Base{Manifest: m, config: raw, diffIDs: config.RootFS.DiffIDs}, err
}

// snapshot returns the name of the topmost snapshot.
func (b *Base) snapshot() string {
	if len(b.diffIDs) == 0 {
		return ""
	}
	chain := image.ChainIDs(b.diffIDs)
	return chain[len(chain)-1].String()
}

// LayerOptions set the configuration of an image with a new layer.
type LayerOptions struct {
	Author, Comment, CreatedBy string
	Created                    time.Time
	Changes                    []Change
}

// AddLayer stores an image of base and one more layer, and returns its manifest. The documents are
// OCI's, whatever the format of base; unknown members of base's configuration are kept.
// The same arguments make the same image.
func AddLayer(ctx context.Context, c image.Content, base *Base, layer ocispec.Descriptor, diffID digest.Digest, o LayerOptions) (ocispec.Descriptor, error) {
	if len(base.Manifest.Layers) >= image.MaxLayers {
		return ocispec.Descriptor{}, fmt.Errorf("add layer: image already has the maximum of %d layers: %w", image.MaxLayers, errdefs.ErrFailedPrecondition)
	}
	raw, err := base.addTo(diffID, o)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("change configuration: %w", err)
	}
	m := ocispec.Manifest{Versioned: base.Manifest.Versioned, MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	if m.Config, err = putDocument(ctx, c, ocispec.MediaTypeImageConfig, raw); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, l := range base.Manifest.Layers {
		l.MediaType = image.Formatted(l.MediaType, image.FormatOCI)
		m.Layers = append(m.Layers, l)
	}
	m.Layers = append(m.Layers, layer)
	if raw, err = json.Marshal(m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("make manifest: %w", err)
	}
	return putDocument(ctx, c, m.MediaType, raw)
}

// addTo returns the configuration with the layer and the changes.
func (b *Base) addTo(diffID digest.Digest, o LayerOptions) ([]byte, error) {
	doc, err := rawjson.Parse(b.config)
	if err != nil {
		return nil, err
	}
	created := o.Created.UTC()
	config := rawjson.Object{}
	var rootFS ocispec.RootFS
	var history []json.RawMessage
	entry, err := json.Marshal(ocispec.History{Created: &created, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Comment})
	if err != nil {
		return nil, fmt.Errorf("encode history: %w", err)
	}
	if err := errors.Join(doc.Get("config", &config), doc.Get("rootfs", &rootFS), doc.Get("history", &history)); err != nil {
		return nil, err
	}
	if config == nil { // null
		config = rawjson.Object{}
	}
	if err := applyChanges(config, o.Changes); err != nil {
		return nil, err
	}
	rootFS.Type = "layers"
	rootFS.DiffIDs = append(rootFS.DiffIDs, diffID)
	// These describe the container that the image was created from, and are wrong for this one.
	for _, member := range []string{"id", "parent", "container", "container_config", "docker_version"} {
		delete(doc, member)
	}
	err = errors.Join(doc.Set("config", config), doc.Set("rootfs", rootFS), doc.Set("created", created),
		doc.Set("history", append(history, entry)))
	if o.Author != "" {
		err = errors.Join(err, doc.Set("author", o.Author))
	}
	if err != nil {
		return nil, err
	}
	return doc.Encode()
}
