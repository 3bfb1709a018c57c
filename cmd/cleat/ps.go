package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/client/stdio"
)

// containerJSON is the JSON form of a container.
type containerJSON struct {
	ID          string            `json:"id"`
	Namespace   string            `json:"namespace"`
	Image       string            `json:"image"`
	Pid         uint32            `json:"pid"`
	Status      string            `json:"status"`
	ExitCode    uint32            `json:"exit_code"`
	OOMKilled   bool              `json:"oom_killed"`
	Created     string            `json:"created"`
	Started     string            `json:"started"`
	Finished    string            `json:"finished"`
	Command     []string          `json:"command"`
	Labels      map[string]string `json:"labels"`
	Runtime     string            `json:"runtime"`
	LogPath     string            `json:"log_path"`
	Terminal    bool              `json:"terminal"`
	Snapshot    string            `json:"snapshot_key"`
	Snapshotter string            `json:"snapshotter"`
	StorageSize int64             `json:"storage_size,omitempty"`
}

func toJSON(b client.Container) containerJSON {
	if b.Labels == nil {
		b.Labels = map[string]string{}
	}
	return containerJSON{
		ID: b.ID, Namespace: b.Namespace, Image: b.Image, Pid: b.Pid, Status: b.Status, ExitCode: b.ExitStatus,
		OOMKilled: b.OOMKilled,
		Created:   timestamp(b.CreatedAt), Started: timestamp(b.StartedAt), Finished: timestamp(b.FinishedAt),
		Command: b.Command, Labels: b.Labels, Runtime: b.Runtime, LogPath: b.LogPath, Terminal: b.Stdio.Terminal,
		Snapshot: b.SnapshotKey, Snapshotter: b.Snapshotter, StorageSize: b.StorageSize,
	}
}

func psCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "ps [FLAGS]", Short: "list containers", Aliases: []string{"ls"}, Args: argCount(0, 0)}
	fs := cmd.Flags()
	l := &listFlags{}
	l.declare(fs)
	all := fs.BoolP("all", "a", false, "also list stopped containers")
	noTrunc := fs.Bool("no-trunc", false, "show full ids and commands")
	filters := fs.StringArrayP("filter", "f", nil,
		"only containers that match `FILTER`, such as status==running, labels.tier==web or id~=^db; may be repeated for or")
	inGroup(fs, groupOutput, "no-trunc")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		return a.withClient(ctx, func(c *client.Client) error {
			boxes, err := c.List(ctx, client.ListRequest{All: *all, Filters: *filters})
			if err != nil {
				return err
			}
			if err := stdio.Collect(c.StdioRoot()); err != nil {
				return err
			}
			return showContainers(a, l, boxes, *noTrunc)
		})
	}
	return cmd
}

func showContainers(a *app, l *listFlags, boxes []client.Container, whole bool) error {
	now := time.Now()
	names, rows, asJSON := []string{}, [][]string{}, []containerJSON{}
	for _, b := range boxes {
		id, command := b.ID, strings.Join(b.Command, " ")
		if !whole {
			id, command = shortID(id), abbreviate(command, 30)
		}
		pid := "-"
		if b.Pid != 0 {
			pid = fmt.Sprint(b.Pid)
		}
		names = append(names, b.ID)
		rows = append(rows, []string{id, cmp.Or(b.Image, "-"), command, since(b.CreatedAt, now), status(b, now), pid})
		asJSON = append(asJSON, toJSON(b))
	}
	return l.show(a.stdout, []string{"ID", "IMAGE", "COMMAND", "AGE", "STATUS", "PID"}, rows, names, asJSON)
}

func status(b client.Container, now time.Time) string {
	switch b.Status {
	case "stopped":
		if b.OOMKilled {
			return fmt.Sprintf("exited (%d, out of memory) %s ago", b.ExitStatus, since(b.FinishedAt, now))
		}
		return fmt.Sprintf("exited (%d) %s ago", b.ExitStatus, since(b.FinishedAt, now))
	case "running", "paused":
		return fmt.Sprintf("%s %s", b.Status, since(b.StartedAt, now))
	}
	return b.Status
}

func abbreviate(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

func inspectCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "inspect [FLAGS] CONTAINER...", Short: "show the details of containers as JSON",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listContainers()),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return a.withClient(ctx, func(c *client.Client) error {
				out := []inspectJSON{}
				err := a.inTurn(len(args), func(i int) error {
					found, err := inspect(ctx, c, args[i])
					if err == nil {
						out = append(out, found)
					}
					return err
				})
				if werr := writeJSON(a.stdout, out); werr != nil {
					return werr
				}
				return err
			})
		},
	}
}

// inspectJSON is the JSON form of a container with its spec.
type inspectJSON struct {
	containerJSON
	Stdin  string `json:"stdin"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	Spec   any    `json:"spec"`
}

func inspect(ctx context.Context, c *client.Client, ref string) (inspectJSON, error) {
	box, err := lookup(ctx, c, ref)
	if err != nil {
		return inspectJSON{}, err
	}
	spec, err := c.Spec(ctx, box.ID)
	if err != nil {
		return inspectJSON{}, err
	}
	return inspectJSON{toJSON(box), box.Stdio.Stdin, box.Stdio.Stdout, box.Stdio.Stderr, spec}, nil
}
