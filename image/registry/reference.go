package registry

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// Reference is a complete reference: busybox is docker.io, library/busybox and latest.
type Reference struct {
	// Host is the registry's host, with the port if there is one.
	Host string
	// Repository is the path without the host.
	Repository string
	// Tag is "" if there is a digest.
	Tag    string
	Digest digest.Digest
}

// Parse parses a reference as Docker's users write it. If there are a tag and a digest, the tag is
// ignored. Invalid argument if it is not a reference.
func Parse(text string) (Reference, error) {
	if scheme, _, ok := strings.Cut(text, "://"); ok && scheme != "" {
		return Reference{}, fmt.Errorf("reference %.256q: scheme %q: %w", text, scheme+"://", errdefs.ErrInvalidArgument)
	}
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return Reference{}, fmt.Errorf("reference %.256q: %w: want [REGISTRY/]NAME[:TAG] or [REGISTRY/]NAME@DIGEST: %w", text, err, errdefs.ErrInvalidArgument)
	}
	r := Reference{Host: reference.Domain(named), Repository: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
	}
	return r, nil
}

// String returns the complete reference; Parse parses it to the same.
func (r Reference) String() string {
	name := r.Host + "/" + r.Repository
	switch {
	case r.Digest != "":
		return name + "@" + r.Digest.String()
	case r.Tag != "":
		return name + ":" + r.Tag
	default:
		return name
	}
}

// target returns the tag or digest that a manifest is requested by.
func (r Reference) target() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}
