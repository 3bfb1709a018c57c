package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/internal/version"
)

func versionCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "version [FLAGS]", Short: "show the versions of the client and the daemon", Args: argCount(0, 0),
	}
	format := declareFormat(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		ctx := cmd.Context()
		var server client.Version
		err := a.withClient(ctx, func(c *client.Client) (err error) {
			server, err = c.Version(ctx)
			return err
		})
		return a.showVersion(server, *format, err)
	}
	return cmd
}

// showVersion prints the client's version, and the daemon's if err, the error of asking for it, is nil.
func (a *app) showVersion(server client.Version, format string, err error) error {
	cleat, containerd := version.Split(server.Version)
	if format == "json" {
		if err != nil {
			return err
		}
		return writeJSON(a.stdout, map[string]string{
			"client": version.Version(), "client_containerd": version.Containerd,
			"server": cleat, "server_containerd": containerd, "revision": server.Revision,
		})
	}
	text := versionLine("client", version.Version(), version.Containerd, "")
	if err == nil {
		text += versionLine("server", cleat, containerd, server.Revision)
	}
	return firstError(err, a.print(text))
}

// versionLine returns a line of the output of version: cleat's version, the version of containerd's API that it is
// compatible with, and the revision if it is known.
func versionLine(side, cleat, containerd, revision string) string {
	line := fmt.Sprintf("%s  %s  containerd %s", side, cmp.Or(cleat, "-"), containerd)
	if revision != "" {
		line += "  revision " + revision
	}
	return line + "\n"
}

// shimJSON is the JSON form of a shim.
type shimJSON struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Pid       uint32 `json:"pid"`
	Runtime   string `json:"runtime"`
	Version   string `json:"version"`
	Socket    string `json:"socket"`
	State     string `json:"state"`
}

func shimGroup(a *app, words []string) *cobra.Command {
	return group(a, "shim", "manage shims", words, entry{names: "ls list", build: shimLsCommand})
}

func shimLsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "ls [FLAGS]", Short: "list shims", Aliases: []string{"list"}, Args: argCount(0, 0)}
	l := &listFlags{}
	l.declare(cmd.Flags())
	all := cmd.Flags().Bool("all-namespaces", false, "list the shims of every namespace")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		return a.withClient(ctx, func(c *client.Client) error {
			shims, err := c.Shims(ctx, *all)
			if err != nil {
				return err
			}
			names, rows, asJSON := []string{}, [][]string{}, []shimJSON{}
			for _, s := range shims {
				names = append(names, s.ID)
				rows = append(rows, []string{shortID(s.ID), s.Namespace, fmt.Sprint(s.Pid), s.Runtime, s.Version, s.State})
				asJSON = append(asJSON, shimJSON(s))
			}
			return l.show(a.stdout, []string{"ID", "NAMESPACE", "PID", "RUNTIME", "VERSION", "STATE"}, rows, names, asJSON)
		})
	}
	return cmd
}
