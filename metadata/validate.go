package metadata

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

const (
	maxNameLength  = 4096
	maxLabelLength = 4096
)

// validateName checks a free text that serves as a key.
func validateName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty: %w", what, errdefs.ErrInvalidArgument)
	case len(name) > maxNameLength:
		return fmt.Errorf("%s is longer than %d bytes: %w", what, maxNameLength, errdefs.ErrInvalidArgument)
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("%s %q holds a NUL byte: %w", what, name, errdefs.ErrInvalidArgument)
	case !utf8.ValidString(name):
		return fmt.Errorf("%s %q is not UTF-8: %w", what, name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// ValidateLabels checks that no label, key and value together, is longer than 4096 bytes, that no
// key is empty, and that all is UTF-8: no message could carry anything else.
func ValidateLabels(labels map[string]string) error {
	for k, v := range labels {
		if k == "" {
			return fmt.Errorf("label with an empty key: %w", errdefs.ErrInvalidArgument)
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("label %.64q is not UTF-8: %w", k, errdefs.ErrInvalidArgument)
		}
		if len(k)+len(v) > maxLabelLength {
			return fmt.Errorf("label %.64q is longer than %d bytes, key and value together: %w", k, maxLabelLength, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// validateExtensions checks that every extension has a name.
func validateExtensions(noun, id string, extensions map[string]Any) error {
	if _, ok := extensions[""]; ok {
		return fmt.Errorf("%s %q has an extension with an empty name: %w", noun, id, errdefs.ErrInvalidArgument)
	}
	return nil
}

func validateDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %.128q: %w: %w", d, err, errdefs.ErrInvalidArgument)
	}
	return nil
}
