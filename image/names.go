package image

import (
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationName is where containerd and docker keep an image's full name.
const annotationName = "io.containerd.image.name"

// NormalizeName returns the full form of an image's name, as Docker understands it:
// "busybox" is "docker.io/library/busybox:latest". Invalid argument if it is none.
func NormalizeName(name string) (string, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", invalidf("image name %.256q: %w", name, err)
	}
	return ref.String(), nil
}

// nameOf returns the name that an index gives one of its manifests, or "". A ref name
// without "/" and ":" is a tag of the repository, where one is given.
func nameOf(d ocispec.Descriptor, repository string) (string, error) {
	if name := d.Annotations[annotationName]; name != "" {
		return NormalizeName(name)
	}
	name := d.Annotations[ocispec.AnnotationRefName]
	switch {
	case name == "":
		return "", nil
	case repository != "" && !strings.ContainsAny(name, "/:@"):
		return NormalizeName(repository + ":" + name)
	default:
		return NormalizeName(name)
	}
}
