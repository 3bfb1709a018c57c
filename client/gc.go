package client

import (
	"context"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Freed is an object that a garbage collection has removed, or would.
type Freed struct {
	// Kind is image, lease, content, snapshot, ingest, or file: a blob or directory without a
	// record, which belongs to no namespace.
	Kind, Namespace string
	// Snapshotter is that of a snapshot, Name its key; for others an image's name or a digest.
	Snapshotter, Name string
	// Bytes on disk; 0 for a blob that another namespace still has.
	Bytes int64
}

// Garbage holds the objects that a collection has removed, or would.
type Garbage struct {
	// Freed lists them; of a long list, Omitted are left out.
	Freed   []Freed
	Omitted int64
	// Bytes is the sum, including omitted ones.
	Bytes int64
	// Run holds the figures of the collection; zero for a dry run.
	Run GCRun
}

// GCRun holds the figures of a collection.
type GCRun struct {
	StartedAt time.Time
	// Duration is the total time, Mark the time of reading references, which blocks nothing.
	Duration, Mark time.Duration
	// Pause is the longest time that writers waited, Paused the sum of all such times.
	Pause, Paused       time.Duration
	Objects, References int64
	// Removed records, and Bytes freed on disk.
	Removed, Bytes int64
}

// GCStats holds the collections since the daemon's start.
type GCStats struct {
	Runs, Failures, Removed, Bytes int64
	Paused                         time.Duration
	Last                           GCRun
	// LastError is the error of the last one; empty if it succeeded.
	LastError string
}

// CollectGarbage removes unreferenced objects, in all namespaces, and returns them. Concurrent calls
// share one collection.
func (c *Client) CollectGarbage(ctx context.Context) (Garbage, error) {
	resp, err := call[cleatapi.CollectResponse](ctx, c, cleatapi.GCService, "Collect", &cleatapi.CollectRequest{})
	if err != nil {
		return Garbage{}, about("collect garbage", "", err)
	}
	return garbage(resp), nil
}

// FindGarbage returns the objects that CollectGarbage would remove at this moment, and removes nothing.
func (c *Client) FindGarbage(ctx context.Context) (Garbage, error) {
	resp, err := query[cleatapi.CollectResponse](ctx, c, cleatapi.GCService, "Collect", &cleatapi.CollectRequest{DryRun: true})
	if err != nil {
		return Garbage{}, about("look for garbage", "", err)
	}
	return garbage(resp), nil
}

// GCStats returns the statistics of the collections so far.
func (c *Client) GCStats(ctx context.Context) (GCStats, error) {
	resp, err := query[cleatapi.GCStatsResponse](ctx, c, cleatapi.GCService, "Stats", &cleatapi.GCStatsRequest{})
	if err != nil {
		return GCStats{}, about("read statistics of garbage collection", "", err)
	}
	return GCStats{
		Runs: resp.Runs, Failures: resp.Failures, Removed: resp.Removed, Bytes: resp.Bytes,
		Paused: time.Duration(resp.PausedNs), Last: gcRun(resp.Last), LastError: resp.LastError,
	}, nil
}

func garbage(m *cleatapi.CollectResponse) Garbage {
	g := Garbage{Omitted: m.Omitted, Bytes: m.Bytes, Run: gcRun(m.Run)}
	for _, f := range m.Freed {
		g.Freed = append(g.Freed, Freed{
			Kind: f.Kind, Namespace: f.Namespace, Snapshotter: f.Snapshotter, Name: f.Name, Bytes: f.Bytes,
		})
	}
	return g
}

func gcRun(m *cleatapi.GCRun) GCRun {
	if m == nil {
		return GCRun{}
	}
	return GCRun{
		StartedAt: m.StartedAt.Time(), Duration: time.Duration(m.DurationNs), Mark: time.Duration(m.MarkNs),
		Pause: time.Duration(m.PauseNs), Paused: time.Duration(m.PausedNs),
		Objects: m.Objects, References: m.References, Removed: m.Removed, Bytes: m.Bytes,
	}
}

// Reference is one object of a chain of references.
type Reference struct {
	Kind, Snapshotter, Name string
	// Via is how the previous object refers to it: target, snapshot, parent, lease, expected, or
	// label and the label's key. On the first it is root, or held: by a running call.
	Via string
}

// Kept is an object and the reason why it is kept.
type Kept struct {
	// Name as requested.
	Name string
	// Chain goes from a root to the object.
	Chain []Reference
}

// Garbage reports whether the object is unreferenced: the next collection removes it.
func (k Kept) Garbage() bool { return len(k.Chain) == 0 || k.Chain[0].Via == "" }

// Why returns the references that keep images, blobs and snapshots of the namespace, by the names of images, digests
// and keys of snapshots. A name may match several objects. One without a match is
// errdefs.ErrNotFound.
func (c *Client) Why(ctx context.Context, names ...string) ([]Kept, error) {
	resp, err := query[cleatapi.WhyResponse](ctx, c, cleatapi.GCService, "Why", &cleatapi.WhyRequest{Names: names})
	if err != nil {
		return nil, about("look for references", "", err)
	}
	out := make([]Kept, 0, len(resp.Objects))
	for _, o := range resp.Objects {
		k := Kept{Name: o.Name}
		for _, r := range o.Chain {
			k.Chain = append(k.Chain, Reference{Kind: r.Kind, Snapshotter: r.Snapshotter, Name: r.Name, Via: r.Via})
		}
		out = append(out, k)
	}
	return out, nil
}
