package main

import (
	"fmt"
	"strings"
)

// help is the command of that name.
func (a *app) help(args []string) int {
	if len(args) == 0 {
		return a.printed(a.overview())
	}
	cmd, _, err := find(args)
	if err == nil {
		return a.printed(a.commandHelp(cmd))
	}
	if group := a.groupHelp(args[0]); group != "" {
		return a.printed(group)
	}
	return a.fail(err, 1)
}

func (a *app) overview() string {
	var b strings.Builder
	b.WriteString("cleat runs containers through cleatd and looks after them.\n\nUsage: cleat [GLOBAL FLAGS] COMMAND [FLAGS] [ARGUMENTS]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-17s %s\n", c.name, c.short)
	}
	b.WriteString("  help              show help for a command\n\nGlobal flags, accepted by every command:\n")
	b.WriteString(a.flagSet("cleat").FlagUsages())
	b.WriteString("\nRun cleat COMMAND --help for its flags. run and exec exit with the container's code;\n" +
		"125 means that cleat failed, 126 that the program cannot be run, 127 that there is none.\n")
	return b.String()
}

// groupHelp lists the commands whose first word is group, or is empty where there are none.
func (a *app) groupHelp(group string) string {
	var b strings.Builder
	for _, c := range commands() {
		if strings.HasPrefix(c.name, group+" ") {
			fmt.Fprintf(&b, "  cleat %-22s %s\n", c.name, c.short)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "Commands:\n" + b.String()
}

func (a *app) commandHelp(c *command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: cleat %s [FLAGS] %s\n\n%s.\n", c.name, c.args, upperFirst(c.short))
	if c.detail != "" {
		b.WriteString("\n" + strings.TrimSpace(c.detail) + "\n")
	}
	if len(c.aliases) > 0 {
		fmt.Fprintf(&b, "\nAlso: cleat %s\n", strings.Join(c.aliases, ", cleat "))
	}
	own := a.flagSet(c.name)
	own.SortFlags = true
	c.setup(own)
	b.WriteString("\nFlags:\n" + own.FlagUsages())
	return b.String()
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
