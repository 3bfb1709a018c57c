package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is the result of a scenario.
type result struct {
	Scenario string         `json:"scenario"`
	What     string         `json:"what"`
	Unit     string         `json:"unit"`
	Figures  []figure       `json:"figures"`
	Targets  []targetResult `json:"targets"`
}

type figure struct {
	Variant string    `json:"variant"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Rounds  []float64 `json:"rounds"`
}

type targetResult struct {
	Text  string  `json:"text"`
	Value float64 `json:"value"`
	Limit float64 `json:"limit"`
	Met   bool    `json:"met"`
}

func newResult(s scenario, variants []variant, figures [][]float64) result {
	r := result{Scenario: s.name, What: s.what, Unit: s.unit}
	medians := map[string]float64{}
	for i, v := range variants {
		f := figure{Variant: v.name, Rounds: figures[i], Median: median(figures[i]), Min: slices.Min(figures[i]), Max: slices.Max(figures[i])}
		medians[v.name] = f.Median
		r.Figures = append(r.Figures, f)
	}
	for _, t := range s.targets {
		r.Targets = append(r.Targets, t.check(medians, s.unit, s.moreWins))
	}
	return r
}

func (t target) check(medians map[string]float64, unit string, moreWins bool) targetResult {
	value := medians[t.variant]
	of := unit
	if t.base != "" {
		value /= medians[t.base]
		of = "x " + t.base
	}
	word, met := "at most", value <= t.limit
	if moreWins {
		word, met = "at least", value >= t.limit
	}
	return targetResult{Text: fmt.Sprintf("%s %s %.4g %s", t.variant, word, t.limit, of), Value: value, Limit: t.limit, Met: met}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// table formats the result for people.
func (r result) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s (%s, %d rounds)\n", r.Scenario, r.What, r.Unit, len(r.Figures[0].Rounds))
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "\tmedian\tmin\tmax\t")
	for _, f := range r.Figures {
		_, _ = fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t\n", f.Variant, f.Median, f.Min, f.Max)
	}
	_ = w.Flush() // into memory
	for _, t := range r.Targets {
		verdict := "pass"
		if !t.Met {
			verdict = "MISS"
		}
		fmt.Fprintf(&b, "  %s  %s: %.2f\n", verdict, t.Text, t.Value)
	}
	return b.String()
}

func printJSON(w io.Writer, results []result) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(results)
}

// save writes the results below results/.
func save(results []result, now time.Time) error {
	if err := os.MkdirAll("results", 0o755); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	f, err := os.Create(filepath.Join("results", now.UTC().Format("20060102T150405Z")+".json"))
	if err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	if err := printJSON(f, results); err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	return f.Close()
}
