package containers

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
)

func TestProcessDefaults_FillMissingMembersOnly(t *testing.T) {
	all := ProcessDefaults{NoFile: 4096, ResetOOMScore: true}
	for name, c := range map[string]struct {
		defaults ProcessDefaults
		in, want string
	}{
		"empty": {
			all, `{"process":{}}`,
			`{"process":{"oomScoreAdj":0,"rlimits":[{"type":"RLIMIT_NOFILE","hard":4096,"soft":1024}]}}`,
		},
		"other limits are kept": {
			all, `{"process":{"rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":0}]}}`,
			`{"process":{"oomScoreAdj":0,"rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":0},{"type":"RLIMIT_NOFILE","hard":4096,"soft":1024}]}}`,
		},
		"null is open": {
			all, `{"process":{"oomScoreAdj":null,"rlimits":null}}`,
			`{"process":{"oomScoreAdj":0,"rlimits":[{"type":"RLIMIT_NOFILE","hard":4096,"soft":1024}]}}`,
		},
		"the spec's own": {
			all, `{"process":{"oomScoreAdj":-5,"rlimits":[{"type":"RLIMIT_NOFILE","hard":7,"soft":7}]},"x":[1]}`,
			`{"process":{"oomScoreAdj":-5,"rlimits":[{"type":"RLIMIT_NOFILE","hard":7,"soft":7}]},"x":[1]}`,
		},
		"a low host":        {ProcessDefaults{NoFile: 100}, `{"process":{}}`, `{"process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":100,"soft":100}]}}`},
		"nothing to set":    {ProcessDefaults{}, `{"process":{"args":["a"]}}`, `{"process":{"args":["a"]}}`},
		"without a process": {all, `{"hostname":"h"}`, `{"hostname":"h"}`},
		"a cgroup of the client's": {
			ProcessDefaults{},
			`{"process":{},"linux":{"cgroupsPath":"/kubepods/pod1/c"}}`,
			`{"process":{},"linux":{"cgroupsPath":"/kubepods/pod1/c"}}`,
		},
	} {
		got, err := c.defaults.complete([]byte(c.in))
		if err != nil || !reflect.DeepEqual(decode(t, got), decode(t, []byte(c.want))) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for _, in := range []string{`[]`, `{"process":7}`, `{"process":{"oomScoreAdj":"x"}}`, `{"process":{"rlimits":{}}}`} {
		if got, err := all.complete([]byte(in)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
}
