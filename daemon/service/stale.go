package service

import (
	"context"
	"regexp"
	"time"

	"github.com/cleatproject/cleat/content"
)

// importRef is what package image calls the ingests of an import: nobody takes them up again.
const importRef = `^[^/]+/import-[A-Z2-7]{26}-[0-9]+$`

// cleanImports drops the ingests of imports that died with a daemon. Before the first request.
func (s *Service) cleanImports(ctx context.Context) error {
	ours, err := regexp.Compile(importRef)
	if err != nil {
		return err
	}
	// All of them, also those that a clock which was set back since dates in the future.
	forever := time.Unix(1<<40, 0)
	_, err = s.Content.AbortStale(ctx, forever, func(st content.Status) bool { return ours.MatchString(st.Ref) })
	return err
}
