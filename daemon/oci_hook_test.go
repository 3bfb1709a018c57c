package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestOCIHook_ReplacesTemplates(t *testing.T) {
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(`{"root":{"path":"rootfs"},"annotations":{"k":"of the spec"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	state := `{"ociVersion":"1.0.0","id":"c","pid":42,"status":"created","bundle":"` + bundle + `","annotations":{"k":"v"}}`
	got, err := hookArguments([]string{
		"--", "/bin/{{annotation \"k\"}}", "{{id}}/{{pid}}", "--{{status}}", "{{bundle}}", "{{rootfs}}", `[{{annotation "none"}}]`, "plain",
	}, strings.NewReader(state))
	want := []string{"/bin/v", "c/42", "--created", bundle, bundle + "/rootfs", "[]", "plain"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	for name, tc := range map[string]struct {
		args  []string
		state string
	}{
		"no program":       {[]string{"--"}, state},
		"no function":      {[]string{"{{namespace}}"}, state},
		"no such template": {[]string{"{{id"}, state},
		"not a state":      {[]string{"x"}, "x"},
	} {
		if _, err := hookArguments(tc.args, strings.NewReader(tc.state)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := hookArguments([]string{"{{rootfs}}"}, strings.NewReader(`{"bundle":"/nonexistent"}`)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("rootfs without a bundle: %v", err)
	}
}
