package harness

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const insideEnv = "CLEAT_TEST_PID_NAMESPACE"

// InPIDNamespace returns true in a PID namespace that no other test uses. Outside of it, it runs the test in one,
// reports the result and returns false: the test must then return. Tests that choose the next PID need it, because
// processes of other tests could get it.
func InPIDNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" {
		return true
	}
	exe, err := os.Executable()
	Must(t, err)
	// The shell is PID 1 and reaps orphans.
	cmd := exec.CommandContext(t.Context(), "unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
		"sh", "-c", `"$@"; exit $?`, "sh", exe, "-test.v", "-test.count=1", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), insideEnv+"=1", BinariesEnv+"="+Binaries())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Fatalf("in a PID namespace: %v\n%s", err, out)
	}
	return false
}
