package main

import (
	"cmp"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/internal/version"
)

// Groups of commands, in the order of the help.
const (
	containerCommands = "container"
	imageCommands     = "image"
	systemCommands    = "system"
)

// commands returns the whole tree of commands.
func (a *app) commands() *cobra.Command {
	root := a.root()
	root.AddGroup(
		&cobra.Group{ID: containerCommands, Title: "Containers:"},
		&cobra.Group{ID: imageCommands, Title: "Images:"},
		&cobra.Group{ID: systemCommands, Title: "System:"},
	)
	add(root, containerCommands,
		runCommand(a), execCommand(a), attachCommand(a),
		psCommand(a), inspectCommand(a), logsCommand(a), statsCommand(a),
		waitCommand(a), killCommand(a), stopCommand(a), pauseCommand(a), resumeCommand(a), rmCommand(a),
	)
	add(root, imageCommands,
		pullCommand(a), pushCommand(a), commitCommand(a), imageGroup(a),
		dockerName("tag", imageTagCommand(a)), dockerName("images", imageLsCommand(a)), dockerName("rmi", imageRmCommand(a)),
	)
	help := helpCommand()
	root.SetHelpCommand(help)
	add(root, systemCommands,
		namespaceGroup(a), shimGroup(a), eventsCommand(a), gcCommand(a), whyCommand(a),
		doctorCommand(a), versionCommand(a), completionCommand(a), help,
	)
	finish(root)
	return root
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "cleat [GLOBAL FLAGS] COMMAND [FLAGS] [ARGUMENT...]", Short: "run and manage containers",
		Long: "cleat is the command line of cleatd. run, exec and attach exit with the container's code; 125 means\n" +
			"that cleat failed, 126 that the program cannot be executed, 127 that it does not exist.",
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	global := root.PersistentFlags()
	global.StringVar(&a.address, "address", cmp.Or(a.env("CLEAT_ADDRESS"), client.DefaultAddress),
		"`SOCKET` of the daemon (CLEAT_ADDRESS)")
	global.StringVar(&a.ttrpcAddress, "ttrpc-address", a.env("CLEAT_TTRPC_ADDRESS"),
		"ttrpc `SOCKET` of the daemon, if it is not --address with .ttrpc (CLEAT_TTRPC_ADDRESS)")
	global.StringVarP(&a.namespace, "namespace", "n", cmp.Or(a.env("CLEAT_NAMESPACE"), client.DefaultNamespace),
		"`NAMESPACE` to work in (CLEAT_NAMESPACE)")
	showVersion := root.Flags().Bool("version", false, "print the client's version")
	root.Flags().SetInterspersed(false)
	root.SetFlagErrorFunc(flagError)
	root.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *showVersion:
			return a.print("cleat " + version.Version() + "\n")
		case len(args) > 0:
			return unknownCommand(cmd, args[0])
		}
		return cmd.Help()
	}
	return root
}

// flagError makes a usage error of what the parser reports. -h as the last argument asks for help, also of run, where
// -h takes a host name.
func flagError(cmd *cobra.Command, err error) error {
	var missing *pflag.ValueRequiredError
	if errors.As(err, &missing) && missing.GetSpecifiedShortnames() == "h" {
		return pflag.ErrHelp
	}
	return usage(cmd.CommandPath(), err)
}

// add adds commands to a parent, in one of the parent's groups.
func add(parent *cobra.Command, group string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		c.GroupID = group
	}
	parent.AddCommand(cmds...)
}

// group returns a command that only holds others.
func group(use, short string, aliases []string, cmds ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use + " COMMAND", Short: short, Aliases: aliases, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	g.Flags().SetInterspersed(false)
	g.AddCommand(cmds...)
	return g
}

// dockerName returns a command under the name that it has in Docker, which the lists of commands leave out.
func dockerName(name string, cmd *cobra.Command) *cobra.Command {
	_, args, _ := strings.Cut(cmd.Use, " ")
	cmd.Use, cmd.Aliases, cmd.Hidden = strings.TrimSpace(name+" "+args), nil, true
	return cmd
}

// finish gives every command of a tree what all of them have.
func finish(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	fs := cmd.Flags()
	shorthand := "h"
	if fs.ShorthandLookup("h") != nil {
		shorthand = ""
	}
	fs.BoolP("help", shorthand, false, "print usage")
	inGroup(fs, groupGlobal, "help")
	for _, c := range cmd.Commands() {
		finish(c)
	}
}
