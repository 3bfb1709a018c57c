package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

func eventsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "events [FLAGS]", Short: "stream events",
		Long: "Each event has a cursor. --since with a cursor continues after that event, also after the daemon was\n" +
			"restarted. With --format json each line is one object.",
		Args: argCount(0, 0),
	}
	fs := cmd.Flags()
	var r client.EventsRequest
	fs.Uint64Var(&r.Cursor, "since", 0, "start after the event with this `CURSOR`")
	fs.BoolVar(&r.FromStart, "from-start", false, "start with the oldest event in the log")
	fs.BoolVar(&r.AllNamespaces, "all-namespaces", false, "stream the events of every namespace")
	fs.StringArrayVarP(&r.Filters, "filter", "f", nil, "only events that match `FILTER`, such as topic==\"/tasks/exit\"; may be repeated for or")
	format := declareFormat(fs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		proxy, ctx := newProxy(cmd.Context())
		defer proxy.close()
		return a.withClient(ctx, func(c *client.Client) error { return showEvents(ctx, a, c, r, *format) })
	}
	return cmd
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
