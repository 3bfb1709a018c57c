package layout

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
)

// annotationName holds an image's full name, as containerd and docker write it.
const annotationName = "io.containerd.image.name"

// stated holds the statements of an index about the name of one of its manifests.
type stated struct {
	// name is the name as written; "" if there is none.
	name string
	// tag is a ref name that is only a tag, and so the tag of a repository that the index does not name.
	tag string
}

// namesName reports whether a text is more than a word.
func namesName(text string) bool { return strings.ContainsAny(text, "/:@") }

// statedName reads the annotations of an index's manifest. A word instead of a name is ignored.
func statedName(d ocispec.Descriptor) stated {
	if name, ok := d.Annotations[annotationName]; ok && name != "" {
		if namesName(name) {
			return stated{name: name}
		}
		return stated{}
	}
	switch ref := d.Annotations[ocispec.AnnotationRefName]; {
	case namesName(ref):
		return stated{name: ref}
	default:
		return stated{tag: ref}
	}
}

// nameOf returns the full name that an index gives one of its manifests, or "". A ref name that is only a tag
// is one of the repository, and ignored if that is "": it is not the name of a repository.
func nameOf(d ocispec.Descriptor, repository string) (name string, err error) {
	if name := d.Annotations[annotationName]; name != "" {
		return image.NormalizeName(name)
	}
	switch s := statedName(d); {
	case s.name != "":
		return image.NormalizeName(s.name)
	case s.tag != "" && repository != "":
		return image.NormalizeName(repository + ":" + s.tag)
	}
	return "", nil
}
