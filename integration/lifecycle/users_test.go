package lifecycle

import (
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// userCases are the forms of --user with the resulting ids: uid, gid, groups. A case without ids fails with a text.
func userCases() map[string]struct{ ids, text string } {
	const unknown, invalid = "a number need not", `: user "`
	return map[string]struct{ ids, text string }{
		"root":                 {ids: "0 0 0 10"},
		"0":                    {ids: "0 0 0 10"},
		"web":                  {ids: "1000 1001 10 50 1001"},
		"1000":                 {ids: "1000 1001 10 50 1001"},
		"web:staff":            {ids: "1000 50 50"},
		"web:7":                {ids: "1000 7 7"},
		"1000:7":               {ids: "1000 7 7"},
		"1000:staff":           {ids: "1000 50 50"},
		":staff":               {ids: "0 50 50"},
		"1234":                 {ids: "1234 0 0"},
		"5000":                 {ids: "5000 0 0"},
		"5000:6000":            {ids: "5000 6000 6000"},
		"2147483647":           {ids: "2147483647 0 0"},
		"last":                 {ids: "8 9 9 60"},
		"nobody":               {text: unknown},
		"web:nobody":           {text: unknown},
		"# accounts":           {text: unknown},
		"broken":               {text: unknown},
		"words":                {text: unknown},
		"web:words":            {text: unknown},
		"web:":                 {text: invalid},
		":":                    {text: invalid},
		"-1":                   {text: invalid},
		"minus":                {text: invalid},
		"high":                 {text: invalid},
		"web:high":             {text: invalid},
		"2147483648":           {text: invalid},
		"4294967296":           {text: invalid},
		"99999999999999999999": {text: invalid},
		"0:4294967296":         {text: invalid},
	}
}

const (
	userPasswd = "# accounts:x:0:0\nroot:x:0:0:root:/root:/bin/sh\nbroken\nwords:x:five:six:::\nweb:x:1000:1001::/:/bin/sh\n" +
		"web:x:0:0:::\n1234:x:77:78:::\nhigh:x:2147483648:5:::\nminus:x:-1:-1:::\nlast:x:8:9:::"
	userGroup = "root:x:0:\n# comment:x:0:web\nbroken\nwheel:x:10:root,web\nwords:x:ten:web\nstaff:x:50:web\nstaff:x:51:\n" +
		"high:x:2147483648:\ntail:x:60:other,last"
	showIDs = "echo $(id -u) $(id -g) $(grep ^Groups: /proc/self/status | cut -f2)"
)

// A process has the same ids, or fails with the same error, as the container's first process and as a later one.
func TestUsers_SameForRunAndExec(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Account("accounts", "", userPasswd, userGroup)
	d.Cleat("run", "-d", "--name", "long", "accounts", "sleep", "infinity")
	for user, want := range userCases() {
		t.Run(user, func(t *testing.T) {
			sameUser(d, t, "accounts", user, want.ids, want.text)
		})
	}
	d.Cleat("rm", "-f", "long")
}

// Account files that are missing, too long, or links of the kernel that could lead outside.
func TestUsers_SameForRunAndExecWithoutFiles(t *testing.T) {
	t.Parallel()
	d := harness.Start(t)
	d.Account("accounts", "", userPasswd, userGroup)
	d.Cleat("run", "-d", "--name", "long", "accounts", "sleep", "infinity")
	for name, plant := range map[string]string{
		"missing":  "rm -rf /etc/passwd",
		"gigantic": "rm -rf /etc/passwd; yes a:x:1:1 | head -c 8388608 >/etc/passwd",
		"link":     "rm -rf /etc/passwd; ln -s /proc/1/root/etc/group /etc/passwd",
	} {
		d.Cleat("exec", "long", "sh", "-c", plant)
		d.Cleat("commit", "long", name)
		for _, user := range []string{"web", "0", "1000"} {
			t.Run(name+" "+user, func(t *testing.T) {
				ids := ""
				if (name == "missing" || name == "link") && user != "web" {
					ids = user + " 0 0"
				}
				sameUser(d, t, name, user, ids, `: user "`)
			})
		}
	}
	d.Cleat("rm", "-f", "long")
}

// sameUser runs a process as a user in a new container of an image and in the container named long.
func sameUser(d *harness.Daemon, t *testing.T, image, user, ids, text string) {
	t.Helper()
	run, runErr, runCode := d.Try("run", "--rm", "--user", user, image, "sh", "-c", showIDs)
	exec, execErr, execCode := d.Try("exec", "--user", user, "long", "sh", "-c", showIDs)
	if ids != "" {
		if strings.TrimSpace(run) != ids || strings.TrimSpace(exec) != ids || runCode != 0 || execCode != 0 {
			t.Errorf("got %q (%s) and %q (%s), want %q", run, runErr, exec, execErr, ids)
		}
		return
	}
	cause := func(stderr string) string {
		_, after, _ := strings.Cut(stderr, ": user \"")
		return after
	}
	if runCode != 125 || execCode != 125 || !strings.Contains(runErr, text) || cause(runErr) == "" || cause(runErr) != cause(execErr) {
		t.Errorf("run: %d, %q, %s\nexec: %d, %q, %s", runCode, run, runErr, execCode, exec, execErr)
	}
}
