package goclient

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// TestCtr_Containerd2 runs the main commands of containerd 2's ctr. It uses the transfer, streaming, sandbox and
// mounts services; the older ctr works without them.
func TestCtr_Containerd2(t *testing.T) {
	dir := t.TempDir()
	ctr := filepath.Join(dir, "ctr")
	if out, err := exec.Command("go", "build", "-o", ctr, "github.com/containerd/containerd/v2/cmd/ctr").CombinedOutput(); err != nil {
		t.Fatalf("build ctr: %v\n%s", err, out)
	}
	d := harness.Start(t)
	ref := harness.StartRegistry(t, harness.RegistryOptions{}).Host + "/team/busybox:1"
	archive, exported, mnt := filepath.Join(dir, "in.tar"), filepath.Join(dir, "out.tar"), filepath.Join(dir, "mnt")
	harness.Must(t, os.WriteFile(archive, harness.Image(t, imageName), 0o600))
	harness.Must(t, os.Mkdir(mnt, 0o700))
	sandbox := filepath.Join(dir, "sandbox.json")
	harness.Must(t, os.WriteFile(sandbox, []byte(`{"ociVersion":"1.0.2"}`), 0o600))
	for _, step := range []struct {
		args, shows string // expected in stdout
		code        int
	}{
		{"version", "UUID:", 0},
		{"plugins ls id==overlayfs", "ok", 0},
		{"images import " + archive, "", 0}, // its progress may be cut off at the end
		{"images ls -q", imageName, 0},
		{"images inspect " + imageName, "application/vnd.oci.image.layer.v1.tar", 0},
		{"run --rm " + imageName + " c1 /bin/cat /etc/layer", "two\n", 0},
		{"run --rm " + imageName + " c2 /bin/false", "", 1},
		{"images tag " + imageName + " " + ref, ref, 0},
		{"images push --plain-http " + ref, "", 0},
		{"-n other images pull --plain-http " + ref, "", 0},
		{"-n other images ls -q", ref, 0},
		{"-n other run --rm " + ref + " c3 /bin/echo pulled", "pulled\n", 0},
		{"images export " + exported + " " + imageName, "", 0},
		{"-n third images import " + exported, "", 0},
		{"-n third images ls -q", imageName, 0},
		{"images mount " + imageName + " " + mnt, mnt, 0},
		{"images unmount --rm " + mnt, mnt, 0},
		{"run -d " + imageName + " c4 /bin/sleep 1000", "", 0},
		{"tasks exec --exec-id e1 c4 /bin/echo in", "in\n", 0},
		{"tasks metrics c4", "METRIC", 0},
		{"tasks pause c4", "", 0},
		{"tasks ls", "PAUSED", 0},
		{"tasks resume c4", "", 0},
		{"tasks rm --force c4", "", 0},
		{"containers rm c4", "", 0},
		{"sandboxes run " + sandbox + " pod", "pod", 0},
		{"run --rm --sandbox pod " + imageName + " c5 /bin/echo inside", "inside\n", 0},
		{"sandboxes ls", "pod", 0},
		{"sandboxes rm pod", "", 0},
		{"images pull --plain-http " + ref + "-absent", "", 1},
		{"leases ls -q", "", 0},
	} {
		once := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), harness.Limit)
			defer cancel()
			cmd := exec.CommandContext(ctx, ctr, append([]string{"--address", d.Address}, strings.Fields(step.args)...)...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, harness.Limit
			err := cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != step.code || !strings.Contains(out.String(), step.shows) {
				return fmt.Errorf("ctr %s: code %d, %w\n%s%s", step.args, code, err, out.String(), errs.String())
			}
			return nil
		}
		switch {
		case strings.HasPrefix(step.args, "tasks metrics"): // a shim that takes long is left out
			harness.Eventually(t, "metrics are present", once)
		case strings.Contains(step.args, "run --rm "), strings.HasPrefix(step.args, "tasks exec"):
			// ctr abandons FIFOs that it has not opened when it receives the exit, with their contents.
			harness.Eventually(t, "a program's output is shown", once)
		default:
			if err := once(); err != nil {
				t.Error(err)
			}
		}
	}
}
