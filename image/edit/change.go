package edit

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/cleatproject/cleat/internal/rawjson"
)

// Change is a Dockerfile instruction that changes an image's configuration.
type Change struct{ verb, text string }

// instruction changes the configuration's member "config".
type instruction func(config rawjson.Object, text string) error

func instructions() map[string]instruction {
	return map[string]instruction{
		"CMD": setCommand("Cmd"), "ENTRYPOINT": setCommand("Entrypoint"), "ENV": setEnv, "LABEL": setLabels,
		"EXPOSE": setPorts, "VOLUME": setVolumes, "WORKDIR": setWorkdir, "USER": setWord("User"), "STOPSIGNAL": setStopSignal,
	}
}

// ParseChange parses an instruction. An unknown instruction, or one without arguments, is an invalid
// argument.
func ParseChange(text string) (Change, error) {
	verb, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	c := Change{verb: strings.ToUpper(verb), text: strings.TrimSpace(rest)}
	if instructions()[c.verb] == nil {
		return c, invalidf("change %.200q: want CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR", text)
	}
	if strings.ContainsAny(text, "\n\r\x00") {
		return c, invalidf("change %.200q: want one line", text)
	}
	if c.text == "" {
		return c, invalidf("change %s: no argument", c.verb)
	}
	if strings.Contains(c.text, "$") {
		return c, nil // its meaning depends on the image
	}
	return c, c.apply(rawjson.Object{})
}

func (c Change) apply(config rawjson.Object) error {
	if err := instructions()[c.verb](config, c.text); err != nil {
		return fmt.Errorf("change %s %.200s: %w", c.verb, c.text, err)
	}
	return nil
}

// applyChanges changes the configuration of an image. As in a Dockerfile, an ENTRYPOINT removes the
// image's own command.
func applyChanges(config rawjson.Object, changes []Change) error {
	has := func(verb string) bool {
		return slices.ContainsFunc(changes, func(c Change) bool { return c.verb == verb })
	}
	if has("ENTRYPOINT") && !has("CMD") {
		delete(config, "Cmd")
	}
	for _, c := range changes {
		if err := c.apply(config); err != nil {
			return err
		}
	}
	return nil
}

// words splits a text into words, expanding variables of the image's environment.
func words(config rawjson.Object, text string) ([]string, error) {
	var env []string
	if err := config.Get("Env", &env); err != nil {
		return nil, err
	}
	return splitWords(text, func(name string) string {
		for _, e := range env {
			if value, ok := strings.CutPrefix(e, name+"="); ok {
				return value
			}
		}
		return ""
	})
}

func setCommand(member string) instruction {
	return func(config rawjson.Object, text string) error {
		args := []string{"/bin/sh", "-c", text}
		if strings.HasPrefix(text, "[") {
			args = nil
			if err := json.Unmarshal([]byte(text), &args); err != nil {
				return invalidf("not a JSON array of strings: %w", err)
			}
		}
		if len(args) == 0 { // [] removes it
			delete(config, member)
			return nil
		}
		return config.Set(member, args)
	}
}

// pairs parses NAME=VALUE..., or NAME VALUE.
func pairs(config rawjson.Object, text string) ([][2]string, error) {
	if name, value, ok := strings.Cut(text, " "); ok && !strings.Contains(name, "=") {
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		all, err := words(config, `"`+strings.ReplaceAll(value, `"`, `\"`)+`"`)
		if err != nil {
			return nil, err
		}
		return [][2]string{{name, all[0]}}, nil
	}
	all, err := words(config, text)
	if err != nil {
		return nil, err
	}
	var out [][2]string
	for _, w := range all {
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return nil, invalidf("%.200q: want NAME=VALUE", w)
		}
		out = append(out, [2]string{name, value})
	}
	return out, nil
}

func setEnv(config rawjson.Object, text string) error {
	list, err := pairs(config, text)
	if err != nil {
		return err
	}
	var env []string
	if err := config.Get("Env", &env); err != nil {
		return err
	}
	for _, p := range list {
		set := p[0] + "=" + p[1]
		if i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, p[0]+"=") }); i >= 0 {
			env[i] = set
		} else {
			env = append(env, set)
		}
	}
	return config.Set("Env", env)
}

func setLabels(config rawjson.Object, text string) error {
	list, err := pairs(config, text)
	if err != nil {
		return err
	}
	labels := make(map[string]string)
	if err := config.Get("Labels", &labels); err != nil {
		return err
	}
	if labels == nil { // null
		labels = make(map[string]string)
	}
	for _, p := range list {
		labels[p[0]] = p[1]
	}
	return config.Set("Labels", labels)
}

// addKeys adds to a set, which is an object with empty members.
func addKeys(config rawjson.Object, member string, keys []string) error {
	set := make(map[string]struct{})
	if err := config.Get(member, &set); err != nil {
		return err
	}
	if set == nil { // null
		set = make(map[string]struct{})
	}
	for _, k := range keys {
		set[k] = struct{}{}
	}
	return config.Set(member, set)
}

func setPorts(config rawjson.Object, text string) error {
	list, err := words(config, text)
	if err != nil {
		return err
	}
	for i, w := range list {
		port, protocol, ok := strings.Cut(w, "/")
		if !ok {
			protocol = "tcp"
		}
		from, to, isRange := strings.Cut(port, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		protocol = strings.ToLower(protocol)
		if err1 != nil || err2 != nil || a == 0 || a > b || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
			return invalidf("%.200q: want PORT[-PORT][/tcp|udp|sctp]", w)
		}
		list[i] = port + "/" + protocol
	}
	return addKeys(config, "ExposedPorts", list)
}

func setVolumes(config rawjson.Object, text string) (err error) {
	var list []string
	if strings.HasPrefix(text, "[") {
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return invalidf("not a JSON array of strings: %w", err)
		}
	} else if list, err = words(config, text); err != nil {
		return err
	}
	for _, v := range list {
		if !path.IsAbs(v) {
			return invalidf("%.200q: want an absolute path", v)
		}
	}
	return addKeys(config, "Volumes", list)
}

// word returns the only word of a text.
func word(config rawjson.Object, text string) (string, error) {
	list, err := words(config, text)
	if err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", invalidf("%d words, want one", len(list))
	}
	return list[0], nil
}

func setWord(member string) instruction {
	return func(config rawjson.Object, text string) error {
		w, err := word(config, text)
		if err != nil {
			return err
		}
		return config.Set(member, w)
	}
}

func setWorkdir(config rawjson.Object, text string) error {
	w, err := word(config, text)
	if err != nil {
		return err
	}
	var old string
	if err := config.Get("WorkingDir", &old); err != nil {
		return err
	}
	if !path.IsAbs(w) {
		w = path.Join("/", old, w)
	}
	return config.Set("WorkingDir", path.Clean(w))
}

func setStopSignal(config rawjson.Object, text string) error {
	w, err := word(config, text)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(w, 10, 8)
	isName := len(w) > 2 && strings.TrimLeft(w, "0123456789+-") == w && strings.Trim(w, signalLetters) == ""
	if (err != nil || n == 0 || n > 64) && !isName {
		return invalidf("%.200q is not a signal: want a name like SIGTERM or a number", w)
	}
	return config.Set("StopSignal", w)
}

// signalLetters are the characters of SIGTERM, SIGUSR1 and SIGRTMIN+3.
const signalLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"
