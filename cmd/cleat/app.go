package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/internal/version"
	"github.com/spf13/pflag"
)

// app is one run of the program: its streams and what the global flags said.
type app struct {
	stdin, stdout, stderr *os.File
	env                   func(string) string

	address, ttrpcAddress, namespace string
}

// command is one command. setup declares its flags and returns what to do with the arguments.
type command struct {
	// name is one word, or two where the first is a group.
	name    string
	aliases []string
	// args is the usage text of the arguments.
	args, short string
	// detail is further help, or empty.
	detail string
	// ordered commands end their flags at the first argument: what follows is not cleat's.
	ordered bool
	// failure is the exit code of an error; 0 means 1.
	failure int
	// min and max arguments; max -1 means any number.
	min, max int
	setup    func(*pflag.FlagSet) action
}

type action func(ctx context.Context, a *app, args []string) error

// run carries out the arguments and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	global := a.flagSet("cleat")
	global.SetInterspersed(false)
	showVersion := global.Bool("version", false, "print the client's version")
	err := global.Parse(args)
	args = global.Args()
	switch {
	case errors.Is(err, pflag.ErrHelp), err == nil && !*showVersion && len(args) == 0:
		return a.printed(a.overview())
	case err != nil:
		return a.fail(usage("cleat", err), 1)
	case *showVersion:
		return a.printed("cleat " + version.Version() + "\n")
	case args[0] == "help":
		return a.help(args[1:])
	}
	cmd, rest, err := find(args)
	asks := len(args) == 1 || len(args) == 2 && (args[1] == "--help" || args[1] == "-h")
	if group := a.groupHelp(args[0]); err != nil && asks && group != "" {
		return a.printed(group)
	}
	if err != nil {
		return a.fail(err, 1)
	}
	return a.runCommand(ctx, cmd, rest)
}

func (a *app) runCommand(ctx context.Context, cmd *command, args []string) int {
	failure := max(cmd.failure, 1)
	flags := a.flagSet(cmd.name)
	flags.SetInterspersed(!cmd.ordered)
	act := cmd.setup(flags)
	err := flags.Parse(args)
	if errors.Is(err, pflag.ErrHelp) || wantsHelp(err) {
		return a.printed(a.commandHelp(cmd))
	}
	if err != nil {
		return a.fail(usage("cleat "+cmd.name, err), failure)
	}
	if n := flags.NArg(); n < cmd.min || cmd.max >= 0 && n > cmd.max {
		return a.fail(usage("cleat "+cmd.name, fmt.Errorf("%d arguments given; want: cleat %s %s", n, cmd.name, cmd.args)), failure)
	}
	return a.fail(act(ctx, a, flags.Args()), failure)
}

// wantsHelp reports whether an error is about -h as the last argument: of run, where it takes a host name, it asks
// for help there as of any other command.
func wantsHelp(err error) bool {
	var missing *pflag.ValueRequiredError
	return errors.As(err, &missing) && missing.GetSpecifiedShortnames() == "h"
}

// flagSet has the flags that every command takes.
func (a *app) flagSet(name string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetOutput(discard{})
	fs.Usage = func() {}
	fs.SortFlags = false
	fs.StringVar(&a.address, "address", or(a.address, a.env("CLEAT_ADDRESS"), client.DefaultAddress),
		"`socket` of the daemon (CLEAT_ADDRESS)")
	fs.StringVar(&a.ttrpcAddress, "ttrpc-address", or(a.ttrpcAddress, a.env("CLEAT_TTRPC_ADDRESS")),
		"ttrpc `socket` of the daemon, where it has another name than --address with .ttrpc (CLEAT_TTRPC_ADDRESS)")
	fs.StringVarP(&a.namespace, "namespace", "n", or(a.namespace, a.env("CLEAT_NAMESPACE"), client.DefaultNamespace),
		"`namespace` to work in (CLEAT_NAMESPACE)")
	return fs
}

// discard is where pflag's own messages go; cleat prints its own.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// dial connects to the daemon.
func (a *app) dial(ctx context.Context) (*client.Client, error) {
	return client.Dial(ctx, a.address, client.Options{Namespace: a.namespace, TTRPCAddress: a.ttrpcAddress})
}

// withClient runs f with a connection that is closed afterwards.
func (a *app) withClient(ctx context.Context, f func(*client.Client) error) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

// find finds the command that the first one or two words name.
func find(args []string) (*command, []string, error) {
	all := commands()
	for i := range all {
		c := &all[i]
		words := strings.Fields(c.name)
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == c.name {
			return c, args[len(words):], nil
		}
		for _, alias := range c.aliases {
			w := strings.Fields(alias)
			if len(args) >= len(w) && strings.Join(args[:len(w)], " ") == alias {
				return c, args[len(w):], nil
			}
		}
	}
	return nil, nil, hinted(fmt.Errorf("no command %q", strings.Join(args[:min(len(args), 2)], " ")), "cleat help lists the commands")
}

func or(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
