package rawjson

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestObject_KeepsUnknownMembers(t *testing.T) {
	o, err := Parse([]byte(`{"z":1.00,"known":{"a":"b","new":[null]},"nothing":null}`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := o.Child("known")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set("a", "c"); err != nil {
		t.Fatal(err)
	}
	if err := o.Set("known", c); err != nil {
		t.Fatal(err)
	}
	text, err := o.Encode()
	if want := `{"known":{"a":"c","new":[null]},"nothing":null,"z":1.00}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	for _, member := range []string{"missing", "nothing"} {
		if c, err := o.Child(member); err != nil || c == nil || len(c) != 0 {
			t.Errorf("%s: %v, %v, want an empty object", member, c, err)
		}
	}
	before := 7
	if err := o.Get("missing", &before); err != nil || before != 7 {
		t.Errorf("missing member: %d, %v", before, err)
	}
	if err := o.Get("known", &before); !errdefs.IsInvalidArgument(err) {
		t.Errorf("member of another type: %v", err)
	}
	if _, err := o.Child("z"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("child that is a number: %v", err)
	}
	if err := o.Set("f", func() {}); err == nil {
		t.Error("a function was encoded")
	}
}

func TestParse_RefusesOtherValues(t *testing.T) {
	for _, text := range []string{"", "null", "[]", "1", `"a"`, "{", "{} {}"} {
		if o, err := Parse([]byte(text)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v, %v", text, o, err)
		}
	}
}
