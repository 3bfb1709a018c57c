package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/cleatproject/cleat/daemon"
	"github.com/cleatproject/cleat/daemon/config"
)

// The commands that cleatd shares with containerd.

// configure implements the command config.
func configure(cfg config.Config, o options, args []string, s streams) error {
	if len(args) != 1 {
		return usageError(fmt.Errorf("config: %d arguments given; want default, dump or migrate", len(args)))
	}
	var err error
	switch args[0] {
	case "default":
	case "dump":
		err = o.load(&cfg)
	case "migrate":
		err = cfg.Load(o.config, o.configNamed)
	default:
		err = usageError(fmt.Errorf("config %s: want default, dump or migrate", args[0]))
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

// publish implements the command publish, which shims run.
func publish(ctx context.Context, cfg config.Config, args []string, s streams) error {
	flags := flag.NewFlagSet("cleatd publish", flag.ContinueOnError)
	flags.SetOutput(s.out)
	address := flags.String("address", cfg.Address, "`PATH` of the daemon's gRPC socket")
	namespace := flags.String("namespace", "", "`NAMESPACE` of the event")
	topic := flags.String("topic", "", "`TOPIC` of the event")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usageError(fmt.Errorf("unexpected argument %q", flags.Arg(0)))
	}
	return daemon.Publish(ctx, *address, *namespace, *topic, s.in)
}
