package blobs

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/cleatproject/cleat/content"
)

// importRef is what package image calls the ingests of an import, and of what it makes itself. They
// are never resumed.
const importRef = `^[^/]+/(import|make)-[A-Z2-7]{26}-[0-9]+$`

// CleanImports drops the ingests of imports and the like that died with a daemon. Before the first request.
func (s *Store) CleanImports(ctx context.Context) error {
	ours, err := regexp.Compile(importRef)
	if err != nil {
		return err
	}
	_, err = s.content.AbortStale(ctx, forever(), func(st content.Status) bool { return ours.MatchString(st.Ref) })
	return err
}

// forever is later than any ingest, also than one that is dated in the future because the clock was
// set back since.
func forever() time.Time { return time.Unix(1<<40, 0) }

// DropIngests drops the ingests of a namespace that is gone: the next one of its name is not to find
// them.
func (s *Store) DropIngests(ctx context.Context, namespace string) error {
	_, err := s.content.AbortStale(ctx, forever(), func(st content.Status) bool {
		return strings.HasPrefix(st.Ref, namespace+"/")
	})
	return err
}
