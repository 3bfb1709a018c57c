package guest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/cleatproject/cleat/internal/guest"
)

func TestInside(t *testing.T) {
	host, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	if !guest.Inside(t, guest.Options{Overlay: "metacopy=on redirect_dir=on", Env: []string{"HOST_RELEASE=" + string(host), "QUOTED=a 'b' c"}}) {
		if os.Getenv("QUOTED") != "" {
			t.Error("the guest's environment is the host's")
		}
		return
	}
	if strings.TrimSpace(os.Getenv("HOST_RELEASE")) == strings.TrimSpace(string(host)) || os.Getenv("QUOTED") != "a 'b' c" {
		t.Errorf("release %q, environment %q", host, os.Environ())
	}
	metacopy, err := os.ReadFile("/sys/module/overlay/parameters/metacopy")
	if err != nil || strings.TrimSpace(string(metacopy)) != "Y" {
		t.Errorf("overlay's metacopy is %q, %v", metacopy, err)
	}
	if dir := t.TempDir(); !strings.HasPrefix(dir, "/run/") {
		t.Errorf("work is done in %s", dir)
	}
}
