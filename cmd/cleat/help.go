package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// groupAnnotation holds the group of a flag.
const groupAnnotation = "cleat.group"

// Groups of flags.
const (
	groupContainer = "Container"
	groupProcess   = "Process"
	groupResources = "Resource"
	groupSecurity  = "Security"
	groupStorage   = "Storage"
	groupImage     = "Image"
	groupRegistry  = "Registry"
	groupOutput    = "Output"
	groupOther     = ""
	groupGlobal    = "Global"
)

// flagGroups lists the groups in the order of the help.
func flagGroups() []string {
	return []string{
		groupContainer, groupProcess, groupResources, groupSecurity, groupStorage, groupImage, groupRegistry,
		groupOther, groupOutput, groupGlobal,
	}
}

// inGroup puts flags that are declared into a group.
func inGroup(fs *pflag.FlagSet, group string, names ...string) {
	for _, n := range names {
		f := fs.Lookup(n)
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[groupAnnotation] = []string{group}
	}
}

// groupOf returns the group of a flag.
func groupOf(f *pflag.Flag) string {
	if g := f.Annotations[groupAnnotation]; len(g) > 0 {
		return g[0]
	}
	return groupOther
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "show help for a command", Args: cobra.ArbitraryArgs,
		ValidArgsFunction: completeHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 && target.HasSubCommands() {
				return unknownCommand(target, rest[0])
			}
			return target.Help()
		},
	}
}

// help returns the help text of a command.
func help(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n%s.\n", cmd.UseLine(), upperFirst(cmd.Short))
	if cmd.Long != "" {
		b.WriteString("\n" + cmd.Long + "\n")
	}
	if aliases := aliasesOf(cmd); len(aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", strings.Join(aliases, ", "))
	}
	for _, g := range cmd.Groups() {
		writeCommands(&b, g.Title, cmd, g.ID)
	}
	if len(cmd.Groups()) == 0 && cmd.HasSubCommands() {
		writeCommands(&b, "Commands:", cmd, "")
	}
	writeFlags(&b, cmd)
	if cmd.HasSubCommands() {
		fmt.Fprintf(&b, "\nRun '%s COMMAND --help' for the usage of a command.\n", cmd.CommandPath())
	}
	return b.String()
}

// writeCommands lists the commands of a group.
func writeCommands(b *strings.Builder, title string, parent *cobra.Command, group string) {
	b.WriteString("\n" + title + "\n")
	for _, c := range parent.Commands() {
		if c.GroupID == group && !c.Hidden {
			fmt.Fprintf(b, "  %-12s %s\n", c.Name(), c.Short)
		}
	}
}

// writeFlags lists the flags by group. The global flags of the root are accepted by every command.
func writeFlags(b *strings.Builder, cmd *cobra.Command) {
	groups := make(map[string]*pflag.FlagSet)
	put := func(group string, f *pflag.Flag) {
		if groups[group] == nil {
			groups[group] = pflag.NewFlagSet(group, pflag.ContinueOnError)
		}
		groups[group].AddFlag(f)
	}
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { put(groupOf(f), f) })
	cmd.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) { put(groupGlobal, f) })
	for _, g := range flagGroups() {
		if groups[g] != nil {
			fmt.Fprintf(b, "\n%s:\n%s", upperFirst(strings.TrimSpace(g+" flags")), groups[g].FlagUsages())
		}
	}
}

// aliasAnnotation holds further names of a command that stand under another parent.
const aliasAnnotation = "cleat.aliases"

// aliasesOf returns the further names of a command, each with all its words.
func aliasesOf(cmd *cobra.Command) []string {
	var out []string
	for _, name := range cmd.Aliases {
		out = append(out, strings.TrimSuffix(cmd.CommandPath(), cmd.Name())+name)
	}
	if elsewhere := cmd.Annotations[aliasAnnotation]; elsewhere != "" {
		out = append(out, strings.Split(elsewhere, ", ")...)
	}
	return slices.DeleteFunc(out, func(name string) bool { return name == cmd.CommandPath() })
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
