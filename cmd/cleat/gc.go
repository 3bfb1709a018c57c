package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

func gcCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "gc [FLAGS]", Short: "remove unused data in every namespace",
		Long: "Containers, images and leases keep what they refer to. Blobs, snapshots and uploads that nothing refers to\n" +
			"are removed, and so are expired leases and images. The daemon does this by itself after deletions. cleat\n" +
			"why shows what keeps an object.",
		Args: argCount(0, 0),
	}
	l := &listFlags{}
	l.declare(cmd.Flags())
	dry := cmd.Flags().Bool("dry-run", false, "print what would be removed")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
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
	return cmd
}

// garbageJSON is the JSON form of a collection.
type garbageJSON struct {
	Freed   []freedJSON `json:"freed"`
	Omitted int64       `json:"omitted"`
	Bytes   int64       `json:"bytes"`
	// The following are set if the collection took place.
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
		rows = append(rows, []string{f.Kind, cmp.Or(f.Namespace, "-"), f.Name, size(uint64(max(f.Bytes, 0)))})
		out.Freed = append(out.Freed, freedJSON{f.Kind, f.Namespace, f.Snapshotter, f.Name, f.Bytes})
	}
	if g.Omitted > 0 {
		rows = append(rows, []string{"...", "-", fmt.Sprintf("%d more", g.Omitted), "-"})
	}
	rows = append(rows, []string{"total", "-", fmt.Sprint(int64(len(g.Freed)) + g.Omitted), size(uint64(max(g.Bytes, 0)))})
	return l.show(a.stdout, []string{"KIND", "NAMESPACE", "NAME", "SIZE"}, rows, names, out)
}
