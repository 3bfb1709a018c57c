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
)

const usage = `Usage: cleatd [flags]
       cleatd [flags] doctor [--repair]
       cleatd [flags] config default|dump|migrate
       cleatd [flags] publish --namespace NAMESPACE --topic TOPIC
       cleatd oci-hook [--] PROGRAM [ARG...]

cleatd manages containers. It starts a shim for each, and may be stopped, killed, restarted or
upgraded while every container runs on.

doctor looks over what a daemon keeps on disk, tells what is wrong, what it means and what to do,
and changes nothing. It exits with 1 if something is wrong. With --repair, and cleatd stopped, it
mends what can be mended and keeps beside what it replaces.

config shows a configuration file: default the one that holds what is so anyway, dump what the file
and the flags come to, migrate what the file comes to; of a file of containerd's, what cleat does not
follow goes to standard error.

publish sends the daemon an event, a protobuf Any on standard input; it is for shims.

oci-hook runs PROGRAM as a hook of an OCI runtime, with the container's state, which it reads from standard
input, in the arguments: {{id}}, {{pid}}, {{status}}, {{bundle}}, {{rootfs}}, {{annotation "NAME"}}.

Flags (each overrides the configuration file; of names with one letter, the long one is beside it):
`

// streams are what a command reads and writes.
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
			os.Exit(1) //nolint:gocritic // the report says what there is to say
		}
		fmt.Fprintln(os.Stderr, "cleatd:", err)
		if hint := daemon.Hint(err); hint != "" {
			fmt.Fprintln(os.Stderr, "hint:", hint)
		}
		os.Exit(1) //nolint:gocritic // stop has nothing left to do
	}
}

// options are the flags before a command. An empty one leaves the configuration alone.
type options struct {
	config                                       string
	root, state, address, ttrpcAddress, logLevel string
	version, configNamed                         bool
}

// parse reads the flags, whose names are containerd's where it has them, and returns the rest.
func parse(args []string, out io.Writer) (o options, rest []string, err error) {
	cfg := daemon.DefaultConfiguration()
	flags := flag.NewFlagSet("cleatd", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	text := func(into *string, value, help string, names ...string) {
		for _, name := range names {
			flags.StringVar(into, name, value, help)
		}
	}
	text(&o.config, daemon.DefaultConfig, "configuration `file`, TOML; missing is fine unless named here", "config", "c")
	text(&o.root, "", "`directory` for what survives a reboot (default "+cfg.Root+")", "root")
	text(&o.state, "", "`directory` for what does not (default "+cfg.State+")", "state")
	text(&o.address, "", "`path` of the gRPC socket (default "+cfg.Address+")", "address", "a")
	text(&o.ttrpcAddress, "", "`path` of the ttrpc socket (default: the gRPC one's with .ttrpc added)", "ttrpc-address")
	text(&o.logLevel, "", "debug, info, warn or error (default "+cfg.LogLevel+")", "log-level", "l")
	for _, name := range []string{"version", "v"} {
		flags.BoolVar(&o.version, name, false, "print the version and exit")
	}
	err = flags.Parse(args)
	flags.Visit(func(f *flag.Flag) { o.configNamed = o.configNamed || f.Name == "config" || f.Name == "c" })
	return o, flags.Args(), err
}

// load reads the configuration file and puts the flags over it.
func (o *options) load(cfg *daemon.Config) error {
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

// run parses the flags and runs the daemon, or what was asked for in its place.
func run(ctx context.Context, args []string, s streams) error {
	o, rest, err := parse(args, s.out)
	if err != nil {
		return err
	}
	if o.version {
		_, err := fmt.Fprintln(s.out, "cleatd", daemon.Version())
		return err
	}
	command := ""
	if len(rest) > 0 {
		command, rest = rest[0], rest[1:]
	}
	cfg := daemon.DefaultConfiguration()
	switch command {
	case "config":
		return configure(cfg, o, rest, s)
	case "oci-hook": // needs no configuration, and may be run where the file is not to be read
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
	return fmt.Errorf("unexpected argument %q; see cleatd --help", command)
}

// errFindings says that doctor found something.
var errFindings = errors.New("there are findings")

// look is the doctor subcommand.
func look(ctx context.Context, cfg daemon.Config, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("cleatd doctor", flag.ContinueOnError)
	flags.SetOutput(out)
	repair := flags.Bool("repair", false, "mend what can be mended; cleatd must be stopped")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see cleatd --help", flags.Arg(0))
	}
	n, err := daemon.Doctor(ctx, cfg, daemon.DoctorOptions{Repair: *repair}, out)
	if err == nil && n > 0 {
		return errFindings
	}
	return err
}
