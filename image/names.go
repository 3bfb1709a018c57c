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
// without "/" and ":" is a tag of the repository, where one is given; where none is, it is told beside.
func nameOf(d ocispec.Descriptor, repository string) (name, tag string, err error) {
	if name := d.Annotations[annotationName]; name != "" {
		name, err = NormalizeName(name)
		return name, "", err
	}
	ref := d.Annotations[ocispec.AnnotationRefName]
	if ref == "" {
		return "", "", nil
	}
	if !strings.ContainsAny(ref, "/:@") {
		if repository != "" {
			name, err = NormalizeName(repository + ":" + ref)
			return name, "", err
		}
		tag = ref
	}
	name, err = NormalizeName(ref)
	if err != nil && tag != "" {
		err = nil // a tag such as 1.0_RC1 that is no name
	}
	return name, tag, err
}
