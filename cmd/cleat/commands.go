package main

import (
	"cmp"
	"errors"
	"slices"
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

// entry is a command of the tree: its name and aliases, separated by spaces, its group in the help, and its constructor.
type entry struct {
	names, group string
	build        func(*app) *cobra.Command
}

// entries returns the commands of the root. words are the rest of the command line, for groups.
func entries(words []string) []entry {
	return []entry{
		{"run", containerCommands, runCommand},
		{"exec", containerCommands, execCommand},
		{"attach", containerCommands, attachCommand},
		{"ps ls", containerCommands, psCommand},
		{"inspect", containerCommands, inspectCommand},
		{"logs", containerCommands, logsCommand},
		{"stats", containerCommands, statsCommand},
		{"wait", containerCommands, waitCommand},
		{"kill", containerCommands, killCommand},
		{"stop", containerCommands, stopCommand},
		{"pause", containerCommands, pauseCommand},
		{"resume unpause", containerCommands, resumeCommand},
		{"rm remove", containerCommands, rmCommand},
		{"pull", imageCommands, pullCommand},
		{"push", imageCommands, pushCommand},
		{"commit", imageCommands, commitCommand},
		{"image", imageCommands, func(a *app) *cobra.Command { return imageGroup(a, words) }},
		{"tag", imageCommands, func(a *app) *cobra.Command { return dockerName("tag", imageTagCommand(a)) }},
		{"images", imageCommands, func(a *app) *cobra.Command { return dockerName("images", imageLsCommand(a)) }},
		{"rmi", imageCommands, func(a *app) *cobra.Command { return dockerName("rmi", imageRmCommand(a)) }},
		{"namespace namespaces ns", systemCommands, func(a *app) *cobra.Command { return namespaceGroup(a, words) }},
		{"shim", systemCommands, func(a *app) *cobra.Command { return shimGroup(a, words) }},
		{"events", systemCommands, eventsCommand},
		{"gc", systemCommands, gcCommand},
		{"why", systemCommands, whyCommand},
		{"doctor", systemCommands, doctorCommand},
		{"version", systemCommands, versionCommand},
		{"completion", systemCommands, completionCommand},
	}
}

// selected returns the entry of the command that the words start with, or all entries if there is none. Constructing all
// commands takes a fifth of the time of a short command.
func selected(all []entry, words []string) []entry {
	if len(words) == 0 {
		return all
	}
	for i, e := range all {
		if slices.Contains(strings.Fields(e.names), words[0]) {
			return all[i : i+1]
		}
	}
	return all
}

// commands returns the tree of commands for a command line: the command that it names, or else the whole tree.
func (a *app) commands(words []string) *cobra.Command {
	root := a.root()
	root.AddGroup(
		&cobra.Group{ID: containerCommands, Title: "Containers:"},
		&cobra.Group{ID: imageCommands, Title: "Images:"},
		&cobra.Group{ID: systemCommands, Title: "System:"},
	)
	rest := words[min(1, len(words)):]
	for _, e := range selected(entries(rest), words) {
		cmd := e.build(a)
		cmd.GroupID = e.group
		root.AddCommand(cmd)
	}
	help := helpCommand()
	help.GroupID = systemCommands
	root.SetHelpCommand(help)
	root.AddCommand(help)
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

// group returns a command that only holds others: the one that the words start with, or else all.
func group(a *app, use, short string, words []string, all ...entry) *cobra.Command {
	g := &cobra.Command{
		Use: use + " COMMAND", Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	g.Flags().SetInterspersed(false)
	for _, e := range selected(all, words) {
		g.AddCommand(e.build(a))
	}
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
