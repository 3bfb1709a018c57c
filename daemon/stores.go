package daemon

import (
	"log/slog"
	"path/filepath"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/config"
	"github.com/cleatproject/cleat/events"
	"github.com/cleatproject/cleat/internal/undo"
	"github.com/cleatproject/cleat/metadata"
)

// stores holds a daemon's stores below its root, except for snapshots.
type stores struct {
	content *content.Store
	events  *events.Log
	db      *metadata.DB
}

// openStores opens the stores; their close functions are pushed on closing, even if one fails.
func openStores(cfg config.Config, log *slog.Logger, closing *undo.Stack) (s stores, err error) {
	if s.content, err = content.Open(filepath.Join(cfg.Root, "content")); err != nil {
		return s, err
	}
	s.events, err = events.Open(filepath.Join(cfg.Root, "events"), events.Options{
		Keep:    cfg.EventsKeep,
		OnError: func(err error) { log.Error("event log", "error", err) },
		OnHold:  func(h events.Hold) { logHold(log, h) },
	})
	if err != nil {
		return s, err
	}
	closing.Push("close event log", s.events.Close)
	if s.db, err = openMetadata(cfg.Root, s.events, log); err != nil {
		return s, err
	}
	closing.Push("close metadata", s.db.Close)
	return s, nil
}

// logHold reports that events are held in memory, or that they have been written.
func logHold(log *slog.Logger, h events.Hold) {
	switch {
	case h.Cause != nil:
		log.Warn("cannot write events; they are kept in memory until they can be written", "error", h.Cause)
	case h.Lost > 0:
		log.Warn("events are written again; some were lost", "written", h.Events, "lost", h.Lost)
	default:
		log.Info("events are written again", "written", h.Events)
	}
}
