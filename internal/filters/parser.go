package filters

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxText bounds a filter's length in bytes.
const maxText = 64 << 10

// parser parses a filter from the left; rest is the unread part.
type parser struct{ text, rest string }

func (p *parser) filter() (Filter, error) {
	if len(p.text) > maxText {
		return nil, fmt.Errorf("longer than %d bytes", maxText)
	}
	p.blanks()
	if p.rest == "" {
		return all(nil), nil
	}
	var list all
	for {
		s, err := p.selector()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
		p.blanks()
		if p.rest == "" {
			return list, nil
		}
		if !p.take(",") {
			if strings.ContainsAny(p.rest[:1], "=!~<>") {
				return nil, p.errorf("expected one of the operators == != ~=")
			}
			return nil, p.errorf("expected a comma")
		}
		p.blanks()
	}
}

func (p *parser) selector() (selector, error) {
	var s selector
	for {
		name, err := p.name()
		if err != nil {
			return s, err
		}
		s.path = append(s.path, name)
		if !p.take(".") {
			break
		}
	}
	p.blanks()
	for _, op := range [...]operator{equal, notEqual, matches} {
		if p.take(string(op)) {
			s.op = op
			break
		}
	}
	if s.op == present {
		return s, nil
	}
	p.blanks()
	at := *p
	var err error
	if s.value, err = p.value(); err != nil {
		return s, err
	}
	if s.op == matches {
		if s.re, err = regexp.Compile(s.value); err != nil {
			return s, fmt.Errorf("%w: %w", at.errorf("not a regular expression"), err)
		}
	}
	return s, nil
}

func (p *parser) name() (string, error) {
	if strings.HasPrefix(p.rest, `"`) {
		return p.goQuoted()
	}
	n := 0
	for n < len(p.rest) && isNameChar(p.rest[n], n == 0) {
		n++
	}
	if n == 0 {
		return "", p.errorf("expected the name of a field")
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name, nil
}

func isNameChar(c byte, first bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		return true
	case c >= '0' && c <= '9', c == '-':
		return !first
	default:
		return false
	}
}

func (p *parser) value() (string, error) {
	switch {
	case p.rest == "":
		return "", p.errorf("expected a value")
	case p.rest[0] == '"':
		return p.goQuoted()
	case p.rest[0] == '/' || p.rest[0] == '|':
		if v, ok := p.delimited(); ok {
			return v, nil
		}
	}
	n := strings.IndexAny(p.rest, ", \t\r\n")
	if n < 0 {
		n = len(p.rest)
	}
	if n == 0 {
		return "", p.errorf("expected a value")
	}
	v := p.rest[:n]
	p.rest = p.rest[n:]
	return v, nil
}

func (p *parser) goQuoted() (string, error) {
	q, err := strconv.QuotedPrefix(p.rest)
	if err != nil {
		return "", p.errorf("quotes do not close")
	}
	s, err := strconv.Unquote(q)
	if err != nil {
		return "", p.errorf("bad escape in quotes")
	}
	p.rest = p.rest[len(q):]
	return s, nil
}

// delimited parses a value between two slashes or bars that ends the selector; otherwise
// the delimiter is the first character of a plain value, such as a path.
func (p *parser) delimited() (string, bool) {
	d := p.rest[0]
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '\\' && i+1 < len(p.rest) && p.rest[i+1] == d:
			b.WriteByte(d)
			i++
		case c == d:
			after := p.rest[i+1:]
			if after != "" && !strings.ContainsAny(after[:1], ", \t\r\n") {
				return "", false
			}
			p.rest = after
			return b.String(), true
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

func (p *parser) blanks() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *parser) take(s string) bool {
	rest, ok := strings.CutPrefix(p.rest, s)
	p.rest = rest
	return ok
}

// errorf adds the position, counted from 1, and the text at that position to an error.
func (p *parser) errorf(what string) error {
	at := utf8.RuneCountInString(p.text[:len(p.text)-len(p.rest)]) + 1
	if p.rest == "" {
		return errors.New(what + " at its end, character " + strconv.Itoa(at))
	}
	return fmt.Errorf("%s at character %d, before %.32q", what, at, p.rest)
}
