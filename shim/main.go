package shim

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"

	"github.com/cleatproject/cleat/internal/identifier"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// Config is the shim's command line, as runtime v2 publishes it.
type Config struct {
	ID            string
	Namespace     string
	Address       string // the daemon's gRPC socket
	PublishBinary string // the daemon's binary, for its `publish`
	Bundle        string // the working directory if empty
	Debug         bool
	Verb          string // start, delete or serve
	Version       string
}

// Main is the whole program. It writes to the standard files and returns the error to print on
// stderr before the process exits with 1.
func Main(args []string, version string) error {
	cfg, info, ver, err := parseArgs(args, version)
	if err != nil {
		return err
	}
	env := environment{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		ttrpcAddress: os.Getenv("TTRPC_ADDRESS"), maxShimVersion: os.Getenv("MAX_SHIM_VERSION"),
		adopt: os.Getenv("CLEAT_ADOPT") == "1", evict: os.Getenv("CLEAT_EVICT") == "1",
	}
	switch {
	case ver:
		_, err = fmt.Fprintf(env.stdout, "containerd-shim-cleat-v2:\n  Version:  %s\n", version)
		return err
	case info:
		return printInfo(cfg, env)
	}
	if err := identifier.Check(cfg.ID); err != nil {
		return fmt.Errorf("-id: %w", err)
	}
	if err := identifier.Check(cfg.Namespace); err != nil {
		return fmt.Errorf("-namespace: %w", err)
	}
	switch cfg.Verb {
	case "start":
		return start(cfg, env)
	case "serve":
		return serve(cfg, env)
	case "delete":
		return remove(cfg, env)
	default:
		return fmt.Errorf("verb %q: want start, delete or serve: %w", cfg.Verb, errdefs.ErrInvalidArgument)
	}
}

func parseArgs(args []string, version string) (cfg Config, info, ver bool, err error) {
	cfg.Version = version
	flags := flag.NewFlagSet("containerd-shim-cleat-v2", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&cfg.ID, "id", "", "id of the container")
	flags.StringVar(&cfg.Namespace, "namespace", "", "namespace of the container")
	flags.StringVar(&cfg.Address, "address", "", "the daemon's gRPC socket")
	flags.StringVar(&cfg.PublishBinary, "publish-binary", "", "the daemon's binary, to publish events by")
	flags.StringVar(&cfg.Bundle, "bundle", "", "the container's bundle; the working directory by default")
	flags.BoolVar(&cfg.Debug, "debug", false, "log more")
	flags.BoolVar(&info, "info", false, "describe the runtime and exit")
	flags.BoolVar(&ver, "v", false, "print the version and exit")
	_ = flags.String("socket", "", "ignored; older daemons pass it")
	if err := flags.Parse(args); err != nil {
		return cfg, false, false, fmt.Errorf("arguments: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	cfg.Verb = flags.Arg(0)
	if cfg.Bundle == "" {
		if cfg.Bundle, err = os.Getwd(); err != nil {
			return cfg, false, false, fmt.Errorf("find bundle: %w", err)
		}
	}
	return cfg, info, ver, nil
}

// infoLimit bounds the query of the OCI runtime's features.
const infoLimit = 5 * time.Second

// printInfo answers -info. stdin has runtime options, or nothing. The features that the OCI runtime
// reports are passed on; it is not an error if it reports none.
func printInfo(cfg Config, env environment) error {
	data, err := io.ReadAll(io.LimitReader(env.stdin, stdinLimit))
	if err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	info := &types.RuntimeInfo{
		Name:    "io.containerd.cleat.v2",
		Version: &types.RuntimeVersion{Version: cfg.Version},
	}
	binary := defaultRuntime
	var request types.Any
	if request.Unmarshal(data) == nil {
		if opts, err := decodeOptions(&request); err == nil && opts.BinaryName != "" {
			binary = opts.BinaryName
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), infoLimit)
	defer cancel()
	if features, err := runtimeFeatures(ctx, binary); err == nil {
		info.Features = &types.Any{
			TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/features/Features", Value: features,
		}
	}
	return answer(env, info)
}

// runtimeFeatures returns what the OCI runtime supports, as JSON.
func runtimeFeatures(ctx context.Context, binary string) (_ []byte, err error) {
	r := reaper.NewOwn()
	defer func() { err = errors.Join(err, r.Close()) }()
	runc.Monitor = newMonitor(r, os.Environ())
	features, err := (&runc.Runc{Command: binary}).Features(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(features)
}

func answer(env environment, m rpc.Message) error {
	data, err := rpc.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := env.stdout.Write(data); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}
