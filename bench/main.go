// Command bench measures cleat, bare runc and Debian's containerd, in alternating rounds,
// and reports which of the project's targets are met.
//
//	go run . -bin ../bin [-rounds N] [-only NAME] [-peer DIR] [-json]
//
// It runs a cleatd and a containerd of its own below a temporary directory, with their state below /run, and
// removes everything at the end. If /run is on a disk, it works in a mount namespace with a tmpfs there. Figures depend on the machine: only ratios of one run are meaningful.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cleatproject/cleat/archive"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	rounds := flag.Int("rounds", 15, "rounds of each scenario")
	only := flag.String("only", "", "scenarios whose names begin like this, several after commas")
	bin := flag.String("bin", "../bin", "directory with cleat's binaries")
	peer := flag.String("peer", "", "directory with another containerd, its ctr and its shim, instead of Debian's (see make bench-peer2)")
	asJSON := flag.Bool("json", false, "print JSON instead of tables")
	strict := flag.Bool("strict", false, "exit 1 if a target is missed")
	flag.Parse()
	if code, done := ownRun(ctx); done {
		os.Exit(code) // stop has nothing left to do
	}
	missed, err := run(ctx, options{rounds: *rounds, only: *only, bin: *bin, peer: *peer, json: *asJSON})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) // stop has nothing left to do
	}
	if missed && *strict {
		os.Exit(1)
	}
}

// ownRun ensures that /run is in memory; done if another process has done the work for that.
func ownRun(ctx context.Context) (code int, done bool) {
	var err error
	var needed bool
	if os.Getenv(inOwnRun) != "" {
		err = mountOwnRun()
	} else if needed, err = needsOwnRun(); err == nil && needed {
		code, err = withOwnRun(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1, true
	}
	return code, needed
}

type options struct {
	rounds          int
	only, bin, peer string
	json            bool
}

// scenarios lists the scenarios, one per file.
func scenarios(o options) []scenario {
	return []scenario{
		runScenario(), execScenario(), lifecycleScenario(1), lifecycleScenario(8), memoryScenario(), comebackScenario(), missedScenario(), stdoutScenario(), unpackScenario(),
		layerScenario(archive.Gzip, "igzip"), layerScenario(archive.Zstd, "zstd"),
		pullScenario(o.peer != ""), peakScenario(),
	}
}

func run(ctx context.Context, o options) (missed bool, err error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return false, fmt.Errorf("find binaries: %w", err)
	}
	if err := usePeer(o.peer); err != nil {
		return false, err
	}
	env, err := newEnvironment(ctx, bin)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, env.close()) }()
	var results []result
	for _, s := range scenarios(o) {
		if !chosen(o.only, s.name) {
			continue
		}
		r, err := measure(ctx, env, s, o.rounds)
		if err != nil {
			return false, fmt.Errorf("measure %s: %w", s.name, err)
		}
		results = append(results, r)
		if !o.json {
			fmt.Println(r.table())
		}
	}
	if o.json {
		if err := printJSON(os.Stdout, results); err != nil {
			return false, err
		}
	}
	for _, r := range results {
		for _, t := range r.Targets {
			missed = missed || !t.Met
		}
	}
	return missed, save(results, time.Now())
}

// usePeer makes the programs of dir precede all others of their names.
func usePeer(dir string) error {
	if dir == "" {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find peer: %w", err)
	}
	for _, program := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return fmt.Errorf("find peer: %w", err)
		}
	}
	return os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

func chosen(only, name string) bool {
	if only == "" {
		return true
	}
	for part := range strings.SplitSeq(only, ",") {
		if strings.HasPrefix(name, part) {
			return true
		}
	}
	return false
}
