// Package gc collects garbage: when (schedule.go), the records (package metadata), and the files behind
// them (files.go).
package gc

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/daemon/service/blobs"
	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Config is what a Collector works with; all fields are required but those that say otherwise.
type Config struct {
	DB        *metadata.DB
	Content   *content.Store
	Blobs     *blobs.Store
	Snapshots *snapshots.Store
	Log       *slog.Logger
	// Schedule says when garbage is collected, Options how; the zero value of the latter is right.
	Schedule Schedule
	Options  metadata.CollectOptions
	// Prepare is called before collections until it succeeds once: it may label what earlier versions
	// left without labels.
	Prepare func(context.Context) error
	// Release is called in each collection, after the files of removed records are gone.
	Release func(context.Context) error
}

// Collector collects garbage, on request and on schedule. Its methods may be called concurrently.
type Collector struct {
	Config
	scheduler *scheduler
	state     gcState // of the goroutine of Run
}

// New returns a collector; it collects while Run does.
func New(cfg Config) *Collector {
	c := &Collector{Config: cfg}
	c.scheduler = newScheduler(cfg.Schedule, cfg.Log, c.Once)
	cfg.DB.Watch(c.scheduler.note)
	return c
}

// Run collects until ctx ends; its caller waits for it.
func (c *Collector) Run(ctx context.Context) { c.scheduler.loop(ctx) }

// Changed counts changes of which the database knows nothing. It returns at once.
func (c *Collector) Changed(ch metadata.Changes) { c.scheduler.note(ch) }

// Collect runs a garbage collection (metadata/gc.go for the records, files.go for what is on
// disk), or joins the next one, and returns what was removed. Called by daemon/api/native/gc.go, and for deletions
// that are to be synchronous.
func (c *Collector) Collect(ctx context.Context) (*cleatapi.CollectResponse, error) {
	return c.scheduler.now(ctx)
}

// Stats returns the figures of the collections so far.
func (c *Collector) Stats() *cleatapi.GCStatsResponse { return c.scheduler.statistics() }

// Garbage returns what a collection would remove at this moment.
func (c *Collector) Garbage(ctx context.Context) (*cleatapi.CollectResponse, error) {
	list, err := c.DB.Garbage(ctx)
	if err != nil {
		return nil, err
	}
	out := &tally{}
	users := make(map[string]int) // how many of those that go see a blob
	for _, r := range list {
		if r.Kind == metadata.KindContent {
			users[r.Name]++
		}
	}
	for _, r := range list {
		bytes := r.Size
		if r.Kind == metadata.KindContent {
			if bytes, err = c.lastUsers(ctx, r, users); err != nil {
				return nil, err
			}
		}
		out.add(freed(r, bytes))
	}
	return &out.resp, nil
}

// lastUsers returns the bytes of a blob that goes with the last namespace that sees it, once.
func (c *Collector) lastUsers(ctx context.Context, r metadata.Removed, going map[string]int) (int64, error) {
	have, err := c.Blobs.Users(ctx, digest.Digest(r.Name))
	if err != nil || have > going[r.Name] {
		return 0, err
	}
	delete(going, r.Name)
	return r.Size, nil
}

// Once runs one collection outside the schedule, not concurrently with Run: of the records, then of the
// files. If a collection leaves files, the next one searches for them.
func (c *Collector) Once(ctx context.Context) (*cleatapi.CollectResponse, error) {
	run := &cleatapi.GCRun{}
	out := &tally{resp: cleatapi.CollectResponse{Run: run}}
	if !c.state.labelled {
		if err := c.Prepare(ctx); err != nil {
			return &out.resp, err
		}
		c.state.labelled = true
	}
	opts := c.Options
	opts.Removing = announce.Collected
	done, err := c.DB.Collect(ctx, opts)
	run.MarkNs, run.PauseNs, run.PausedNs = int64(done.Marking), int64(done.Pause), int64(done.Paused)
	run.Objects, run.References, run.Removed = int64(done.Objects), int64(done.References), int64(len(done.Removed))
	// What is off the records has to go from the disk, whatever else failed.
	err = errors.Join(err, c.removeFiles(ctx, done.Removed, out))
	if err == nil && !c.state.swept {
		err = c.removeUnrecorded(ctx, out)
	}
	err = errors.Join(err, c.Release(ctx))
	err = errors.Join(err, c.expireIngests(ctx, time.Now(), out))
	c.state.swept = err == nil
	run.Bytes = out.resp.Bytes
	return &out.resp, err
}

// gcState is what one collection leaves to the next.
type gcState struct {
	// labelled means that what earlier versions imported has its labels.
	labelled bool
	// swept means that nothing is on disk without a record, but for what comes of crashes.
	swept bool
}

// maxFreed bounds what a list of the removed takes in a message.
const maxFreed = 2 << 20

// tally is the answer in the making.
type tally struct {
	resp   cleatapi.CollectResponse
	listed int // bytes that the list takes
}

func (t *tally) add(f *cleatapi.Freed) {
	t.resp.Bytes += f.Bytes
	if t.listed += f.Size(); t.listed > maxFreed {
		t.resp.Omitted++
		return
	}
	t.resp.Freed = append(t.resp.Freed, f)
}

func freed(r metadata.Removed, bytes int64) *cleatapi.Freed {
	return &cleatapi.Freed{Kind: r.Kind.String(), Namespace: r.Namespace, Snapshotter: r.Set, Name: r.Name, Bytes: bytes}
}
