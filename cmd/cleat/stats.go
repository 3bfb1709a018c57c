package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

// statsEvery is the interval of the output, over which the share of processor time is computed.
const statsEvery = time.Second

// statsJSON is the JSON form of what a container uses.
type statsJSON struct {
	ID          string  `json:"id"`
	CPUPercent  float64 `json:"cpu_percent"`
	CPUNanos    int64   `json:"cpu_ns"`
	Memory      uint64  `json:"memory"`
	MemoryLimit uint64  `json:"memory_limit"`
	Pids        uint64  `json:"pids"`
	PidsLimit   uint64  `json:"pids_limit"`
	BlockRead   uint64  `json:"block_read"`
	BlockWrite  uint64  `json:"block_write"`
}

func statsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "stats [FLAGS] [CONTAINER...]", Short: "stream the resource usage of running containers",
		Long: "Memory does not include page cache that can be dropped. A limit of 0 or - means none.",
		Args: argCount(0, -1), ValidArgsFunction: a.completeArgs(true, listContainers("running", "paused")),
	}
	once := cmd.Flags().Bool("no-stream", false, "print once, then exit")
	format := declareFormat(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		proxy, ctx := newProxy(cmd.Context())
		defer proxy.close()
		err := a.withClient(ctx, func(c *client.Client) error { return watchStats(ctx, a, c, args, *format, *once) })
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return cmd
}

func watchStats(ctx context.Context, a *app, c *client.Client, refs []string, format string, once bool) error {
	var ids []string
	for _, ref := range refs {
		box, err := lookup(ctx, c, ref)
		if err != nil {
			return err
		}
		ids = append(ids, box.ID)
	}
	var filters []string
	for _, id := range ids {
		filters = append(filters, "id=="+quote(id))
	}
	before, err := c.Metrics(ctx, filters...)
	if err != nil {
		return err
	}
	ticks := time.NewTicker(statsEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := c.Metrics(ctx, filters...)
		if err != nil {
			return err
		}
		if err := showStats(a, compare(before, now), format, !once); err != nil || once {
			return err
		}
		before = now
	}
}

// compare computes rates from two measurements of the same containers.
func compare(before, now []client.Metrics) []statsJSON {
	earlier := map[string]client.Metrics{}
	for _, m := range before {
		earlier[m.ID] = m
	}
	out := []statsJSON{}
	for _, m := range now {
		s := statsJSON{
			ID: m.ID, CPUNanos: m.CPU.Nanoseconds(), Memory: m.Memory, MemoryLimit: m.MemoryLimit,
			Pids: m.Pids, PidsLimit: m.PidsLimit, BlockRead: m.BlockRead, BlockWrite: m.BlockWrite,
		}
		if b, ok := earlier[m.ID]; ok {
			if passed := m.Time.Sub(b.Time); passed > 0 {
				s.CPUPercent = 100 * float64(m.CPU-b.CPU) / float64(passed)
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b statsJSON) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func showStats(a *app, stats []statsJSON, format string, redraw bool) error {
	if format == "json" {
		return writeJSON(a.stdout, stats)
	}
	if redraw {
		if _, err := a.stdout.WriteString("\x1b[H\x1b[2J"); err != nil {
			return writing(err)
		}
	}
	rows := [][]string{}
	count := func(n uint64) string { return fmt.Sprint(n) }
	for _, s := range stats {
		rows = append(rows, []string{
			shortID(s.ID), fmt.Sprintf("%.1f%%", s.CPUPercent), size(s.Memory), limit(s.MemoryLimit, size),
			count(s.Pids), limit(s.PidsLimit, count), size(s.BlockRead), size(s.BlockWrite),
		})
	}
	return writeTable(a.stdout, []string{"ID", "CPU", "MEMORY", "LIMIT", "PIDS", "LIMIT", "READ", "WRITTEN"}, rows)
}
