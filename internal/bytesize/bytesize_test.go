package bytesize

import (
	"math"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParse(t *testing.T) {
	const bad = -1
	for text, want := range map[string]struct{ parsed, whole int64 }{
		"0":                         {0, 0},
		"17":                        {17, 17},
		"1b":                        {1, 1},
		"3k":                        {3 << 10, 3 << 10},
		"64m":                       {64 << 20, 64 << 20},
		"64MB":                      {64 << 20, 64 << 20},
		"64MiB":                     {64 << 20, 64 << 20},
		"2t":                        {2 << 40, 2 << 40},
		"1PiB":                      {1 << 50, 1 << 50},
		"1.5g":                      {3 << 29, bad},
		"0.5":                       {0, bad},
		"1.0b":                      {1, bad},
		"9223372036854775807":       {math.MaxInt64, math.MaxInt64},
		"9223372036854775807.9":     {math.MaxInt64, bad},
		"8191.99999999999999999PiB": {math.MaxInt64, bad},
		"9223372036854775808":       {bad, bad},
		"8192p":                     {bad, bad},
		"99999999999999t":           {bad, bad},
		"":                          {bad, bad},
		"m":                         {bad, bad},
		".5g":                       {bad, bad},
		"1.g":                       {bad, bad},
		"1.2.3":                     {bad, bad},
		"-1":                        {bad, bad},
		"+5g":                       {bad, bad},
		"1x":                        {bad, bad},
		"1mm":                       {bad, bad},
		"1ibm":                      {bad, bad},
		"10i":                       {bad, bad},
		"10 GiB":                    {bad, bad},
		"1e9":                       {bad, bad},
		"0x10":                      {bad, bad},
		"1_000":                     {bad, bad},
		"nan":                       {bad, bad},
		"inf":                       {bad, bad},
		"١":                         {bad, bad},
	} {
		for name, c := range map[string]struct {
			parse func(string) (int64, error)
			want  int64
		}{"Parse": {Parse, want.parsed}, "ParseWhole": {ParseWhole, want.whole}} {
			got, err := c.parse(text)
			if c.want == bad && !errdefs.IsInvalidArgument(err) || c.want != bad && (err != nil || got != c.want) {
				t.Errorf("%s(%q) = %d, %v; want %d", name, text, got, err, c.want)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1.5GiB")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse(text)
		if err == nil && n < 0 {
			t.Errorf("%q gives %d", text, n)
		}
		if w, werr := ParseWhole(text); werr == nil && (err != nil || w != n) {
			t.Errorf("%q: whole %d, else %d, %v", text, w, n, err)
		}
	})
}
