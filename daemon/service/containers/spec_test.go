package containers

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/daemon/service/snapshots"
	"github.com/cleatproject/cleat/internal/userdb"
)

func decode(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var v map[string]any
	must(t, json.Unmarshal(data, &v))
	return v
}

// complete parses a spec, sets a user where one is given, and completes it.
func complete(in, rootfs string, who *userdb.Identity) ([]byte, error) {
	p, err := parseSpec([]byte(in))
	if err != nil {
		return nil, err
	}
	if who != nil {
		if err := p.setUser(*who); err != nil {
			return nil, err
		}
	}
	return p.complete(ProcessDefaults{}, "/cleat/ns/id", rootfs)
}

func TestCompleteSpec_KeepsPresentMembers(t *testing.T) {
	in := `{"ociVersion":"1.9","future":{"x":1},"process":{"args":["sh"],"user":{"umask":18}},"linux":{"seccomp":{"y":2}},"root":{"readonly":true}}`
	got, err := complete(in, "", &userdb.Identity{UID: 3, GID: 4, Groups: []uint32{5}})
	must(t, err)
	want := `{"ociVersion":"1.9","future":{"x":1},
		"process":{"args":["sh"],"user":{"umask":18,"uid":3,"gid":4,"additionalGids":[5]}},
		"linux":{"seccomp":{"y":2},"cgroupsPath":"/cleat/ns/id"},"root":{"readonly":true,"path":"rootfs"}}`
	if !reflect.DeepEqual(decode(t, got), decode(t, []byte(want))) {
		t.Fatalf("%s", got)
	}
}

func TestCompleteSpec_KeepsGivenCgroup(t *testing.T) {
	got, err := complete(`{"linux":{"cgroupsPath":"/mine"}}`, "/dir", nil)
	must(t, err)
	v := decode(t, got)
	if v["linux"].(map[string]any)["cgroupsPath"] != "/mine" || v["root"].(map[string]any)["path"] != "/dir" {
		t.Fatalf("%s", got)
	}
}

func TestCompleteSpec_InvalidSpec_Fails(t *testing.T) {
	for _, in := range []string{"", "null", "[]", "7", `{"linux":7}`, `{"process":[]}`, `{"linux":{"cgroupsPath":{}}}`, `{"root":"x"}`} {
		if got, err := complete(in, "", nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
}

func FuzzCompleteSpec(f *testing.F) {
	f.Add([]byte(`{"process":{"user":{"uid":1}},"linux":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := complete(string(data), "", &userdb.Identity{})
		if err == nil && !json.Valid(got) {
			t.Fatalf("%s", got)
		}
	})
}

func TestOwnerLabels_ListEachMapping(t *testing.T) {
	spec, err := parseSpec([]byte(`{"linux":{"uidMappings":[{"containerID":0,"hostID":5,"size":1},{"containerID":1,"hostID":9,"size":2}],"gidMappings":[{"containerID":0,"hostID":5,"size":3}]}}`))
	must(t, err)
	made, err := spec.ownerLabels()
	if err != nil || made[snapshots.LabelUIDMapping] != "0:5:1,1:9:2" || made[snapshots.LabelGIDMapping] != "0:5:3" {
		t.Errorf("%v, %v", made, err)
	}
}
