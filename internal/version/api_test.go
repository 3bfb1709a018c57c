package version

import (
	"regexp"
	"testing"
)

func TestAPI_IsSemanticVersion(t *testing.T) {
	semantic := regexp.MustCompile(`^\d+\.\d+\.\d+\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*$`)
	for _, v := range []string{"v1.2.3", "878f090-dirty", "v0.0.0-20250101+dirty", "devel", "a b/c"} {
		if api := Containerd + own + metadata(v); !semantic.MatchString(api) {
			t.Errorf("%s is not a semantic version", api)
		}
	}
	if cleat, containerd := Split(API()); cleat != metadata(Version()) || containerd != Containerd {
		t.Errorf("split into %q and %q", cleat, containerd)
	}
	if cleat, containerd := Split("1.7.0"); cleat != "" || containerd != "1.7.0" {
		t.Errorf("another daemon's is split into %q and %q", cleat, containerd)
	}
}
