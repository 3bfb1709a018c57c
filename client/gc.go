package client

import (
	"context"
	"time"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Freed is one thing that a garbage collection has removed, or would.
type Freed struct {
	// Kind is image, lease, content, snapshot, ingest, or file: a blob or directory that no record
	// named, which belongs to no namespace.
	Kind, Namespace string
	// Snapshotter is that of a snapshot, Name its key; for others an image's name or a digest.
	Snapshotter, Name string
	// Bytes on disk; 0 for a blob that another namespace still has.
	Bytes int64
}

// Garbage is what a collection has removed, or would.
type Garbage struct {
	// Freed lists it; of very many, Omitted are left out.
	Freed   []Freed
	Omitted int64
	// Bytes is the sum, of those left out too.
	Bytes int64
	// Run tells how it went; of a dry run, nothing.
	Run GCRun
}

// GCRun tells how a collection went.
type GCRun struct {
	StartedAt time.Time
	// Duration is all of it, Mark the reading of references, beside which everybody works.
	Duration, Mark time.Duration
	// Pause is the longest time that writers waited, Paused all such times.
	Pause, Paused       time.Duration
	Objects, References int64
	// Removed records, and Bytes freed on disk.
	Removed, Bytes int64
}

// GCStats are the collections since the daemon's start.
type GCStats struct {
	Runs, Failures, Removed, Bytes int64
	Paused                         time.Duration
	Last                           GCRun
	// LastError says why the last one failed; empty where it did not.
	LastError string
}

// CollectGarbage removes what nothing keeps, in all namespaces, and returns what went. Several calls
// at a time share one collection.
func (c *Client) CollectGarbage(ctx context.Context) (Garbage, error) {
	resp, err := call[cleatapi.CollectResponse](ctx, c, cleatapi.GCService, "Collect", &cleatapi.CollectRequest{})
	if err != nil {
		return Garbage{}, about("collect garbage", "", err)
	}
	return garbage(resp), nil
}

// FindGarbage returns what CollectGarbage would remove at this moment, and removes nothing.
func (c *Client) FindGarbage(ctx context.Context) (Garbage, error) {
	resp, err := query[cleatapi.CollectResponse](ctx, c, cleatapi.GCService, "Collect", &cleatapi.CollectRequest{DryRun: true})
	if err != nil {
		return Garbage{}, about("look for garbage", "", err)
	}
	return garbage(resp), nil
}

// GCStats tells of the collections so far.
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
	// Via says how the one before refers to it: target, snapshot, parent, lease, expected, or
	// label and the label's key. On the first it is root, or held: by a call under way.
	Via string
}

// Kept is an object and what keeps it.
type Kept struct {
	// Name as asked for.
	Name string
	// Chain goes from what is kept for its own sake to the object.
	Chain []Reference
}

// Garbage tells whether nothing keeps the object: it goes with the next collection.
func (k Kept) Garbage() bool { return len(k.Chain) == 0 || k.Chain[0].Via == "" }

// Why tells what keeps images, blobs and snapshots of the namespace, by the names of images, digests
// and keys of snapshots. A name may stand for several objects. One that stands for none is
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
