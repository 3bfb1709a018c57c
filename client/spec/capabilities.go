package spec

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCapabilities are the capabilities of a container by default.
func defaultCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
		"CAP_SYS_CHROOT",
	}
}

// everyCapability lists every capability of Linux, at its number.
func everyCapability() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
		"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE",
		"CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
		"CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
		"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
		"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
		"CAP_CHECKPOINT_RESTORE",
	}
}

// AllCapabilities returns every capability that this kernel supports and this process may pass on.
func AllCapabilities() (*specs.LinuxCapabilities, error) {
	return capabilities(Options{Privileged: true})
}

func capabilities(o Options) (*specs.LinuxCapabilities, error) {
	add := o.CapAdd
	if o.Privileged {
		add = append([]string{"ALL"}, add...)
	}
	caps, err := chooseCapabilities(add, o.CapDrop)
	if err != nil {
		return nil, err
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}, nil
}

// chooseCapabilities applies the dropped and added ones to the defaults; names take precedence over ALL,
// and dropping over adding.
func chooseCapabilities(add, drop []string) ([]string, error) {
	added, addAll, err := normalise(add)
	if err != nil {
		return nil, err
	}
	dropped, dropAll, err := normalise(drop)
	if err != nil {
		return nil, err
	}
	caps := defaultCapabilities()
	switch {
	case addAll:
		if caps, err = grantable("/proc/self/status"); err != nil {
			return nil, err
		}
	case dropAll:
		caps = nil
	}
	for _, c := range added {
		if !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	caps = slices.DeleteFunc(caps, func(c string) bool { return slices.Contains(dropped, c) })
	slices.Sort(caps)
	return caps, nil
}

func normalise(names []string) (caps []string, all bool, err error) {
	known := everyCapability()
	for _, name := range names {
		c := strings.ToUpper(strings.TrimSpace(name))
		if c == "ALL" {
			all = true
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if !slices.Contains(known, c) {
			return nil, false, invalid("capability %q: unknown", name)
		}
		caps = append(caps, c)
	}
	return caps, all, nil
}

// grantable are the capabilities that this kernel supports and this process may pass on, from its
// bounding set.
func grantable(status string) ([]string, error) {
	data, err := os.ReadFile(status)
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		value, ok := strings.CutPrefix(lines.Text(), "CapBnd:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("read own capabilities: %w", err)
		}
		var out []string
		for i, c := range everyCapability() {
			if set&(1<<i) != 0 {
				out = append(out, c)
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("read own capabilities: %s has no CapBnd line", status)
}
