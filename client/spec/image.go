package spec

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// Image is what an image's configuration says about running it.
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

// ParseImage reads an image's configuration, as the image has it. Like Docker it accepts a field that is null
// or missing, a command that is one text, and an entrypoint of one empty text, which means none; a field of
// another type counts as missing. What is not a JSON object is errdefs.ErrInvalidArgument.
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
		return Image{}, nil // null, missing or not an object
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

// text reads a text or a number.
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

// texts reads a list of texts, or one text.
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

// set reads the names of an object's members, or a list of names.
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
