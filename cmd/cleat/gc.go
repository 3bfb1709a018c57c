package main

import (
	"context"
	"fmt"

	"github.com/cleatproject/cleat/client"
	"github.com/spf13/pflag"
)

func gcCommand() command {
	return command{
		name: "gc", max: 0,
		short: "remove what nothing uses, in every namespace",
		detail: "Containers, images and leases keep what they refer to; blobs, snapshots and uploads that nothing\n" +
			"keeps are removed, and so are leases and images whose time is over. The daemon does this by itself\n" +
			"after deletions. cleat why tells what keeps an object.",
		setup: func(fs *pflag.FlagSet) action {
			l := &listFlags{}
			l.declare(fs)
			dry := fs.Bool("dry-run", false, "only tell what would go")
			return func(ctx context.Context, a *app, _ []string) error {
				return a.withClient(ctx, func(c *client.Client) error {
					collect := c.CollectGarbage
					if *dry {
						collect = c.FindGarbage
					}
					g, err := collect(ctx)
					if err != nil {
						return err
					}
					return showGarbage(a, l, g)
				})
			}
		},
	}
}

// garbageJSON is a collection for programs.
type garbageJSON struct {
	Freed   []freedJSON `json:"freed"`
	Omitted int64       `json:"omitted"`
	Bytes   int64       `json:"bytes"`
	// Of a collection that took place.
	Seconds float64 `json:"seconds,omitempty"`
	Pause   float64 `json:"pause_seconds,omitempty"`
	Objects int64   `json:"objects,omitempty"`
}

type freedJSON struct {
	Kind        string `json:"kind"`
	Namespace   string `json:"namespace"`
	Snapshotter string `json:"snapshotter,omitempty"`
	Name        string `json:"name"`
	Bytes       int64  `json:"bytes"`
}

func showGarbage(a *app, l *listFlags, g client.Garbage) error {
	out := garbageJSON{
		Freed: []freedJSON{}, Omitted: g.Omitted, Bytes: g.Bytes,
		Seconds: g.Run.Duration.Seconds(), Pause: g.Run.Pause.Seconds(), Objects: g.Run.Objects,
	}
	names, rows := []string{}, [][]string{}
	for _, f := range g.Freed {
		names = append(names, f.Name)
		rows = append(rows, []string{f.Kind, or(f.Namespace, "-"), f.Name, size(uint64(max(f.Bytes, 0)))})
		out.Freed = append(out.Freed, freedJSON{f.Kind, f.Namespace, f.Snapshotter, f.Name, f.Bytes})
	}
	if g.Omitted > 0 {
		rows = append(rows, []string{"...", "-", fmt.Sprintf("%d more", g.Omitted), "-"})
	}
	rows = append(rows, []string{"total", "-", fmt.Sprint(int64(len(g.Freed)) + g.Omitted), size(uint64(max(g.Bytes, 0)))})
	return l.show(a.stdout, []string{"KIND", "NAMESPACE", "NAME", "SIZE"}, rows, names, out)
}
