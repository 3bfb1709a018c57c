package spec

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// Image is the part of an image's configuration about running it.
type Image struct {
	// User is USER[:GROUP], by name or number.
	User       string
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	StopSignal string
	Volumes    map[string]struct{}
}

// ParseImage parses an image's configuration. Like Docker it accepts a field that is null
// or missing, a command that is one string, and an entrypoint of one empty string, which means none; a field of
// another type is treated as missing. Anything but a JSON object is errdefs.ErrInvalidArgument.
func ParseImage(config []byte) (Image, error) {
	var doc struct {
		Config json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(config, &doc); err != nil {
		return Image{}, fmt.Errorf("read image configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	var fields struct {
		User, Env, Entrypoint, Cmd, WorkingDir, StopSignal, Volumes json.RawMessage
	}
	if json.Unmarshal(doc.Config, &fields) != nil {
		return Image{}, nil //nolint:nilerr // null, missing or not an object
	}
	image := Image{
		User: text(fields.User), Env: texts(fields.Env), Entrypoint: texts(fields.Entrypoint), Cmd: texts(fields.Cmd),
		WorkingDir: text(fields.WorkingDir), StopSignal: text(fields.StopSignal), Volumes: set(fields.Volumes),
	}
	if len(image.Entrypoint) == 1 && image.Entrypoint[0] == "" {
		image.Entrypoint = nil
	}
	return image, nil
}

// text parses a string or a number.
func text(raw json.RawMessage) string {
	var s string
	var n json.Number
	switch {
	case json.Unmarshal(raw, &s) == nil:
		return s
	case json.Unmarshal(raw, &n) == nil:
		return n.String()
	}
	return ""
}

// texts parses a list of strings, or one string.
func texts(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return list
	}
	if s := text(raw); s != "" {
		return []string{s}
	}
	return nil
}

// set parses the names of an object's members, or a list of names.
func set(raw json.RawMessage) map[string]struct{} {
	var object map[string]json.RawMessage
	names := texts(raw)
	if json.Unmarshal(raw, &object) == nil {
		for name := range object {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	out := make(map[string]struct{}, len(names))
	for _, name := range names {
		out[name] = struct{}{}
	}
	return out
}
