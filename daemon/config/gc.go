package config

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/gc"
)

// GCConfig is the table [gc]; names, meanings and defaults are those of containerd's scheduler.
type GCConfig struct {
	// PauseThreshold bounds the share of time for which writers may be kept waiting; at most 0.5.
	PauseThreshold float64 `toml:"pause_threshold"`
	// DeletionThreshold is the number of deletions that start a collection at once; 0: when
	// PauseThreshold allows.
	DeletionThreshold int `toml:"deletion_threshold"`
	// MutationThreshold is the number of changes that start a collection without a deletion.
	MutationThreshold int `toml:"mutation_threshold"`
	// ScheduleDelay is the delay between the cause of a collection and its start, such as "1s".
	ScheduleDelay duration `toml:"schedule_delay"`
	// StartupDelay is the delay before the first collection.
	StartupDelay duration `toml:"startup_delay"`
}

// duration is a time as text: "100ms".
type duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func defaultGC() GCConfig {
	g := gc.DefaultSchedule()
	return GCConfig{
		PauseThreshold: g.PauseThreshold, DeletionThreshold: g.DeletionThreshold, MutationThreshold: g.MutationThreshold,
		ScheduleDelay: duration(g.ScheduleDelay), StartupDelay: duration(g.StartupDelay),
	}
}

func (g *GCConfig) check() error {
	switch {
	case !(g.PauseThreshold >= 0 && g.PauseThreshold <= 0.5):
		return fmt.Errorf("gc.pause_threshold %v: want 0 to 0.5: %w", g.PauseThreshold, errdefs.ErrInvalidArgument)
	case g.DeletionThreshold < 0 || g.MutationThreshold < 0:
		return fmt.Errorf("gc.deletion_threshold %d, gc.mutation_threshold %d: want 0 or more: %w", g.DeletionThreshold, g.MutationThreshold, errdefs.ErrInvalidArgument)
	case g.ScheduleDelay < 0 || g.StartupDelay < 0:
		return fmt.Errorf("gc.schedule_delay, gc.startup_delay: want 0 or more: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// Service returns the schedule of the service for this configuration.
func (g *GCConfig) Service() gc.Schedule {
	return gc.Schedule{
		PauseThreshold: g.PauseThreshold, DeletionThreshold: g.DeletionThreshold, MutationThreshold: g.MutationThreshold,
		ScheduleDelay: time.Duration(g.ScheduleDelay), StartupDelay: time.Duration(g.StartupDelay),
	}
}
