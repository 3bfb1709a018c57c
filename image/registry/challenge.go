package registry

import (
	"net/http"
	"net/url"
	"strings"
)

// challenge is an authentication method that a server offers (RFC 9110, section 11.3).
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// oneChallenge replaces the challenges of an answer, which may be in one header or in several, by
// the one that is used: the client that answers it reads only the first. A token is preferred to a
// password. Challenges of other schemes are dropped unless there are no others.
func oneChallenge(resp *http.Response) {
	const name = "Www-Authenticate"
	best := ""
	for _, c := range parseChallenges(resp.Header.Values(name)) {
		switch {
		case c.scheme == "bearer" && c.realm(resp.Request) != "":
			resp.Header[name] = []string{c.bearer(resp.Request)}
			return
		case c.scheme == "basic" && best == "":
			best = "Basic realm=" + quoted(c.params["realm"])
		}
	}
	if best != "" {
		resp.Header[name] = []string{best}
	}
}

// realm returns the absolute URL of the token server; "" if the challenge states none.
func (c challenge) realm(req *http.Request) string {
	u, err := url.Parse(c.params["realm"])
	if err != nil || c.params["realm"] == "" {
		return ""
	}
	if req != nil && req.URL != nil {
		u = req.URL.ResolveReference(u)
	}
	if u.Host == "" {
		return ""
	}
	return u.String()
}

// bearer formats the challenge with the relevant parameters.
func (c challenge) bearer(req *http.Request) string {
	text := "Bearer realm=" + quoted(c.realm(req))
	for _, name := range []string{"service", "scope"} {
		if v := c.params[name]; v != "" {
			text += "," + name + "=" + quoted(v)
		}
	}
	return text
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// parseChallenges parses the challenges of headers in their order. A syntax error ends a header.
func parseChallenges(headers []string) []challenge {
	var out []challenge
	for _, rest := range headers {
		current := -1
		for {
			rest = strings.TrimLeft(rest, " \t,")
			word, after := cutToken(rest)
			if word == "" {
				break
			}
			value, next, isParam := cutValue(after)
			if isParam && current >= 0 {
				if name := strings.ToLower(word); out[current].params[name] == "" {
					out[current].params[name] = value
				}
				rest = next
				continue
			}
			out = append(out, challenge{scheme: strings.ToLower(word), params: make(map[string]string)})
			current = len(out) - 1
			rest = skipToken68(after)
		}
	}
	return out
}

// cutToken cuts a token from the beginning.
func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

// cutValue cuts "=VALUE" from the beginning, quoted or not. An unquoted value may contain what a token may not,
// such as the slashes of a URL, because some servers send it that way.
func cutValue(s string) (value, rest string, ok bool) {
	s, ok = strings.CutPrefix(strings.TrimLeft(s, " \t"), "=")
	if !ok {
		return "", "", false
	}
	s = strings.TrimLeft(s, " \t")
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, ", \t")
		if i < 0 {
			return s, "", true
		}
		return s[:i], s[i:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), "", true
}

// skipToken68 skips the data that a scheme such as Negotiate may have instead of parameters.
func skipToken68(s string) string {
	trimmed := strings.TrimLeft(s, " \t")
	end := strings.IndexAny(trimmed, ", \t")
	word := trimmed
	if end >= 0 {
		word = trimmed[:end]
	}
	if bare := strings.TrimRight(word, "="); bare == "" || strings.ContainsAny(bare, `="`) {
		return s // a parameter, or nothing
	}
	// A word without a value: data if only a comma or the end follows.
	after := strings.TrimLeft(trimmed[len(word):], " \t")
	if after != "" && after[0] != ',' {
		return s
	}
	return after
}
