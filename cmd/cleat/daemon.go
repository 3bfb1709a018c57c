package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/internal/version"
	"github.com/spf13/pflag"
)

func versionCommand() command {
	return command{
		name: "version", max: 0,
		short: "show the versions of the client and the daemon",
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "table", "`table` for people or json for programs")
			return func(ctx context.Context, a *app, _ []string) error {
				if err := checkFormat(*format); err != nil {
					return err
				}
				var server client.Version
				err := a.withClient(ctx, func(c *client.Client) (err error) {
					server, err = c.Version(ctx)
					return err
				})
				cleat, containerd := version.Split(server.Version)
				if *format == "json" {
					if err != nil {
						return err
					}
					return writeJSON(a.stdout, map[string]string{
						"client": version.Version(), "client_containerd": version.Containerd,
						"server": cleat, "server_containerd": containerd, "revision": server.Revision,
					})
				}
				a.printed(versionLine("client", version.Version(), version.Containerd, ""))
				if err != nil {
					return err
				}
				a.printed(versionLine("server", cleat, containerd, server.Revision))
				return nil
			}
		},
	}
}

// versionLine is a line of version: cleat's version, the one of containerd that it is compatible with, and the
// revision, where that is known.
func versionLine(side, cleat, containerd, revision string) string {
	line := fmt.Sprintf("%s  %s  containerd %s", side, or(cleat, "-"), containerd)
	if revision != "" {
		line += "  revision " + revision
	}
	return line + "\n"
}

// shimJSON is a shim for programs.
type shimJSON struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Pid       uint32 `json:"pid"`
	Runtime   string `json:"runtime"`
	Version   string `json:"version"`
	Socket    string `json:"socket"`
	State     string `json:"state"`
}

func shimLsCommand() command {
	return command{
		name: "shim ls", aliases: []string{"shim list"}, max: 0,
		short: "list the processes that hold containers",
		setup: func(fs *pflag.FlagSet) action {
			l := &listFlags{}
			l.declare(fs)
			all := fs.Bool("all-namespaces", false, "those of every namespace")
			return func(ctx context.Context, a *app, _ []string) error {
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
		},
	}
}

func namespaceLsCommand() command {
	return command{
		name: "namespace ls", aliases: []string{"namespaces ls", "ns ls"}, max: 0,
		short: "list namespaces",
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "table", "`table` for people or json for programs")
			return func(ctx context.Context, a *app, _ []string) error {
				if err := checkFormat(*format); err != nil {
					return err
				}
				return a.withClient(ctx, func(c *client.Client) error {
					names, err := c.Namespaces(ctx)
					switch {
					case err != nil:
						return err
					case *format == "json":
						return writeJSON(a.stdout, names)
					}
					return writeLines(a.stdout, names)
				})
			}
		},
	}
}

func namespaceCreateCommand() command {
	return command{
		name: "namespace create", aliases: []string{"namespaces create", "ns create"}, args: "NAME...", min: 1, max: -1,
		short: "make namespaces",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, a *app, args []string) error {
				return a.forEach(ctx, args, func(ctx context.Context, c *client.Client, name string) error {
					return c.CreateNamespace(ctx, name)
				})
			}
		},
	}
}

func namespaceRmCommand() command {
	return command{
		name: "namespace rm", aliases: []string{"namespaces rm", "ns rm"}, args: "NAME...", min: 1, max: -1,
		short: "remove namespaces that are empty",
		setup: func(*pflag.FlagSet) action {
			return func(ctx context.Context, a *app, args []string) error {
				return a.forEach(ctx, args, func(ctx context.Context, c *client.Client, name string) error {
					return c.DeleteNamespace(ctx, name)
				})
			}
		},
	}
}

func eventsCommand() command {
	return command{
		name: "events", max: 0,
		short: "show what happens, as it happens",
		detail: `Each event has a cursor; --since with it goes on after that event, also after restarts of the daemon.
With --format json each line is one object.`,
		setup: func(fs *pflag.FlagSet) action {
			var r client.EventsRequest
			fs.Uint64Var(&r.Cursor, "since", 0, "begin after the event with this `cursor`")
			fs.BoolVar(&r.FromStart, "from-start", false, "begin with the oldest event that is kept")
			fs.BoolVar(&r.AllNamespaces, "all-namespaces", false, "those of every namespace")
			fs.StringArrayVarP(&r.Filters, "filter", "f", nil, `filter such as topic=="/tasks/exit"; several mean or`)
			format := fs.String("format", "table", "`table` for people or json for programs")
			return func(ctx context.Context, a *app, _ []string) error {
				if err := checkFormat(*format); err != nil {
					return err
				}
				proxy, ctx := newProxy(ctx)
				defer proxy.close()
				return a.withClient(ctx, func(c *client.Client) error { return showEvents(ctx, a, c, r, *format) })
			}
		},
	}
}

func showEvents(ctx context.Context, a *app, c *client.Client, r client.EventsRequest, format string) error {
	lines := json.NewEncoder(a.stdout)
	lines.SetEscapeHTML(false)
	for e, err := range c.Events(ctx, r) {
		if err != nil {
			return err
		}
		fields := e.Fields()
		if format == "json" {
			err = lines.Encode(map[string]any{
				"cursor": e.Cursor, "time": timestamp(e.Time), "namespace": e.Namespace, "topic": e.Topic, "event": fields,
			})
		} else {
			var text []byte
			if text, err = json.Marshal(fields); err == nil {
				_, err = fmt.Fprintf(a.stdout, "%d %s %s %s %s\n", e.Cursor, timestamp(e.Time), e.Namespace, e.Topic, text)
			}
		}
		if err != nil {
			return writing(err)
		}
	}
	return nil
}
