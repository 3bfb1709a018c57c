package metadata

import (
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
)

// setMap applies an update of one map: the path "labels" replaces it, "labels.key" sets that one key
// or, if it is missing in from, deletes it. An empty text is not a value. It returns false if the
// path is about another field. The key is all that follows the first dot, dots included.
func setMap[V any](path, name string, to *map[string]V, from map[string]V) bool {
	if path == name {
		*to = maps.Clone(from)
		maps.DeleteFunc(*to, func(_ string, v V) bool { return isEmpty(v) })
		return true
	}
	key, ok := strings.CutPrefix(path, name+".")
	if !ok {
		return false
	}
	v, has := from[key]
	switch {
	case !has || isEmpty(v):
		delete(*to, key)
	case *to == nil:
		*to = map[string]V{key: v}
	default:
		(*to)[key] = v
	}
	return true
}

// isEmpty reports whether a value is the empty text: by the API's convention a label with an empty
// value is absent.
func isEmpty[V any](v V) bool {
	text, ok := any(v).(string)
	return ok && text == ""
}

func badPath(path string) error {
	return fmt.Errorf("field %q cannot be updated: %w", path, errdefs.ErrInvalidArgument)
}

// UpdateLabels applies an update to the labels of what has nothing else that can change, by the paths
// "labels" and "labels.<key>"; without paths they are replaced. An errdefs.ErrInvalidArgument for other
// paths, and for labels that ValidateLabels refuses; *to may have changed then.
func UpdateLabels(to *map[string]string, from map[string]string, paths []string) error {
	if len(paths) == 0 {
		paths = []string{"labels"}
	}
	for _, p := range paths {
		if !setMap(p, "labels", to, from) {
			return badPath(p)
		}
	}
	return ValidateLabels(*to)
}
