// Command cleatd is cleat's daemon.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/cleatproject/cleat/daemon"
	"github.com/cleatproject/cleat/daemon/config"
	"github.com/cleatproject/cleat/daemon/doctor"
)

const usage = `Usage: cleatd [FLAGS]
       cleatd [FLAGS] doctor [--repair]
       cleatd [FLAGS] config default|dump|migrate
       cleatd [FLAGS] publish --namespace NAMESPACE --topic TOPIC
       cleatd oci-hook [--] PROGRAM [ARGUMENT...]

cleatd manages containers. It starts a shim for each container. Containers keep running while cleatd is
stopped, killed, restarted or upgraded.

doctor checks the data of a daemon on disk. It reports each problem with its meaning and what to do, changes
nothing, and exits with 1 if it finds a problem. With --repair, and cleatd stopped, it repairs what it can and
keeps a copy of each file it replaces.

config default prints the built-in defaults, config dump the configuration that results from file and flags,
and config migrate the one that results from the file alone. Keys of a containerd configuration file that
cleat does not support are reported on standard error.

publish sends an event, a protobuf Any on standard input, to the daemon; shims use it.

oci-hook runs PROGRAM as a hook of an OCI runtime. It reads the container's state from standard input and
replaces, in the arguments, {{id}}, {{pid}}, {{status}}, {{bundle}}, {{rootfs}} and {{annotation "NAME"}}.

Flags override the configuration file. Short forms are -a, -c, -l and -v.

`

// streams are the standard streams of a command.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	daemon.CatchSignals()
	if err := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		if errors.Is(err, errFindings) {
			os.Exit(1) // the report has been printed
		}
		fmt.Fprintln(os.Stderr, "cleatd:", err)
		hint := daemon.Hint(err)
		if errors.As(err, new(*wrongUsage)) {
			hint = "run 'cleatd --help' for usage"
		}
		if hint != "" {
			fmt.Fprintln(os.Stderr, "hint:", hint)
		}
		os.Exit(1) // stop has nothing left to do
	}
}

// wrongUsage is an error in the arguments.
type wrongUsage struct{ error }

func usageError(err error) error { return &wrongUsage{err} }

// options are the flags before a command. An empty option does not change the configuration.
type options struct {
	config                                       string
	root, state, address, ttrpcAddress, logLevel string
	version, configNamed                         bool
}

// parse parses the flags, which have containerd's names if containerd has them, and returns the other arguments.
func parse(args []string, out io.Writer) (o options, rest []string, err error) {
	cfg := config.Default()
	flags := flag.NewFlagSet("cleatd", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		_, _ = io.WriteString(out, usage) // as the flag package does
		flags.PrintDefaults()
	}
	text := func(into *string, value, help string, names ...string) {
		for _, name := range names {
			flags.StringVar(into, name, value, help)
		}
	}
	text(&o.config, config.DefaultConfig, "configuration `FILE` in TOML; the default file may be missing", "config", "c")
	text(&o.root, "", "`DIRECTORY` of persistent data (default "+cfg.Root+")", "root")
	text(&o.state, "", "`DIRECTORY` of volatile data (default "+cfg.State+")", "state")
	text(&o.address, "", "`PATH` of the gRPC socket (default "+cfg.Address+")", "address", "a")
	text(&o.ttrpcAddress, "", "`PATH` of the ttrpc socket (default that of the gRPC socket with .ttrpc added)", "ttrpc-address")
	text(&o.logLevel, "", "log `LEVEL`: debug, info, warn or error (default "+cfg.LogLevel+")", "log-level", "l")
	for _, name := range []string{"version", "v"} {
		flags.BoolVar(&o.version, name, false, "print the version and exit")
	}
	err = flags.Parse(args)
	flags.Visit(func(f *flag.Flag) { o.configNamed = o.configNamed || f.Name == "config" || f.Name == "c" })
	return o, flags.Args(), err
}

// load reads the configuration file and applies the flags.
func (o *options) load(cfg *config.Config) error {
	if err := cfg.Load(o.config, o.configNamed); err != nil {
		return err
	}
	for v, into := range map[*string]*string{
		&o.root: &cfg.Root, &o.state: &cfg.State, &o.address: &cfg.Address,
		&o.ttrpcAddress: &cfg.TTRPCAddress, &o.logLevel: &cfg.LogLevel,
	} {
		if *v != "" {
			*into = *v
		}
	}
	return nil
}

// run parses the flags and runs the daemon or a command.
func run(ctx context.Context, args []string, s streams) error {
	o, rest, err := parse(args, s.out)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintln(s.out, "cleatd", config.Version())
		return err
	}
	command := ""
	if len(rest) > 0 {
		command, rest = rest[0], rest[1:]
	}
	cfg := config.Default()
	switch command {
	case "config":
		return configure(cfg, o, rest, s)
	case "oci-hook": // needs no configuration, and may run as a user who cannot read the file
		return daemon.OCIHook(rest, s.in)
	}
	if err := o.load(&cfg); err != nil {
		return err
	}
	switch command {
	case "":
		return daemon.Run(ctx, cfg, nil)
	case "doctor":
		return look(ctx, cfg, rest, s.out)
	case "publish":
		return publish(ctx, cfg, rest, s)
	}
	return usageError(fmt.Errorf("unexpected argument %q", command))
}

// errFindings is the error of doctor if it has found problems.
var errFindings = errors.New("problems found")

// look implements the command doctor.
func look(ctx context.Context, cfg config.Config, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("cleatd doctor", flag.ContinueOnError)
	flags.SetOutput(out)
	repair := flags.Bool("repair", false, "repair what can be repaired; cleatd must be stopped")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usageError(fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	n, err := doctor.Run(ctx, cfg, doctor.Options{Repair: *repair}, out)
	if err == nil && n > 0 {
		return errFindings
	}
	return err
}
