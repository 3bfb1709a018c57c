package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/client"
)

func TestEveryReason_HasAdviceOrNeedsNone(t *testing.T) {
	table, none := advices(), withoutAdvice()
	for _, r := range client.Reasons() {
		hint, needs := table[r].hint, none[r] == ""
		if needs && hint == "" || !needs && hint != "" {
			t.Errorf("%s: hint %q, listed as needing none: %v", r, hint, !needs)
		}
		if strings.ContainsAny(hint, "\n") {
			t.Errorf("%s: hint has several lines", r)
		}
	}
	for r := range table {
		if !slices.Contains(client.Reasons(), r) {
			t.Errorf("%s is not a reason", r)
		}
	}
}

// Causes in the container result in 126 or 127, all others in 125.
func TestEveryReason_HasExitCode(t *testing.T) {
	codes := map[client.Reason]int{
		client.ReasonCommandNotFound: 127, client.ReasonCommandNotExecutable: 126, client.ReasonDirectoryNotFound: 126,
	}
	d := newDaemon(t)
	for _, r := range client.Reasons() {
		want, ok := codes[r]
		if !ok {
			want = 125
		}
		d.failRun = fmt.Errorf("do thing: %w", r)
		got := invoke(t, d.env(), "", "run", "--name", "one", "busybox")
		if got.code != want || !strings.Contains(got.err, ": do thing") {
			t.Errorf("%s: %+v, want code %d", r, got, want)
		}
		if _, hint, ok := strings.Cut(got.err, "\nhint: "); ok != (advices()[r].hint != "") {
			t.Errorf("%s: hint %q", r, hint)
		}
	}
}
