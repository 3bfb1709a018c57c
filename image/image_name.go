package image

import (
	"github.com/distribution/reference"
)

// NormalizeName returns the full form of an image's name, as Docker does:
// "busybox" is "docker.io/library/busybox:latest". Invalid argument if it is not a name.
func NormalizeName(name string) (string, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", invalidf("image name %.256q: %w", name, err)
	}
	return ref.String(), nil
}
