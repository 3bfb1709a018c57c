package main

import (
	"strings"
	"testing"
)

func TestTargets(t *testing.T) {
	s := scenario{name: "x", unit: "ms", targets: []target{
		{variant: "ours", base: "theirs", limit: 0.5},
		{variant: "ours", limit: 3},
	}}
	r := newResult(s, []variant{{name: "ours"}, {name: "theirs"}}, [][]float64{{1, 5, 2}, {2, 4}})
	if r.Figures[0].Median != 2 || r.Figures[1].Median != 3 {
		t.Errorf("medians %v and %v, want 2 and 3", r.Figures[0].Median, r.Figures[1].Median)
	}
	if r.Targets[0].Met || !r.Targets[1].Met {
		t.Errorf("targets %+v, want the first missed and the second met", r.Targets)
	}
	table := r.table()
	for _, want := range []string{"MISS  ours at most 0.5 x theirs: 0.67", "pass  ours at most 3 ms: 2.00"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	s.moreWins = true
	if got := newResult(s, []variant{{name: "ours"}, {name: "theirs"}}, [][]float64{{4}, {2}}); !got.Targets[0].Met || !got.Targets[1].Met {
		t.Errorf("where more wins: %+v, want both met", got.Targets)
	}
}

func TestOnly(t *testing.T) {
	for _, only := range []string{"", "run", "x,ru"} {
		if !chosen(only, "run") {
			t.Errorf("-only %q leaves run out", only)
		}
	}
	if chosen("runs", "run") {
		t.Error("-only runs takes run")
	}
}
