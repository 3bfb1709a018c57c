package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/cleatproject/cleat/client"
	"github.com/spf13/pflag"
)

func whyCommand() command {
	return command{
		name: "why", args: "DIGEST|SNAPSHOT|IMAGE...", min: 1, max: -1,
		short: "show what keeps a blob, a snapshot or an image",
		detail: "Each object is shown below the chain of references that keeps it from being collected, from what\n" +
			"is kept for its own sake: an image, a container, a lease, what bears the label containerd.io/gc.root,\n" +
			"or what a call under way holds.",
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "table", "`table` for people or json for programs")
			return func(ctx context.Context, a *app, args []string) error {
				if err := checkFormat(*format); err != nil {
					return err
				}
				return a.withClient(ctx, func(c *client.Client) error {
					kept, err := c.Why(ctx, args...)
					if err != nil {
						return err
					}
					if *format == "json" {
						return writeJSON(a.stdout, keptToJSON(kept))
					}
					var lines []string
					for _, k := range kept {
						lines = append(lines, chainLines(k)...)
					}
					return writeLines(a.stdout, lines)
				})
			}
		},
	}
}

// chainLines shows a chain, a line an object, each further in than what refers to it.
func chainLines(k client.Kept) []string {
	if k.Garbage() {
		text := k.Name
		if len(k.Chain) > 0 {
			text = called(k.Chain[0])
		}
		return []string{text + ": nothing keeps it; the next collection removes it"}
	}
	var lines []string
	for depth, r := range k.Chain {
		line := called(r)
		switch {
		case depth > 0:
			line = fmt.Sprintf("%s-> %s (%s)", strings.Repeat("   ", depth-1), line, r.Via)
		case r.Via == "held":
			line += " (held by a call under way)"
		}
		lines = append(lines, line)
	}
	return lines
}

func called(r client.Reference) string {
	if r.Snapshotter != "" {
		return fmt.Sprintf("%s %s of %s", r.Kind, r.Name, r.Snapshotter)
	}
	return r.Kind + " " + r.Name
}

// keptJSON is an object and its chain for programs.
type keptJSON struct {
	Name    string          `json:"name"`
	Garbage bool            `json:"garbage"`
	Chain   []referenceJSON `json:"chain"`
}

type referenceJSON struct {
	Kind        string `json:"kind"`
	Snapshotter string `json:"snapshotter,omitempty"`
	Name        string `json:"name"`
	Via         string `json:"via,omitempty"`
}

func keptToJSON(kept []client.Kept) []keptJSON {
	out := []keptJSON{}
	for _, k := range kept {
		j := keptJSON{Name: k.Name, Garbage: k.Garbage(), Chain: []referenceJSON{}}
		for _, r := range k.Chain {
			j.Chain = append(j.Chain, referenceJSON(r))
		}
		out = append(out, j)
	}
	return out
}
