package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/pflag"

	"github.com/cleatproject/cleat/client/spec"
)

// stopSignalLabel is the container label with the signal that stop sends.
const stopSignalLabel = "cleat.io/stop-signal"

// processFlags are the flags that run and exec share.
type processFlags struct {
	interactive, tty, detach bool
	env, envFiles            []string
	workdir, user            string
	privileged               bool
}

func (p *processFlags) declare(fs *pflag.FlagSet) {
	fs.BoolVarP(&p.interactive, "interactive", "i", false, "keep stdin open and forward input")
	fs.BoolVarP(&p.tty, "tty", "t", false, "allocate a terminal")
	fs.BoolVarP(&p.detach, "detach", "d", false, "run in the background")
	fs.StringArrayVarP(&p.env, "env", "e", nil, "set `NAME=VALUE`, or pass on the value of NAME; may be repeated")
	fs.StringArrayVar(&p.envFiles, "env-file", nil, "read variables from `FILE`, one per line; may be repeated")
	fs.StringVarP(&p.workdir, "workdir", "w", "", "working `DIRECTORY` in the container")
	fs.StringVarP(&p.user, "user", "u", "", "run as `USER[:GROUP]`, by name or number")
	fs.BoolVar(&p.privileged, "privileged", false, "grant all capabilities, disable seccomp and masked paths")
	inGroup(fs, groupProcess, "interactive", "tty", "detach", "env", "env-file", "workdir", "user")
	inGroup(fs, groupSecurity, "privileged")
}

// environment returns the variables of the files and the flags, in this order.
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

// variable parses NAME=VALUE, or a bare NAME, whose value is that of this program's environment. ok is false if NAME is
// not set there.
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

// longestLine bounds a line of an environment file, in bytes. The kernel accepts less as one variable.
const longestLine = 256 << 10

// readEnvFile reads one variable from each line, and skips empty lines and lines that begin with #. Its errors name the
// file and the line.
func readEnvFile(file string) (vars []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read from
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

// runFlags are the flags of run.
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
	r.declareContainer(fs)
	r.declareLimits(fs)
	r.declareStorage(fs)
	fs.StringVar(&r.entrypoint, "entrypoint", "", "run `PROGRAM` instead of the image's entry point; empty for none")
	fs.StringVar(&r.stopSignal, "stop-signal", "", "`SIGNAL` that cleat stop sends")
	fs.StringVar(&r.log, "log", "", "`DESTINATION` of the output: daemon, none, file:///PATH or binary:///PATH (default daemon with --detach and without --tty)")
	fs.BoolVar(&r.sigProxy, "sig-proxy", true, "forward signals to the container")
	inGroup(fs, groupProcess, "entrypoint", "stop-signal", "log", "sig-proxy")
}

func (r *runFlags) declareContainer(fs *pflag.FlagSet) {
	fs.StringVar(&r.name, "name", "", "`ID` of the container; generated if omitted")
	fs.BoolVar(&r.remove, "rm", false, "remove the container when it stops")
	fs.StringVarP(&r.hostname, "hostname", "h", "", "host `NAME` in the container (default the start of its id)")
	fs.StringVar(&r.network, "net", "none", "`NETWORK` to join: none, host, or ns:PATH")
	fs.StringVar(&r.network, "network", "none", "the same as --net `NETWORK`")
	fs.StringArrayVarP(&r.labels, "label", "l", nil, "set the label `KEY=VALUE`; may be repeated")
	fs.StringVar(&r.runtime, "runtime", "", "use the runtime `NAME`, or the path of a shim")
	fs.StringVar(&r.platform, "platform", "", "use the image for `PLATFORM`: OS/ARCH[/VARIANT]")
	inGroup(fs, groupContainer, "name", "rm", "hostname", "net", "network", "label", "runtime", "platform")
}

func (r *runFlags) declareLimits(fs *pflag.FlagSet) {
	fs.StringVarP(&r.memory, "memory", "m", "", "limit the memory to `SIZE`: 64m, 1.5g")
	fs.Float64Var(&r.cpus, "cpus", 0, "limit the processor time to `NUMBER` processors")
	fs.Int64Var(&r.pids, "pids-limit", 0, "limit the `NUMBER` of processes and threads")
	inGroup(fs, groupResources, "memory", "cpus", "pids-limit")
	fs.StringArrayVar(&r.capAdd, "cap-add", nil, "add `CAPABILITY`, or ALL; may be repeated")
	fs.StringArrayVar(&r.capDrop, "cap-drop", nil, "drop `CAPABILITY`, or ALL; may be repeated")
	fs.StringArrayVar(&r.security, "security-opt", nil, "set `OPTION`: no-new-privileges or seccomp=unconfined; may be repeated")
	fs.StringVar(&r.uidMap, "uidmap", "", "map the users of a user namespace: `CONTAINER:HOST:SIZE`; also its groups unless --gidmap is given")
	fs.StringVar(&r.gidMap, "gidmap", "", "map the groups of a user namespace: `CONTAINER:HOST:SIZE`")
	inGroup(fs, groupSecurity, "cap-add", "cap-drop", "security-opt", "uidmap", "gidmap")
}

func (r *runFlags) declareStorage(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&r.volumes, "volume", "v", nil, "mount a host path: `SRC:DST[:ro]`; may be repeated")
	fs.StringArrayVar(&r.mounts, "mount", nil, "mount `SPEC`: type=bind|tmpfs,src=SRC,dst=DST[,ro]; may be repeated")
	fs.StringArrayVar(&r.tmpfs, "tmpfs", nil, "mount a temporary file system: `DST[:OPTIONS]`; may be repeated")
	fs.BoolVar(&r.readOnly, "read-only", false, "mount the root file system read-only")
	fs.StringVar(&r.storageSize, "storage-size", "", "limit the writable layer to `SIZE`: 512m, 10g")
	fs.StringVar(&r.snapshotter, "snapshotter", "", "use the snapshotter `NAME`")
	fs.BoolVar(&r.rootfs, "rootfs", false, "use the directory IMAGE as root file system")
	inGroup(fs, groupStorage, "volume", "mount", "tmpfs", "read-only", "storage-size", "snapshotter", "rootfs")
}

// options converts the flags to the options of the spec.
func (r *runFlags) options(fs *pflag.FlagSet, id string, args []string) (spec.Options, error) {
	env, err := r.environment()
	if err != nil {
		return spec.Options{}, err
	}
	o := spec.Options{
		Args: args, Env: env, WorkDir: r.workdir, Hostname: cmp.Or(r.hostname, hostName(id)), Terminal: r.tty,
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

// storageLimit returns the limit that --storage-size sets, or 0.
func (r *runFlags) storageLimit(fs *pflag.FlagSet) (int64, error) {
	if !fs.Changed("storage-size") {
		return 0, nil
	}
	bytes, err := spec.ParseBytes(r.storageSize)
	if err == nil && bytes == 0 { // the daemon would treat it as no limit
		err = fmt.Errorf("storage size %q: want more than 0: %w", r.storageSize, errdefs.ErrInvalidArgument)
	}
	return bytes, err
}

// userNamespace sets the mappings of --uidmap and --gidmap.
func (r *runFlags) userNamespace(o *spec.Options) error {
	if r.uidMap == "" && r.gidMap == "" {
		return nil
	}
	users, err := spec.ParseIDMapping(cmp.Or(r.uidMap, r.gidMap))
	if err != nil {
		return err
	}
	groups, err := spec.ParseIDMapping(cmp.Or(r.gidMap, r.uidMap))
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

// labelMap returns the labels, with that of the stop signal.
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
		// An image's stop signal is ignored if it is not a signal.
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

// shortID returns the short form of a generated id; other ids stay as they are.
func shortID(id string) string {
	if len(id) == 64 && isHex(id) {
		return id[:12]
	}
	return id
}

// longestHostName bounds a label of a host name, in bytes; Linux accepts one more.
const longestHostName = 63

// hostName returns the host name of a container without --hostname: its id, shortened if necessary.
func hostName(id string) string {
	id = shortID(id)
	return id[:min(len(id), longestHostName)]
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
