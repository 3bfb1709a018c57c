package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/cleatproject/cleat/daemon"
)

// The commands that cleatd has because containerd has them.

// configure is the config subcommand.
func configure(cfg daemon.Config, o options, args []string, s streams) error {
	if len(args) != 1 {
		return fmt.Errorf("config: want one of default, dump, migrate; see cleatd --help")
	}
	var err error
	switch args[0] {
	case "default":
	case "dump":
		err = o.load(&cfg)
	case "migrate":
		err = cfg.Load(o.config, o.configNamed)
	default:
		err = fmt.Errorf("config %s: want one of default, dump, migrate; see cleatd --help", args[0])
	}
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings() {
		if _, err := fmt.Fprintln(s.err, "cleatd: warning:", w); err != nil {
			return err
		}
	}
	return cfg.Write(s.out)
}

// publish is the publish subcommand, which shims run.
func publish(ctx context.Context, cfg daemon.Config, args []string, s streams) error {
	flags := flag.NewFlagSet("cleatd publish", flag.ContinueOnError)
	flags.SetOutput(s.out)
	address := flags.String("address", cfg.Address, "`path` of the daemon's gRPC socket")
	namespace := flags.String("namespace", "", "`namespace` of the event")
	topic := flags.String("topic", "", "`topic` of the event")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see cleatd --help", flags.Arg(0))
	}
	return daemon.Publish(ctx, *address, *namespace, *topic, s.in)
}
