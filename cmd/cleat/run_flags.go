package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cleatproject/cleat/client/spec"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"
)

// stopSignalLabel is the container label that says how `stop` asks a container to end.
const stopSignalLabel = "cleat.io/stop-signal"

// processFlags are what run and exec have in common.
type processFlags struct {
	interactive, tty, detach bool
	env, envFiles            []string
	workdir, user            string
	privileged               bool
}

func (p *processFlags) declare(fs *pflag.FlagSet) {
	fs.BoolVarP(&p.interactive, "interactive", "i", false, "keep stdin open and send what comes on it")
	fs.BoolVarP(&p.tty, "tty", "t", false, "give the process a terminal")
	fs.BoolVarP(&p.detach, "detach", "d", false, "return once it runs, and leave it running")
	fs.StringArrayVarP(&p.env, "env", "e", nil, "set `NAME=VALUE`, or pass on NAME from here; may be repeated")
	fs.StringArrayVar(&p.envFiles, "env-file", nil, "read variables from `file`, one a line")
	fs.StringVarP(&p.workdir, "workdir", "w", "", "working `directory` inside the container")
	fs.StringVarP(&p.user, "user", "u", "", "`user[:group]`, by name or number, to run as")
	fs.BoolVar(&p.privileged, "privileged", false, "give every capability and take the protections away")
}

// environment is the variables of the files and the flags, in this order.
func (p *processFlags) environment() ([]string, error) {
	var out []string
	for _, file := range p.envFiles {
		vars, err := readEnvFile(file)
		if err != nil {
			return nil, fmt.Errorf("read variables: %w", err)
		}
		out = append(out, vars...)
	}
	for _, text := range p.env {
		kv, ok, err := variable(text)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, kv)
		}
	}
	return out, nil
}

// variable reads NAME=VALUE, or a bare NAME, which takes the value that it has here; ok is false where it has none.
func variable(text string) (kv string, ok bool, err error) {
	name, _, hasValue := strings.Cut(text, "=")
	if name == "" || strings.ContainsRune(text, 0) {
		return "", false, fmt.Errorf("variable %.80q: want NAME=VALUE: %w", text, errdefs.ErrInvalidArgument)
	}
	if hasValue {
		return text, true, nil
	}
	value, ok := os.LookupEnv(name)
	return name + "=" + value, ok, nil
}

// longestLine of a file of variables is more than the kernel takes as one.
const longestLine = 256 << 10

// readEnvFile reads a variable a line; lines that are empty or begin with # are none. Its errors name the file, and
// the line.
func readEnvFile(file string) (vars []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, longestLine)
	number := 1
	for ; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		kv, ok, err := variable(line)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", file, number, err)
		}
		if ok {
			vars = append(vars, kv)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("%s, line %d: longer than %d bytes: %w", file, number, longestLine, errdefs.ErrInvalidArgument)
	}
	return vars, lines.Err()
}

// runFlags are those of run.
type runFlags struct {
	processFlags
	remove, readOnly, rootfs, sigProxy                bool
	name, hostname, network, memory                   string
	runtime, snapshotter, log, entrypoint, stopSignal string
	platform                                          string
	cpus                                              float64
	pids                                              int64
	mounts, volumes, tmpfs, capAdd, capDrop, labels   []string
	security                                          []string
	uidMap, gidMap, storageSize                       string
}

func (r *runFlags) declare(fs *pflag.FlagSet) {
	r.processFlags.declare(fs)
	fs.StringVar(&r.name, "name", "", "`id` of the container; one is made up where none is given")
	fs.BoolVar(&r.remove, "rm", false, "remove the container once it has ended")
	fs.StringVar(&r.entrypoint, "entrypoint", "", "`program` to run in place of the image's; empty for none")
	fs.StringVarP(&r.hostname, "hostname", "h", "", "host `name` inside; the first letters of the id where not given")
	fs.StringVar(&r.network, "net", "none", "`network`: none, host, or ns:PATH to join one")
	fs.StringVar(&r.network, "network", "none", "the same as --net")
	fs.StringArrayVarP(&r.volumes, "volume", "v", nil, "`SRC:DST[:ro]`, a host path to see inside; may be repeated")
	fs.StringArrayVar(&r.mounts, "mount", nil, "`type=bind|tmpfs,src=,dst=[,ro]`, a mount; may be repeated")
	fs.StringArrayVar(&r.tmpfs, "tmpfs", nil, "`DST[:OPTIONS]`, a temporary file system; may be repeated")
	fs.BoolVar(&r.readOnly, "read-only", false, "make the root file system read-only")
	fs.StringVar(&r.storageSize, "storage-size", "", "limit of what it may hold on disk beside its image, as a `size`: 512m, 10g")
	fs.StringVarP(&r.memory, "memory", "m", "", "limit of memory as a `size`: 64m, 1.5g")
	fs.Float64Var(&r.cpus, "cpus", 0, "limit of processor time, as a `number` of processors")
	fs.Int64Var(&r.pids, "pids-limit", 0, "limit of the `number` of processes and threads")
	fs.StringArrayVar(&r.capAdd, "cap-add", nil, "`capability` to add, or ALL; may be repeated")
	fs.StringArrayVar(&r.capDrop, "cap-drop", nil, "`capability` to take away, or ALL; may be repeated")
	fs.StringArrayVar(&r.security, "security-opt", nil, "`option`: no-new-privileges or seccomp=unconfined")
	fs.StringVar(&r.uidMap, "uidmap", "", "`CONTAINER:HOST:SIZE`, the users of a user namespace; its groups as well where --gidmap is not given")
	fs.StringVar(&r.gidMap, "gidmap", "", "`CONTAINER:HOST:SIZE`, the groups of a user namespace")
	fs.StringArrayVarP(&r.labels, "label", "l", nil, "`KEY=VALUE` to remember with the container; may be repeated")
	fs.StringVar(&r.stopSignal, "stop-signal", "", "`signal` by which stop asks it to end")
	fs.StringVar(&r.log, "log", "", "`where` output goes: daemon, none, file:///PATH or binary:///PATH (daemon with --detach and no --tty)")
	fs.BoolVar(&r.sigProxy, "sig-proxy", true, "pass signals on to the container")
	fs.StringVar(&r.runtime, "runtime", "", "runtime `name` or path of a shim")
	fs.StringVar(&r.snapshotter, "snapshotter", "", "snapshotter by `name`")
	fs.StringVar(&r.platform, "platform", "", "os/arch[/variant] of the image to use")
	fs.BoolVar(&r.rootfs, "rootfs", false, "IMAGE is a directory to use as the root file system")
}

// options turns the flags into what the spec is made of.
func (r *runFlags) options(fs *pflag.FlagSet, id string, args []string) (spec.Options, error) {
	env, err := r.environment()
	if err != nil {
		return spec.Options{}, err
	}
	o := spec.Options{
		Args: args, Env: env, WorkDir: r.workdir, Hostname: or(r.hostname, hostName(id)), Terminal: r.tty,
		ReadOnly: r.readOnly, Network: r.network, CapAdd: r.capAdd, CapDrop: r.capDrop, Privileged: r.privileged,
		Limits: spec.Limits{CPUs: r.cpus, Pids: r.pids},
	}
	if fs.Changed("entrypoint") {
		o.Entrypoint = strings.Fields(r.entrypoint)
	}
	if r.memory != "" {
		if o.Limits.Memory, err = spec.ParseBytes(r.memory); err != nil {
			return o, err
		}
	}
	for _, s := range r.security {
		switch s {
		case "no-new-privileges", "no-new-privileges=true", "no-new-privileges:true":
			o.NoNewPrivileges = true
		case "seccomp=unconfined", "seccomp:unconfined":
			o.NoSeccomp = true
		default:
			return o, fmt.Errorf("security option %q: want no-new-privileges or seccomp=unconfined: %w", s, errdefs.ErrInvalidArgument)
		}
	}
	if err := r.userNamespace(&o); err != nil {
		return o, err
	}
	o.Mounts, err = r.mountList()
	return o, err
}

// storageLimit is what --storage-size asks for, 0 where it is not given.
func (r *runFlags) storageLimit(fs *pflag.FlagSet) (int64, error) {
	if !fs.Changed("storage-size") {
		return 0, nil
	}
	bytes, err := spec.ParseBytes(r.storageSize)
	if err == nil && bytes == 0 { // which the daemon would take for no limit
		err = fmt.Errorf("storage size %q: want more than 0: %w", r.storageSize, errdefs.ErrInvalidArgument)
	}
	return bytes, err
}

// userNamespace is what --uidmap and --gidmap ask for.
func (r *runFlags) userNamespace(o *spec.Options) error {
	if r.uidMap == "" && r.gidMap == "" {
		return nil
	}
	users, err := spec.ParseIDMapping(or(r.uidMap, r.gidMap))
	if err != nil {
		return err
	}
	groups, err := spec.ParseIDMapping(or(r.gidMap, r.uidMap))
	o.UIDMappings, o.GIDMappings = []specs.LinuxIDMapping{users}, []specs.LinuxIDMapping{groups}
	return err
}

func (r *runFlags) mountList() ([]specs.Mount, error) {
	var out []specs.Mount
	add := func(texts []string, parse func(string) (specs.Mount, error)) error {
		for _, text := range texts {
			m, err := parse(text)
			if err != nil {
				return err
			}
			out = append(out, m)
		}
		return nil
	}
	return out, errors.Join(
		add(r.mounts, spec.ParseMount),
		add(r.volumes, spec.ParseVolume),
		add(r.tmpfs, func(text string) (specs.Mount, error) {
			dst, options, _ := strings.Cut(text, ":")
			m := "type=tmpfs,dst=" + dst
			if options != "" {
				m += ",options=" + strings.ReplaceAll(options, ",", ":")
			}
			return spec.ParseMount(m)
		}))
}

// labelMap parses the labels and adds the stop signal's.
func (r *runFlags) labelMap(image spec.Image) (map[string]string, error) {
	out := map[string]string{}
	for _, l := range r.labels {
		key, value, _ := strings.Cut(l, "=")
		if key == "" {
			return nil, fmt.Errorf("label %q: want KEY=VALUE: %w", l, errdefs.ErrInvalidArgument)
		}
		out[key] = value
	}
	stop := r.stopSignal
	if stop == "" && image.StopSignal != "" {
		// What an image says is taken only where it is a signal.
		if _, err := parseSignal(image.StopSignal); err == nil {
			stop = image.StopSignal
		}
	}
	if stop != "" {
		if _, err := parseSignal(stop); err != nil {
			return nil, err
		}
		out[stopSignalLabel] = stop
	}
	return out, nil
}

// shortID is what people see of a made-up id; a chosen one they see whole.
func shortID(id string) string {
	if len(id) == 64 && isHex(id) {
		return id[:12]
	}
	return id
}

// longestHostName is what the names of hosts may have between two dots; Linux takes one more.
const longestHostName = 63

// hostName is the host name of a container that was given none: its id, as far as one may go.
func hostName(id string) string {
	id = shortID(id)
	return id[:min(len(id), longestHostName)]
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
