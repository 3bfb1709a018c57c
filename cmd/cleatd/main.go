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

cleatd manages containers. It starts a shim for each, and may be stopped, killed, restarted or
upgraded while every container runs on.

doctor looks over what a daemon keeps on disk, tells what is wrong, what it means and what to do,
and changes nothing. It exits with 1 if something is wrong. With --repair, and cleatd stopped, it
mends what can be mended and keeps beside what it replaces.

Flags (each overrides the configuration file):
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A client that goes away must not take the daemon along.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		if errors.Is(err, errFindings) {
			os.Exit(1) //nolint:gocritic // the report says what there is to say
		}
		fmt.Fprintln(os.Stderr, "cleatd:", err)
		os.Exit(1) //nolint:gocritic // stop has nothing left to do
	}
}

// run parses the flags and runs the daemon.
func run(ctx context.Context, args []string, out io.Writer) error {
	cfg := daemon.DefaultConfiguration()
	flags := flag.NewFlagSet("cleatd", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	path := flags.String("config", daemon.DefaultConfig, "configuration file, TOML; missing is fine unless named here")
	set := map[string]*string{
		"root":          flags.String("root", "", "directory for what survives a reboot (default "+cfg.Root+")"),
		"state":         flags.String("state", "", "directory for what does not (default "+cfg.State+")"),
		"address":       flags.String("address", "", "path of the gRPC socket (default "+cfg.Address+")"),
		"ttrpc-address": flags.String("ttrpc-address", "", "path of the ttrpc socket (default: the gRPC one's with .ttrpc added)"),
		"log-level":     flags.String("log-level", "", "debug, info, warn or error (default "+cfg.LogLevel+")"),
	}
	showVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	doctor := flags.Arg(0) == "doctor"
	if flags.NArg() > 0 && !doctor {
		return fmt.Errorf("unexpected argument %q; see cleatd --help", flags.Arg(0))
	}
	if *showVersion {
		_, err := fmt.Fprintln(out, "cleatd", daemon.Version())
		return err
	}
	named := false
	flags.Visit(func(f *flag.Flag) { named = named || f.Name == "config" })
	if err := cfg.Load(*path, named); err != nil {
		return err
	}
	for name, into := range map[string]*string{
		"root": &cfg.Root, "state": &cfg.State, "address": &cfg.Address,
		"ttrpc-address": &cfg.TTRPCAddress, "log-level": &cfg.LogLevel,
	} {
		if v := *set[name]; v != "" {
			*into = v
		}
	}
	if doctor {
		return look(ctx, cfg, flags.Args()[1:], out)
	}
	return daemon.Run(ctx, cfg, nil)
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
