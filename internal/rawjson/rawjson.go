// Package rawjson edits JSON objects of which only some members are known. The others are preserved, including
// those of later versions of a format.
package rawjson

import (
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
)

// Object is a JSON object by its members.
type Object map[string]json.RawMessage

// Parse parses an object. Anything else, null included, is an invalid argument.
func Parse(data []byte) (Object, error) {
	var o Object
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if o == nil {
		return nil, fmt.Errorf("not a JSON object: null: %w", errdefs.ErrInvalidArgument)
	}
	return o, nil
}

// Get decodes a member into v. If it is missing, v is unchanged; a value of another type is an invalid argument.
func (o Object) Get(member string, v any) error {
	raw, ok := o[member]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("member %s: %w: %w", member, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Set replaces a member.
func (o Object) Set(member string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode member %s: %w", member, err)
	}
	o[member] = raw
	return nil
}

// Child decodes a member that is an object; empty if it is missing or null. It is a copy.
func (o Object) Child(member string) (Object, error) {
	var c Object
	err := o.Get(member, &c)
	if c == nil {
		c = Object{}
	}
	return c, err
}

// Encode returns the object's text, with sorted members: the same object has the same text.
func (o Object) Encode() ([]byte, error) {
	raw, err := json.Marshal(map[string]json.RawMessage(o))
	if err != nil {
		return nil, fmt.Errorf("encode object: %w", err)
	}
	return raw, nil
}
