package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatproject/cleat/client"
)

func completionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "completion [FLAGS] bash|zsh|fish", Short: "print the completion script of a shell",
		Long: "To load it in the current bash or zsh:\n\n" +
			"    source <(cleat completion bash)\n\n" +
			"or for every session, where make install also puts the scripts:\n\n" +
			"    cleat completion bash > /usr/share/bash-completion/completions/cleat\n" +
			"    cleat completion zsh > /usr/share/zsh/site-functions/_cleat\n" +
			"    cleat completion fish > /usr/share/fish/vendor_completions.d/cleat.fish",
		Args: argCount(1, 1), ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			var script bytes.Buffer
			var err error
			switch args[0] {
			case "bash":
				err = cmd.Root().GenBashCompletionV2(&script, true)
			case "zsh":
				err = cmd.Root().GenZshCompletion(&script)
			case "fish":
				err = cmd.Root().GenFishCompletion(&script, true)
			default:
				err = usage(cmd.CommandPath(), fmt.Errorf("shell %q: want bash, zsh or fish: %w", args[0], errdefs.ErrInvalidArgument))
			}
			if err != nil {
				return err
			}
			return a.print(script.String())
		},
	}
}

// completionTime bounds the time that a completion waits for the daemon.
const completionTime = time.Second

// lister lists what an argument or a flag can name. It may use what the user has typed of the name.
type lister func(ctx context.Context, c *client.Client, typed string) ([]cobra.Completion, error)

// candidates asks the daemon for completions of what was typed, apart from the given ones. An error means that there
// are none: it must not disturb the command line.
func (a *app) candidates(ctx context.Context, list lister, typed string, given []string) []cobra.Completion {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	var found []cobra.Completion
	err := a.withClient(ctx, func(c *client.Client) (err error) {
		found, err = list(ctx, c, typed)
		return err
	})
	if err != nil {
		return nil
	}
	return matching(found, typed, given)
}

// completeArgs completes each argument in turn with one of the listers, or with files if the lister is nil.
// The last lister also completes every argument after it if repeat is set.
func (a *app) completeArgs(repeat bool, lists ...lister) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		at := len(args)
		if repeat {
			at = min(at, len(lists)-1)
		}
		if at >= len(lists) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if lists[at] == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.candidates(cmd.Context(), lists[at], toComplete, args), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeRun completes the arguments of run: an image, or with --rootfs a directory; the rest is for the container.
func (a *app) completeRun(rootfs *bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) > 0:
			return nil, cobra.ShellCompDirectiveDefault
		case *rootfs:
			return nil, cobra.ShellCompDirectiveFilterDirs
		}
		return a.candidates(cmd.Context(), listImages, toComplete, nil), cobra.ShellCompDirectiveNoFileComp
	}
}

// matching returns the candidates that begin with what was typed and were not given already.
func matching(all []cobra.Completion, toComplete string, given []string) []cobra.Completion {
	var out []cobra.Completion
	for _, c := range all {
		name, _, _ := strings.Cut(c, "\t")
		if strings.HasPrefix(name, toComplete) && !slices.Contains(given, name) {
			out = append(out, c)
		}
	}
	return out
}

// listContainers returns a lister of the containers in one of the states, or in any if none is given.
func listContainers(states ...string) lister {
	return func(ctx context.Context, c *client.Client, _ string) ([]cobra.Completion, error) {
		boxes, err := c.List(ctx, client.ListRequest{All: true})
		var out []cobra.Completion
		for _, b := range boxes {
			if len(states) == 0 || slices.Contains(states, b.Status) {
				out = append(out, cobra.CompletionWithDesc(shortID(b.ID), strings.TrimSpace(b.Status+" "+printable(b.Image))))
			}
		}
		return out, err
	}
}

// listImages lists images by their short names, or by their full names if the user has begun one.
func listImages(ctx context.Context, c *client.Client, typed string) ([]cobra.Completion, error) {
	images, err := c.Images(ctx)
	var out []cobra.Completion
	for _, i := range images {
		name := i.Name
		if typed == "" || !strings.HasPrefix(name, typed) {
			name = shortName(name)
		}
		out = append(out, name)
	}
	return out, err
}

// shortName returns the name of an image without the registry, if the short name stands for the same image.
func shortName(name string) string {
	const registry, official = "docker.io/", "library/"
	path, ok := strings.CutPrefix(name, registry)
	if !ok {
		return name
	}
	if short, ok := strings.CutPrefix(path, official); ok && !strings.Contains(short, "/") {
		return short
	}
	if first, _, ok := strings.Cut(path, "/"); ok && first != "localhost" && !strings.ContainsAny(first, ".:") {
		return path
	}
	return name
}

func listMountedDirectories(ctx context.Context, c *client.Client, _ string) ([]cobra.Completion, error) {
	mounts, err := c.ImageMounts(ctx)
	var out []cobra.Completion
	for _, m := range mounts {
		out = append(out, cobra.CompletionWithDesc(m.Target, printable(m.Image)))
	}
	return out, err
}

func listNamespaces(ctx context.Context, c *client.Client, _ string) ([]cobra.Completion, error) {
	return c.Namespaces(ctx)
}

func listSnapshotters(ctx context.Context, c *client.Client, _ string) ([]cobra.Completion, error) {
	return c.Snapshotters(ctx)
}

// completeHelp completes the words of a command.
func completeHelp(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	target, rest, err := cmd.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []cobra.Completion
	for _, c := range target.Commands() {
		if c.IsAvailableCommand() {
			out = append(out, cobra.CompletionWithDesc(c.Name(), c.Short))
		}
	}
	return matching(out, toComplete, nil), cobra.ShellCompDirectiveNoFileComp
}

// completeFlags registers completions for the values of every flag. Flags whose values are files keep the shell's own
// completion.
func (a *app) completeFlags(cmd *cobra.Command) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		complete := a.flagCompletion(f.Name)
		if complete == nil || f.Value.Type() == "bool" {
			return
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, complete) // the flag exists, and has no completion yet
	})
	for _, c := range cmd.Commands() {
		a.completeFlags(c)
	}
}

// flagCompletion returns how the value of a flag is completed; nil leaves it to the shell.
//
//nolint:contextcheck // cobra passes the context when it completes
func (a *app) flagCompletion(name string) cobra.CompletionFunc {
	fixed := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	asked := func(list lister) cobra.CompletionFunc {
		return func(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return a.candidates(cmd.Context(), list, toComplete, nil), cobra.ShellCompDirectiveNoFileComp
		}
	}
	switch name {
	case "address", "ttrpc-address", "config", "env-file", "output", "volume", "mount", "runtime":
		return nil
	case "root", "state":
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	case "namespace":
		return asked(listNamespaces)
	case "snapshotter":
		return asked(listSnapshotters)
	case "format":
		return fixed("table", "json")
	case "signal", "stop-signal":
		return fixed("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH")
	case "net", "network":
		return fixed("none", "host", "ns:")
	case "log":
		return fixed("daemon", "none", "file:///", "binary:///")
	case "security-opt":
		return fixed("no-new-privileges", "seccomp=unconfined")
	case "compression":
		return fixed("gzip", "zstd", "uncompressed")
	case "platform":
		return fixed("linux/amd64", "linux/arm64", "linux/arm/v7", "linux/386", "linux/ppc64le", "linux/riscv64", "linux/s390x")
	}
	return fixed()
}
