package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/image/registry"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/reason"
)

// shortestID is how few hex digits of a digest stand for an image.
const shortestID = 3

// Resolve finds an image by any reference that users see: its name as stored or as they shorten it, NAME@DIGEST
// and NAME:TAG@DIGEST, a digest or an id of its manifest or configuration, in full or the beginning. Not found
// if there is none; invalid argument if the beginning of an id fits several images.
func (s *Store) Resolve(ctx context.Context, namespace, ref string) (metadata.Image, error) {
	found, err := s.resolveAll(ctx, namespace, ref)
	if err != nil {
		return metadata.Image{}, err
	}
	return found[0], nil
}

// FullName returns the name under which the image that a reference stands for is stored, "" if there is none. A
// whole digest stands for a blob here, not for the image.
func (s *Store) FullName(ctx context.Context, namespace, ref string) (string, error) {
	if _, err := digest.Parse(ref); err == nil {
		return "", nil
	}
	img, err := s.Resolve(ctx, namespace, ref)
	return img.Name, undo.Ignore(err, errdefs.ErrNotFound)
}

// resolveAll returns every name that a reference means: one, or several of one image that is meant by its
// digest.
func (s *Store) resolveAll(ctx context.Context, namespace, ref string) ([]metadata.Image, error) {
	named, list, err := s.ResolveName(ctx, namespace, ref)
	if err != nil || named != nil {
		return named, err
	}
	id, ok := parseImageID(ref)
	if !ok {
		return nil, NotFound(ref)
	}
	found, ids, err := s.matchID(ctx, namespace, list, id)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, NotFound(ref)
	}
	if len(ids) > 1 && slices.ContainsFunc(found, func(img metadata.Image) bool { return img.Target.Digest != found[0].Target.Digest }) {
		return nil, fmt.Errorf("image %s: several images have an id that begins with it: %w", ref, errdefs.ErrInvalidArgument)
	}
	if i := slices.IndexFunc(found, func(img metadata.Image) bool { return id.tag != "" && sameName(img.Name, id.tag) }); i >= 0 {
		return found[i : i+1], nil
	}
	return found, nil
}

// NotFound returns the error for a reference that no image has.
func NotFound(ref string) error { return fmt.Errorf("image %s: %w", ref, reason.ImageNotFound) }

// ResolveName finds an image by name alone. If there is none, found is nil and all has every image.
func (s *Store) ResolveName(ctx context.Context, namespace, ref string) (found, all []metadata.Image, err error) {
	full, nameErr := image.NormalizeName(ref)
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		images := tx.Images(namespace)
		names := []string{ref}
		if nameErr == nil {
			names = append(names, full)
		}
		for _, name := range names {
			img, err := images.Get(name)
			if err == nil {
				found = []metadata.Image{img}
				return nil
			}
			if !errors.Is(err, errdefs.ErrNotFound) {
				return err
			}
		}
		all, err = images.List()
		return err
	})
	if err != nil || found != nil || nameErr != nil {
		return found, all, err
	}
	for _, img := range all { // clients store names that are not in full
		if sameName(img.Name, full) {
			return []metadata.Image{img}, all, nil
		}
	}
	return nil, all, nil
}

// sameName reports whether a stored name is another form of a full one.
func sameName(stored, full string) bool {
	if stored == full {
		return true
	}
	name, err := image.NormalizeName(stored)
	return err == nil && name == full
}

// imageID is a digest, or the beginning of one, that stands for an image.
type imageID struct {
	algorithm digest.Algorithm // "" if it is not given
	hex       string
	// repository and tag, if it is NAME@DIGEST or NAME:TAG@DIGEST; the tag as part of a full name.
	repository, tag string
}

// parseImageID reads [NAME[:TAG]@][ALGORITHM:]HEX.
func parseImageID(ref string) (id imageID, ok bool) {
	name, rest, named := strings.Cut(ref, "@")
	if !named {
		name, rest = "", ref
	}
	if algorithm, hex, ok := strings.Cut(rest, ":"); ok {
		if id.algorithm = digest.Algorithm(algorithm); !id.algorithm.Available() {
			return id, false
		}
		rest = hex
	} else if named {
		return id, false
	}
	if id.hex = rest; len(rest) < shortestID || strings.Trim(rest, "0123456789abcdef") != "" {
		return id, false
	}
	if !named {
		return id, true
	}
	r, err := registry.Parse(name)
	if err != nil || r.Digest != "" {
		return id, false
	}
	id.repository = r.Host + "/" + r.Repository
	if strings.Contains(name[strings.LastIndex(name, "/")+1:], ":") {
		id.tag = r.String()
	}
	return id, true
}

// IsID reports whether a reference may be an id, or the beginning of one, without a name.
func IsID(ref string) bool {
	id, ok := parseImageID(ref)
	return ok && id.repository == ""
}

// matches reports whether the id is a digest or its beginning.
func (id imageID) matches(d digest.Digest) bool {
	return d.Validate() == nil && (id.algorithm == "" || id.algorithm == d.Algorithm()) && strings.HasPrefix(d.Encoded(), id.hex)
}

// inRepository reports whether a stored name is one of the id's repository, if it has one.
func (id imageID) inRepository(stored string) bool {
	if id.repository == "" {
		return true
	}
	r, err := registry.Parse(stored)
	return err == nil && r.Host+"/"+r.Repository == id.repository
}

// matchID returns the images that an id stands for, and the digests that it is the beginning of: by their own
// digests or, if there are none, by those of their manifests and configurations, which other engines show as
// an image's id.
func (s *Store) matchID(ctx context.Context, namespace string, list []metadata.Image, id imageID) (found []metadata.Image, ids map[digest.Digest]bool, err error) {
	ids = make(map[digest.Digest]bool)
	for _, img := range list {
		if id.inRepository(img.Name) && id.matches(img.Target.Digest) {
			found = append(found, img)
			ids[img.Target.Digest] = true
		}
	}
	if len(found) > 0 {
		return found, ids, nil
	}
	blobs := s.blobs.In(namespace)
	for _, img := range list {
		if !id.inRepository(img.Name) {
			continue
		}
		parts, err := image.IDs(ctx, blobs, img.Target)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err != nil {
			continue // damaged content must not hide other images
		}
		if i := slices.IndexFunc(parts, id.matches); i >= 0 {
			found = append(found, img)
			ids[parts[i]] = true
		}
	}
	return found, ids, nil
}
