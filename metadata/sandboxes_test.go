package metadata

import (
	"errors"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSandboxes(t *testing.T) {
	db := openTest(t)
	want := Sandbox{
		ID: "pod", Runtime: Runtime{"io.containerd.cleat.v2", &Any{"opts", []byte{1, 0, 2}}}, Spec: &Any{"spec", []byte("{}")},
		Labels: map[string]string{"a.b": "1"}, Extensions: map[string]Any{"x": {"t", []byte("v")}}, Sandboxer: "podsandbox",
	}
	update(t, db, func(tx *Tx) (err error) { want, err = tx.Sandboxes("ns").Create(want); return err })
	for filter, found := range map[string]int{
		"id==pod": 1, "id==no": 0, `labels."a.b"==1`: 1, "runtime.name~=cleat": 1, "sandboxer!=podsandbox": 0,
	} {
		view(t, db, func(tx *Tx) error {
			list, err := tx.Sandboxes("ns").List(filter)
			if len(list) != found || found == 1 && !reflect.DeepEqual(list[0], want) {
				t.Errorf("%s: %+v", filter, list)
			}
			return err
		})
	}
	refused(t, db, errdefs.IsAlreadyExists, func(tx *Tx) error { _, err := tx.Sandboxes("ns").Create(want); return err })
	refused(t, db, errdefs.IsInvalidArgument, func(tx *Tx) error { _, err := tx.Sandboxes("ns").Create(Sandbox{ID: "x"}); return err })
	refused(t, db, errdefs.IsInvalidArgument, func(tx *Tx) error {
		_, err := tx.Sandboxes("ns").Update(want, "sandboxer")
		return err
	})
	update(t, db, func(tx *Tx) error {
		v, err := tx.Sandboxes("ns").Update(Sandbox{ID: "pod", Labels: map[string]string{"c": "2"}}, "labels.c", "extensions")
		if len(v.Labels) != 2 || len(v.Extensions) != 0 || v.Spec == nil || v.Sandboxer != "podsandbox" {
			t.Errorf("updated to %+v", v)
		}
		return err
	})
	refused(t, db, errdefs.IsFailedPrecondition, func(tx *Tx) error { return tx.Namespaces().Delete("ns") })
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.Sandboxes("ns").Delete("pod"), tx.Namespaces().Delete("ns"))
	})
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { return tx.Sandboxes("ns").Delete("pod") })
}
