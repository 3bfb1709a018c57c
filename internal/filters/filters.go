// Package filters implements the filter language of containerd's list calls.
//
// A filter is a list of selectors, joined by commas, all of which must hold. A selector is
// a field's path, alone (the field must be present) or with an operator and a value:
//
//	name==docker.io/library/busybox:latest
//	labels."io.example/key"==value,id~=^web-
//	runtime.name!=io.containerd.cleat.v2
//
//	filter    = selector *( "," selector )
//	selector  = path [ operator value ]
//	path      = name *( "." name )
//	name      = letter or "_", then letters, digits, "_", "-"; or quoted
//	operator  = "==" | "!=" | "~="          equal, not equal, matches (a Go regexp)
//	value     = quoted, or what comes before the next comma or blank
//	quoted    = as in Go, in double quotes; after an operator also between / or |, where
//	            only the delimiter itself can be escaped
//
// Several filters are alternatives: one must hold. An empty filter, and no filter at all,
// match everything. Parsing takes time and memory in proportion to the text; matching uses
// linear-time regular expressions.
package filters

import (
	"fmt"
	"regexp"

	"github.com/containerd/errdefs"
)

// Adaptor returns the fields of one object.
type Adaptor interface {
	// Field returns the value of the field and whether it is present. path has at least
	// one element.
	Field(path []string) (value string, present bool)
}

// AdaptorFunc is a function as an Adaptor.
type AdaptorFunc func(path []string) (string, bool)

// Field implements Adaptor.
func (f AdaptorFunc) Field(path []string) (string, bool) { return f(path) }

// Filter matches objects. It is safe for concurrent use.
type Filter interface {
	Match(Adaptor) bool
}

// all matches if each of its selectors does; with none it always matches.
type all []selector

func (a all) Match(o Adaptor) bool {
	for _, s := range a {
		if !s.match(o) {
			return false
		}
	}
	return true
}

// either matches if one of its filters does.
type either []Filter

func (e either) Match(o Adaptor) bool {
	for _, f := range e {
		if f.Match(o) {
			return true
		}
	}
	return false
}

type operator string

const (
	present  operator = ""
	equal    operator = "=="
	notEqual operator = "!="
	matches  operator = "~="
)

type selector struct {
	path  []string
	op    operator
	value string
	re    *regexp.Regexp
}

func (s *selector) match(o Adaptor) bool {
	v, ok := o.Field(s.path)
	switch s.op {
	case equal:
		return ok && v == s.value
	case notEqual:
		return v != s.value
	case matches:
		return ok && s.re.MatchString(v)
	default:
		return ok
	}
}

// Exact returns the values that a field can have in an object that f matches, if f names them
// with "==" in each of its alternatives. The field has a path of one name.
func Exact(f Filter, field string) (values []string, ok bool) {
	switch f := f.(type) {
	case all:
		for _, s := range f {
			if s.op == equal && len(s.path) == 1 && s.path[0] == field {
				return []string{s.value}, true
			}
		}
	case either:
		for _, alternative := range f {
			v, ok := Exact(alternative, field)
			if !ok {
				return nil, false
			}
			values = append(values, v...)
		}
		return values, len(f) > 0
	}
	return nil, false
}

// ParseAll returns the filter that matches if one of texts does, or always if there are
// none. Errors are of the class invalid argument.
func ParseAll(texts ...string) (Filter, error) {
	if len(texts) == 0 {
		return all(nil), nil
	}
	list := make(either, len(texts))
	for i, text := range texts {
		f, err := Parse(text)
		if err != nil {
			return nil, err
		}
		list[i] = f
	}
	return list, nil
}

// Parse parses one filter. Errors are of the class invalid argument.
func Parse(text string) (Filter, error) {
	p := parser{text: text, rest: text}
	f, err := p.filter()
	if err != nil {
		return nil, fmt.Errorf("filter %.256q: %w: %w", text, err, errdefs.ErrInvalidArgument)
	}
	return f, nil
}
