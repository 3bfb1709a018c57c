package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image/registry/registrytest"
	"github.com/cleatproject/cleat/integration/fixture"
	"github.com/cleatproject/cleat/integration/harness"
)

// TestImageConfig_FieldsThatDockerTolerates pulls, runs, commits and converts images whose configuration has missing
// or invalid fields.
func TestImageConfig_FieldsThatDockerTolerates(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	reg := fixture.StartFakeRegistry(t, registrytest.Quirk{})
	layer := harness.TarOf(t, harness.BusyboxFiles(t))
	for name, c := range map[string]struct{ config, want string }{
		"no-architecture":    {`{"os":"linux","config":{"Cmd":["echo","ok"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "ok"},
		"no-platform":        {`{"config":{"Cmd":["echo","ok"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "ok"},
		"null-platform":      {`{"architecture":null,"os":null,"config":{"Cmd":["echo","ok"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "ok"},
		"no-rootfs-type":     {`{"architecture":"amd64","os":"linux","config":{"Cmd":["echo","ok"]},"rootfs":{"diff_ids":LAYERS}}`, "ok"},
		"null-config":        {`{"architecture":"amd64","os":"linux","config":null,"rootfs":{"type":"layers","diff_ids":LAYERS}}`, ""},
		"no-config":          {`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":LAYERS}}`, ""},
		"empty-entrypoint":   {`{"architecture":"amd64","os":"linux","config":{"Entrypoint":[""],"Cmd":["echo","ok"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "ok"},
		"no-entrypoint":      {`{"architecture":"amd64","os":"linux","config":{"Entrypoint":[],"Cmd":["echo","ok"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "ok"},
		"text-entrypoint":    {`{"architecture":"amd64","os":"linux","config":{"Entrypoint":"/bin/echo","Cmd":"ok"},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "ok"},
		"null-fields":        {`{"architecture":"amd64","os":"linux","config":{"ExposedPorts":null,"Volumes":null,"Labels":null,"Env":null,"Entrypoint":null,"OnBuild":null,"Healthcheck":null,"User":null,"WorkingDir":null,"StopSignal":null,"Cmd":["/bin/echo","ok"]},"history":null,"created":null,"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "ok"},
		"empty-created":      {`{"created":"","architecture":"amd64","os":"linux","config":{"Cmd":["/bin/echo","ok"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "ok"},
		"number-user":        {`{"architecture":"amd64","os":"linux","config":{"User":1000,"Cmd":["/bin/id","-u"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "1000"},
		"relative-directory": {`{"architecture":"amd64","os":"linux","config":{"WorkingDir":"srv","Cmd":["/bin/pwd"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "/srv"},
		"bare-variables":     {`{"architecture":"amd64","os":"linux","config":{"Env":["A","B=b","=x"],"Cmd":["/bin/sh","-c","/bin/echo $B"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`, "b"},
		"other-types":        {`{"architecture":["amd64"],"os":{},"author":7,"config":{"Labels":[],"ExposedPorts":["80"],"Volumes":[],"Cmd":["/bin/echo","ok"]},"history":{},"rootfs":{"type":7,"diff_ids":LAYERS}}`, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			reg.Image("c/"+name, "1", c.config, layer)
			ref := reg.Host + "/c/" + name + ":1"
			d.Cleat("pull", "--quiet", ref)
			args := []string{"run", "--name", name, ref}
			if c.want == "" {
				args = append(args, "/bin/true")
			}
			if out, errs, code := d.Try(args...); code != 0 || strings.TrimSpace(out) != c.want {
				t.Errorf("exit code %d: %q %s", code, out, errs)
			}
			for _, command := range [][]string{
				{"image", "inspect", ref},
				{"image", "export", "--output", filepath.Join(t.TempDir(), "out.tar"), ref},
				{"image", "convert", ref, "converted:1", "--gzip"},
				{"run", "--rm", "converted:1", "/bin/true"},
				{"push", "--quiet", reg.Host + "/pushed/" + name + ":1", ref},
			} {
				if out, errs, code := d.Try(command...); code != 0 {
					t.Errorf("%q: exit code %d: %s%s", command, code, out, errs)
				}
			}
			d.Cleat("rm", name)
		})
	}
}

// TestPlatform_SelectsFilesAndConfiguration checks that each command with a platform uses its files together with its
// configuration.
func TestPlatform_SelectsFilesAndConfiguration(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	reg := fixture.StartFakeRegistry(t, registrytest.Quirk{})
	var parts []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64", "riscv64"} {
		config := `{"architecture":"` + arch + `","os":"linux","config":{"Env":["PATH=/bin","ARCH=` + arch + `"]},"rootfs":{"type":"layers","diff_ids":LAYERS}}`
		part := reg.Image("p/multi", "", config, harness.TarOf(t, harness.BusyboxFiles(t)), harness.TarOf(t, []harness.File{{Name: "arch", Mode: 0o644, Body: arch}}))
		reg.Image("p/only", arch, config, harness.TarOf(t, harness.BusyboxFiles(t)), harness.TarOf(t, []harness.File{{Name: "arch", Mode: 0o644, Body: arch}}))
		part.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		parts = append(parts, part)
	}
	index(reg, "p/multi", "1", parts...)
	d.Cleat("pull", "--quiet", "--all-platforms", reg.Host+"/p/multi:1")
	mountpoint := t.TempDir()
	check := func(ref, platform, arch string) {
		t.Helper()
		var flags []string
		if platform != "" {
			flags = []string{"--platform", platform}
		}
		run := append(append([]string{"run", "--name", "c"}, flags...), ref, "sh", "-c", "echo $(cat /arch) $ARCH; echo $ARCH >/made")
		if out, errs, code := d.Try(run...); code != 0 || out != arch+" "+arch+"\n" {
			t.Errorf("%q: exit code %d: %q %s", run, code, out, errs)
		}
		// A commit has both from the container, not from the host.
		d.Cleat("commit", "c", "committed:1")
		d.Cleat("rm", "c")
		run = append(append([]string{"run", "--rm"}, flags...), "committed:1", "sh", "-c", "echo $(cat /arch) $ARCH $(cat /made)")
		if out, errs, code := d.Try(run...); code != 0 || out != arch+" "+arch+" "+arch+"\n" {
			t.Errorf("%q: exit code %d: %q %s", run, code, out, errs)
		}
		if out := d.Cleat(append(append([]string{"image", "inspect"}, flags...), ref)...); !strings.Contains(out, "ARCH="+arch) {
			t.Errorf("inspect --platform %s: %s", platform, out)
		}
		d.Cleat(append(append([]string{"image", "mount"}, flags...), ref, mountpoint)...)
		if got, err := os.ReadFile(filepath.Join(mountpoint, "arch")); string(got) != arch {
			t.Errorf("mount --platform %s: %s, %v", platform, got, err)
		}
		d.Cleat("image", "unmount", mountpoint)
	}
	check(reg.Host+"/p/multi:1", "", "amd64")
	for _, arch := range []string{"arm64", "riscv64", "amd64", "arm64"} { // the repetition shows that nothing is cached wrongly
		check(reg.Host+"/p/multi:1", "linux/"+arch, arch)
		ref := reg.Host + "/p/only:" + arch
		d.Cleat("pull", "--quiet", "--platform", "linux/"+arch, ref)
		check(ref, "linux/"+arch, arch)
		// One of several platforms, in an archive and at a registry.
		archive := filepath.Join(t.TempDir(), "a.tar")
		d.Cleat("image", "export", "--platform", "linux/"+arch, "--output", archive, reg.Host+"/p/multi:1")
		d.Cleat("-n", "other", "image", "import", "--platform", "linux/"+arch, archive)
		if out, errs, code := d.Try("-n", "other", "run", "--rm", "--platform", "linux/"+arch, reg.Host+"/p/multi:1", "sh", "-c", "echo $(cat /arch) $ARCH"); code != 0 || out != arch+" "+arch+"\n" {
			t.Errorf("imported for %s: exit code %d: %q %s", arch, code, out, errs)
		}
		d.Cleat("image", "convert", "--platform", "linux/"+arch, "--gzip", reg.Host+"/p/multi:1", "converted:1")
		check("converted:1", "linux/"+arch, arch)
	}
	if _, errs, code := d.Try("run", "--rm", reg.Host+"/p/only:arm64", "true"); code == 0 || !strings.Contains(errs, "linux/arm64") {
		t.Errorf("run of an image for another platform: exit code %d: %s", code, errs)
	}
}
