package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestUsage(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		code int
		out  string
		err  string
	}{
		"nothing":          {nil, 0, "Usage: cleat", ""},
		"help":             {[]string{"help"}, 0, "Containers:", ""},
		"version":          {[]string{"--version"}, 0, "cleat ", ""},
		"help of a":        {[]string{"help", "run"}, 0, "Usage: cleat run [FLAGS] IMAGE", ""},
		"flag for help":    {[]string{"stop", "--help"}, 0, "--time SECONDS", ""},
		"-h of run":        {[]string{"run", "-h"}, 0, "Usage: cleat run [FLAGS] IMAGE", ""},
		"-h of another":    {[]string{"stop", "-h"}, 0, "--time SECONDS", ""},
		"-h with a name":   {[]string{"run", "-h", "name"}, 125, "", "0 arguments given"},
		"group":            {[]string{"image"}, 0, "  import ", ""},
		"help of a group":  {[]string{"image", "--help"}, 0, "  import ", ""},
		"help for a group": {[]string{"help", "image"}, 0, "Usage: cleat image COMMAND", ""},
		"help, two words":  {[]string{"help", "image", "ls"}, 0, "Usage: cleat image ls", ""},
		"help of nothing":  {[]string{"help", "fly"}, 1, "", "cleat: no command \"fly\"\n"},
		"unknown command":  {[]string{"fly"}, 1, "", "cleat: no command \"fly\"\nhint: cleat help lists the commands\n"},
		"with its flags":   {[]string{"fly", "--high", "x"}, 1, "", "cleat: no command \"fly\"\n"},
		"unknown image":    {[]string{"image", "fly"}, 1, "", "cleat: no command \"image fly\"\nhint: cleat help image lists the commands\n"},
		"mistyped":         {[]string{"stpo", "x"}, 1, "", "cleat: no command \"stpo\"\nhint: did you mean cleat stop?\n"},
		"unknown flag":     {[]string{"ps", "--colour"}, 1, "", "cleat: unknown flag: --colour\nhint: run 'cleat ps --help' for usage\n"},
		"global flag":      {[]string{"--colour", "ps"}, 1, "", "cleat: unknown flag: --colour\nhint: run 'cleat --help' for usage\n"},
		"many arguments":   {[]string{"ps", "x"}, 1, "", "cleat: 1 argument given; want: cleat ps\nhint: run 'cleat ps --help' for usage\n"},
		"of exec":          {[]string{"exec", "one"}, 125, "", "cleat: 1 argument given; want: cleat exec CONTAINER COMMAND"},
		"of attach":        {[]string{"attach"}, 125, "", "cleat: 0 arguments given; want: cleat attach CONTAINER\n"},
		"of run":           {[]string{"run", "--colour", "x"}, 125, "", "cleat: unknown flag"},
		"no image":         {[]string{"run", "-d"}, 125, "", "cleat: 0 arguments given; want: cleat run IMAGE"},
		"no daemon":        {[]string{"ps", "--address", "/none/x.sock"}, 1, "", "hint: is cleatd running?"},
		"signal":           {[]string{"kill", "-s", "NONE", "x"}, 1, "", "cleat: signal \"NONE\": want a name"},
	} {
		t.Run(name, func(t *testing.T) {
			got := invoke(t, nil, "", tt.args...)
			if got.code != tt.code || !strings.Contains(got.out, tt.out) || !strings.Contains(got.err, tt.err) || (tt.err == "") != (got.err == "") {
				t.Errorf("cleat %q: %+v", tt.args, got)
			}
		})
	}
}

// every calls f with each command that can be called, by each of its names.
func every(t *testing.T, f func(path []string, cmd *cobra.Command)) {
	t.Helper()
	var walk func(prefix []string, cmd *cobra.Command)
	walk = func(prefix []string, cmd *cobra.Command) {
		for _, name := range append([]string{cmd.Name()}, cmd.Aliases...) {
			path := append(slices.Clone(prefix), name)
			f(path, cmd)
			for _, c := range cmd.Commands() {
				walk(path, c)
			}
		}
	}
	for _, c := range (&app{env: func(string) string { return "" }}).commands(nil).Commands() {
		walk(nil, c)
	}
}

// A command line that names a command constructs that command alone, under each of its names.
func TestCommands_NamedCommandIsConstructedAlone(t *testing.T) {
	a := &app{env: func(string) string { return "" }}
	every(t, func(path []string, cmd *cobra.Command) {
		if path[0] == "help" {
			return
		}
		tree := a.commands(path)
		found, rest, err := tree.Find(path)
		if err != nil || len(rest) > 0 || found.CommandPath() != cmd.CommandPath() || !slices.Equal(found.Aliases, cmd.Aliases) {
			t.Errorf("%s: %v %v, %v", path, found.CommandPath(), rest, err)
		}
		if n := len(tree.Commands()); n != 2 { // and help
			t.Errorf("%s: %d commands were constructed", path, n)
		}
		if len(path) == 2 && len(found.Parent().Commands()) != 1 {
			t.Errorf("%s: %d commands of the group were constructed", path, len(found.Parent().Commands()))
		}
	})
}

// Every command prints its help, with its flags and the global ones.
func TestHelpOfEveryCommand(t *testing.T) {
	seen := 0
	every(t, func(path []string, cmd *cobra.Command) {
		for _, flag := range []string{"--help", "-h"} {
			seen++
			got := invoke(t, nil, "", append(slices.Clone(path), flag)...)
			if got.code != 0 || got.err != "" || !strings.HasPrefix(got.out, "Usage: "+cmd.CommandPath()+" ") || !strings.Contains(got.out, "--address") {
				t.Errorf("cleat %s %s: %+v", path, flag, got)
			}
			cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
				if !strings.Contains(got.out, "--"+f.Name) {
					t.Errorf("cleat %s %s: no flag --%s", path, flag, f.Name)
				}
			})
		}
	})
	if seen < 100 {
		t.Errorf("%d calls, which is too few", seen)
	}
}

// Metavariables are in capitals, help texts are imperative phrases, and every flag is in a group that the help shows.
func TestHelp_HasOneStyle(t *testing.T) {
	metavariable := regexp.MustCompile(`^[A-Z:=/\[\]]+(\[:ro\])?$`)
	every(t, func(path []string, cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Short != strings.TrimSuffix(strings.ToLower(cmd.Short[:1])+cmd.Short[1:], ".") {
			t.Errorf("%s: %q begins with a capital or ends in a full stop", path, cmd.Short)
		}
		for _, line := range strings.Split(cmd.Long, "\n") {
			if len(line) > 110 {
				t.Errorf("%s: %q is too long", path, line)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			name, _ := pflag.UnquoteUsage(f)
			if f.Value.Type() != "bool" && !metavariable.MatchString(name) {
				t.Errorf("%s --%s: metavariable %q", path, f.Name, name)
			}
			if !slices.Contains(flagGroups(), groupOf(f)) {
				t.Errorf("%s --%s: unknown group %q", path, f.Name, groupOf(f))
			}
		})
	})
}

func TestAliases_RunTheSameCommand(t *testing.T) {
	d := newDaemon(t)
	for _, names := range [][]string{
		{"ps -q", "ls -q"},
		{"image ls -q", "images -q", "image list -q"},
		{"resume", "unpause"},
		{"shim ls -q", "shim list -q"},
		{"namespace ls --format x", "namespaces ls --format x", "ns list --format x"},
		{"pull --max-concurrent-downloads 0 x", "image pull --max-concurrent-downloads 0 x"},
		{"rm one", "remove one"},
		{"image import /none", "image load /none"},
		{"image export -o /none/x y", "image save -o /none/x y"},
	} {
		want := invoke(t, d.env(), "", strings.Fields(names[0])...)
		for _, name := range names[1:] {
			got := invoke(t, d.env(), "", strings.Fields(name)...)
			got.err = strings.ReplaceAll(got.err, "cleat image pull", "cleat pull")
			if got != want || got.out+got.err == "" {
				t.Errorf("%s: %+v, want %+v", name, got, want)
			}
		}
	}
}

func TestRun_FlagsAfterImage_BelongToContainer(t *testing.T) {
	d := newDaemon(t)
	got := invoke(t, d.env(), "", "-n", "blue", "run", "-d", "-itv/a:/b", "-eA=1", "--log=none", "busybox", "ls", "--help", "-h", "--colour", "--", "-n", "x")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if args, want := d.last(t).spec.Process.Args, []string{"/entry", "ls", "--help", "-h", "--colour", "--", "-n", "x"}; !slices.Equal(args, want) {
		t.Errorf("arguments %q, want %q", args, want)
	}
}
