package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

func namespaceGroup(a *app, words []string) *cobra.Command {
	g := group(a, "namespace", "manage namespaces", words,
		entry{names: "ls list", build: namespaceLsCommand},
		entry{names: "create", build: namespaceCreateCommand},
		entry{names: "rm remove", build: namespaceRmCommand})
	g.Aliases = []string{"namespaces", "ns"}
	return g
}

func namespaceLsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "ls [FLAGS]", Short: "list namespaces", Aliases: []string{"list"}, Args: argCount(0, 0)}
	format := declareFormat(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		ctx := cmd.Context()
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
	return cmd
}

func namespaceCreateCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "create [FLAGS] NAME...", Short: "create namespaces", Args: argCount(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd.Context(), args, func(ctx context.Context, c *client.Client, name string) error {
				return c.CreateNamespace(ctx, name)
			})
		},
	}
}

func namespaceRmCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm [FLAGS] NAME...", Short: "remove empty namespaces", Aliases: []string{"remove"}, Args: argCount(1, -1),
		ValidArgsFunction: a.completeArgs(true, listNamespaces),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.forEach(cmd.Context(), args, func(ctx context.Context, c *client.Client, name string) error {
				return c.DeleteNamespace(ctx, name)
			})
		},
	}
}
