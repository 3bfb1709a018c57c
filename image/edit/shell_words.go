package edit

import (
	"strings"
)

// splitWords splits a line at its blanks, as a Dockerfile does: quotes keep words together, a
// backslash escapes the next character, and outside single quotes $NAME and ${NAME} are replaced
// by the result of lookup.
func splitWords(text string, lookup func(string) string) ([]string, error) {
	s := wordSplitter{rest: text, lookup: lookup}
	for s.rest != "" {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	if s.quote != 0 {
		return nil, invalidf("%.200q: unclosed quote %c", text, s.quote)
	}
	s.end()
	return s.words, nil
}

type wordSplitter struct {
	rest   string
	lookup func(string) string
	word   strings.Builder
	begun  bool // also if the word is empty so far
	quote  byte
	words  []string
}

func (s *wordSplitter) next() error {
	c := s.rest[0]
	s.rest = s.rest[1:]
	switch {
	case s.quote == 0 && (c == ' ' || c == '\t'):
		s.end()
	case s.quote == 0 && (c == '"' || c == '\''):
		s.quote, s.begun = c, true
	case c == s.quote:
		s.quote = 0
	case c == '\\' && s.quote != '\'':
		if s.rest == "" {
			return invalidf("backslash at the end")
		}
		if s.quote == '"' && !strings.ContainsRune(`"\$`, rune(s.rest[0])) {
			s.add(`\`)
		}
		s.add(s.rest[:1])
		s.rest = s.rest[1:]
	case c == '$' && s.quote != '\'':
		return s.variable()
	default:
		s.add(string([]byte{c}))
	}
	return nil
}

func (s *wordSplitter) add(text string) {
	s.word.WriteString(text)
	s.begun = true
}

func (s *wordSplitter) end() {
	if s.begun {
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.begun = false
}

// variable expands the variable after a dollar sign.
func (s *wordSplitter) variable() error {
	if rest, ok := strings.CutPrefix(s.rest, "{"); ok {
		name, rest, ok := strings.Cut(rest, "}")
		if !ok || nameLength(name) != len(name) || name == "" {
			return invalidf("${%.100s: want ${NAME}", name)
		}
		s.rest = rest
		s.add(s.lookup(name))
		return nil
	}
	n := nameLength(s.rest)
	if n == 0 {
		s.add("$")
		return nil
	}
	s.add(s.lookup(s.rest[:n]))
	s.rest = s.rest[n:]
	return nil
}

// nameLength returns the length in bytes of the variable name at the beginning.
func nameLength(text string) int {
	for i := range len(text) {
		c := text[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(text)
}
