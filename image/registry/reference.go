package registry

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	digest "github.com/opencontainers/go-digest"
)

// Reference is a reference in full: busybox is docker.io, library/busybox and latest.
type Reference struct {
	// Host is the registry's, with the port if there is one.
	Host string
	// Repository is the path without the host.
	Repository string
	// Tag is "" where there is a digest.
	Tag    string
	Digest digest.Digest
}

// Parse reads a reference as Docker's users write it. Where there are a tag and a digest the digest
// counts and the tag goes. Invalid argument if it is none.
func Parse(text string) (Reference, error) {
	if scheme, _, ok := strings.Cut(text, "://"); ok && scheme != "" {
		return Reference{}, fmt.Errorf("reference %.256q: scheme %q: %w", text, scheme+"://", errdefs.ErrInvalidArgument)
	}
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return Reference{}, fmt.Errorf("reference %.256q: %w; write [REGISTRY/]NAME[:TAG] or [REGISTRY/]NAME@DIGEST: %w", text, err, errdefs.ErrInvalidArgument)
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

// String returns the reference in full; Parse reads it as the same.
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

// target is what a manifest is asked by.
func (r Reference) target() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}
