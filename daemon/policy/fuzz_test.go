package policy

import (
	"bytes"
	"encoding/json"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// An accepted spec is canonical, is accepted again unchanged, and has none of the parts that no policy allows.
func FuzzSpec(f *testing.F) {
	raw, err := json.Marshal(&specs.Spec{Linux: &specs.Linux{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"hooks":{"prestart":[{"path":"/x"}]},"Hooks":{}}`))
	f.Add([]byte(`{"linux":{"namespaces":[{"type":"mount"}]},"mounts":[{"type":"tmpfs","options":["bind"]}]}`))
	p := &Policy{UID: user, Flags: []Flag{HostNetwork, HostPID, HostIPC, HostUTS, HostCgroup, Unconfined, Devices, Capabilities}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := p.Spec(raw, options())
		if err != nil {
			return
		}
		again, err := p.Spec(got, options())
		if err != nil || !bytes.Equal(got, again) {
			t.Errorf("accepted once: %s, then %s, %v", got, again, err)
		}
		var s specs.Spec
		if err := json.Unmarshal(got, &s); err != nil {
			t.Fatal(err)
		}
		for _, m := range s.Mounts {
			if m.Type == "bind" || m.Source != "" && m.Type == "" {
				t.Errorf("a mount of the host was accepted: %+v", m)
			}
		}
		if h := s.Hooks; h != nil && len(h.CreateRuntime)+len(h.CreateContainer)+len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) > 0 {
			t.Errorf("hooks were accepted: %+v", h)
		}
		if s.Root != nil && len(s.Root.Path) > 0 && s.Root.Path[0] == '/' {
			t.Errorf("a root of the host was accepted: %q", s.Root.Path)
		}
	})
}
