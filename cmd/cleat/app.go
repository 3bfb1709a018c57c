package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
)

// app is one run of the program: its streams and the values of the global flags.
type app struct {
	stdin, stdout, stderr *os.File
	env                   func(string) string

	address, ttrpcAddress, namespace string
}

// failureAnnotation holds the exit code of a command's own failures, if it is not 1.
const failureAnnotation = "cleat.failure"

// fails125 marks a command that exits with a container's code, so that its own failures exit with 125.
func fails125() map[string]string { return map[string]string{failureAnnotation: "125"} }

// run executes a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.commands(args)
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		a.completeFlags(root)
	}
	var shown error
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { shown = a.print(help(cmd)) })
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetArgs(append([]string{}, args...)) // nil would stand for the arguments of the process
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = shown
	}
	failure := 1
	if cmd.Annotations[failureAnnotation] != "" {
		failure = codeOwnFailure
	}
	return a.fail(err, failure)
}

// print writes text to stdout.
func (a *app) print(text string) error {
	_, err := a.stdout.WriteString(text)
	return writing(err)
}

// dial connects to the daemon.
func (a *app) dial(ctx context.Context) (*client.Client, error) {
	return client.Dial(ctx, a.address, client.Options{Namespace: a.namespace, TTRPCAddress: a.ttrpcAddress})
}

// withClient calls f with a connection and closes the connection afterwards.
func (a *app) withClient(ctx context.Context, f func(*client.Client) error) error {
	c, err := a.dial(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

// argCount returns a check for the number of arguments; a most of -1 means any number.
func argCount(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args); n < least || most >= 0 && n > most {
			want := strings.Replace(cmd.UseLine(), " [FLAGS]", "", 1)
			given := fmt.Sprintf("%d arguments", n)
			if n == 1 {
				given = "1 argument"
			}
			return usage(cmd.CommandPath(), fmt.Errorf("%s given; want: %s", given, want))
		}
		return nil
	}
}
