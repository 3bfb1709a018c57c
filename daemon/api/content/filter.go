package content

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/internal/filters"
)

// statusFilter takes the expressions by which ingests are listed; one that matches is enough, none
// matches all. The API's text calls them regular expressions on the ref, its clients also send
// filters, such as ref~=^layer-: what compares the field ref is a filter, all else an expression.
func statusFilter(exprs []string) (func(content.Status) bool, error) {
	var all []func(content.Status) bool
	for _, e := range exprs {
		match, err := statusMatcher(e)
		if err != nil {
			return nil, fmt.Errorf("filter %q: %w: %w", e, err, errdefs.ErrInvalidArgument)
		}
		all = append(all, match)
	}
	return func(st content.Status) bool {
		for _, match := range all {
			if match(st) {
				return true
			}
		}
		return len(all) == 0
	}, nil
}

func statusMatcher(expr string) (func(content.Status) bool, error) {
	if rest, ok := strings.CutPrefix(expr, "ref"); ok && (strings.HasPrefix(rest, "==") || strings.HasPrefix(rest, "!=") || strings.HasPrefix(rest, "~=")) {
		f, err := filters.Parse(expr)
		if err != nil {
			return nil, err
		}
		return func(st content.Status) bool {
			return f.Match(filters.AdaptorFunc(func(path []string) (string, bool) {
				return st.Ref, len(path) == 1 && path[0] == "ref"
			}))
		}, nil
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, err
	}
	return func(st content.Status) bool { return re.MatchString(st.Ref) }, nil
}
