package service

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Collect runs a garbage collection (metadata/gc.go for the records, gcfiles.go for what is on
// disk), or joins the next one, and tells what went. Called by daemon/api/native/gc.go, and for deletions
// that are to be synchronous.
func (s *Service) Collect(ctx context.Context) (*cleatapi.CollectResponse, error) {
	return s.gc.now(ctx)
}

// GCStats tells of the collections so far.
func (s *Service) GCStats() *cleatapi.GCStatsResponse { return s.gc.statistics() }

// Garbage tells what a collection would remove at this moment.
func (s *Service) Garbage(ctx context.Context) (*cleatapi.CollectResponse, error) {
	list, err := s.DB.Garbage(ctx)
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
			if bytes, err = s.lastUsers(ctx, r, users); err != nil {
				return nil, err
			}
		}
		out.add(freed(r, bytes))
	}
	return &out.resp, nil
}

// lastUsers returns the bytes of a blob that goes with the last namespace that sees it, once.
func (s *Service) lastUsers(ctx context.Context, r metadata.Removed, going map[string]int) (int64, error) {
	have, err := s.blobs.Users(ctx, digest.Digest(r.Name))
	if err != nil || have > going[r.Name] {
		return 0, err
	}
	delete(going, r.Name)
	return r.Size, nil
}

// collectGarbage is one collection: the records, then what is on disk. A collection that leaves
// something on disk makes the next one look for it.
func (s *Service) collectGarbage(ctx context.Context) (*cleatapi.CollectResponse, error) {
	run := &cleatapi.GCRun{}
	out := &tally{resp: cleatapi.CollectResponse{Run: run}}
	if !s.gcState.labelled {
		if err := s.labelOldImages(ctx); err != nil {
			return &out.resp, err
		}
		s.gcState.labelled = true
	}
	opts := s.Collecting
	opts.Removing = announce.Collected
	c, err := s.DB.Collect(ctx, opts)
	run.MarkNs, run.PauseNs, run.PausedNs = int64(c.Marking), int64(c.Pause), int64(c.Paused)
	run.Objects, run.References, run.Removed = int64(c.Objects), int64(c.References), int64(len(c.Removed))
	// What is off the records has to go from the disk, whatever else failed.
	err = errors.Join(err, s.removeFiles(ctx, c.Removed, out))
	if err == nil && !s.gcState.swept {
		err = s.removeUnrecorded(ctx, out)
	}
	err = errors.Join(err, s.releaseMounts(ctx))
	err = errors.Join(err, s.expireIngests(ctx, time.Now(), out))
	s.gcState.swept = err == nil
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
