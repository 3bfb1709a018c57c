package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

func whyCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "why [FLAGS] DIGEST|SNAPSHOT|IMAGE...", Short: "show what keeps blobs, snapshots or images",
		Long: "Prints each object below the chain of references that keeps it from being collected. A chain starts at an\n" +
			"object that is kept for its own sake: an image, a container, a lease, an object with the label\n" +
			"containerd.io/gc.root, or one that a running call holds.",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listImages),
	}
	format := declareFormat(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		ctx := cmd.Context()
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
	return cmd
}

// chainLines formats a chain: one line for each object, indented below the object that refers to it.
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

// keptJSON is the JSON form of an object and its chain.
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
