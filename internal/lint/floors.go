package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

const module = "github.com/cleatproject/cleat/"

// floor says what the folders of a name may import of this module: names of folders, each with all
// below it. A folder may always import what is below itself.
type floor struct {
	folder string
	may    []string
}

// The floors of the design, ground floor first. The longest folder that matches a package rules.
func design() []floor {
	ground := []string{"proto", "fifo", "reaper", "mount", "internal/durable", "internal/undo", "internal/inject", "internal/exitrecord", "internal/version", "internal/treecmp", "internal/keylock", "internal/filelock", "internal/inroot", "internal/xattr", "internal/hostproc", "internal/gate", "internal/userdb", "internal/filters", "internal/identifier", "internal/bytesize", "internal/rawjson", "internal/ctxio"}
	leaves := []string{"internal/durable", "internal/undo", "internal/inject", "internal/keylock"}
	first := append(slices.Clone(ground), "content", "archive", "snapshot", "events")
	stores := append(slices.Clone(first), "metadata")
	second := append(slices.Clone(stores), "runtime", "image")
	return append(services(second), []floor{
		{"proto", nil},
		{"fifo", leaves},
		{"reaper", leaves},
		{"mount", leaves},
		{"mount/activation", append(slices.Clone(leaves), "mount", "proto/reason", "internal/bytesize")},
		{"internal", []string{"internal/durable", "internal/xattr"}},
		{"internal/userdb", []string{"internal/inroot", "proto/reason"}},
		{"internal/lint", nil},
		{"content", ground},
		{"archive", ground},
		{"snapshot", ground},
		{"events", ground},
		{"client", []string{"proto", "internal/identifier", "internal/bytesize"}},
		{"metadata", first},
		{"runtime", append(slices.Clone(ground), "events")},
		{"shim", ground},
		{"image", stores},
		{"image/registry", []string{"proto/reason"}},
		{"daemon/service", second},
		{"daemon/streams", nil},
		{"daemon/policy", append(slices.Clone(ground), "client/spec")},
		{"daemon/api", append(slices.Clone(second), "daemon/service", "daemon/streams", "daemon/policy")},
		{"daemon/config", append(slices.Clone(second), "daemon/service", "daemon/policy", "daemon/api")},
		{"daemon/doctor", append(slices.Clone(second), "daemon", "daemon/service")},
		{"daemon", append(slices.Clone(second), "daemon/service", "daemon/streams", "daemon/policy", "daemon/api", "daemon/config")},
		{"cmd/cleat", []string{"client", "mount", "internal/version", "internal/identifier"}},
		{"cmd/cleatd", []string{"daemon"}},
		{"cmd/containerd-shim-cleat-v2", []string{"shim", "internal/version"}},
		{"bench", []string{""}},
	}...)
}

// services are the floors inside daemon/service, whose own package assembles the others.
func services(below []string) []floor {
	on := func(names ...string) []string {
		may := slices.Clone(below)
		for _, n := range names {
			may = append(may, "daemon/service/"+n)
		}
		return may
	}
	return []floor{
		{"daemon/service/announce", below},
		{"daemon/service/subscribe", on("announce")},
		{"daemon/service/servicetest", below},
		{"daemon/service/blobs", on("announce")},
		{"daemon/service/snapshots", on("announce")},
		{"daemon/service/gc", on("announce", "blobs", "snapshots")},
		{"daemon/service/namespaces", on("announce", "blobs")},
		{"daemon/service/activations", on("announce")},
		{"daemon/service/images", on("announce", "blobs", "snapshots", "namespaces")},
		{"daemon/service/transfer", on("blobs", "images")},
		{"daemon/service/containers", on("announce", "blobs", "snapshots", "namespaces", "activations", "images")},
		{"daemon/service/restart", on("subscribe", "containers")},
	}
}

// within reports whether folder is dir or below it; everything is below "".
func within(folder, dir string) bool {
	return dir == "" || folder == dir || strings.HasPrefix(folder, dir+"/")
}

// floors checks every import inside the module.
func floors(pkgs []listed) []string {
	var findings []string
	table := design()
	for _, p := range pkgs {
		folder, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok {
			continue
		}
		rule := ruleFor(table, folder)
		if rule == nil {
			findings = append(findings, fmt.Sprintf("%s: stands on no floor of the design: add it to internal/lint/floors.go", folder))
			continue
		}
		for _, imp := range p.Imports {
			target, ok := strings.CutPrefix(imp, module)
			if !ok || within(target, rule.folder) {
				continue
			}
			if !slices.ContainsFunc(rule.may, func(dir string) bool { return within(target, dir) }) {
				findings = append(findings, fmt.Sprintf("%s: must not import %s", folder, target))
			}
		}
	}
	return findings
}

func ruleFor(table []floor, folder string) *floor {
	var best *floor
	for i := range table {
		if within(folder, table[i].folder) && (best == nil || len(table[i].folder) > len(best.folder)) {
			best = &table[i]
		}
	}
	return best
}

// shimList is where the shim's whole list of dependencies outside the standard library is kept, to
// be compared: every package costs memory in each shim.
const shimList = "shim/dependencies.txt"

func shimDependencies(p *project) ([]string, error) {
	have, err := fs.ReadFile(p.tree, shimList)
	if err != nil {
		return nil, fmt.Errorf("read the shim's dependency list: %w", err)
	}
	deps := linkedByShim(p.pkgs)
	if slices.Equal(strings.Fields(string(have)), deps) {
		return nil, nil
	}
	return []string{diff(strings.Fields(string(have)), deps)}, nil
}

func writeShimList(p *project) error {
	list := strings.Join(linkedByShim(p.pkgs), "\n") + "\n"
	return os.WriteFile(filepath.Join(p.root, filepath.FromSlash(shimList)), []byte(list), 0o644)
}

// linkedByShim returns the packages outside the standard library that the shim links, sorted.
func linkedByShim(pkgs []listed) []string {
	var deps []string
	for _, p := range pkgs {
		if p.ImportPath != module+"cmd/containerd-shim-cleat-v2" {
			continue
		}
		for _, d := range p.Deps {
			if strings.Contains(strings.Split(d, "/")[0], ".") {
				deps = append(deps, d)
			}
		}
	}
	sort.Strings(deps)
	return deps
}

// diff words the difference between the committed list and the true one.
func diff(have, want []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: the shim's dependencies changed (go run ./internal/lint -write, and say why in the commit):", shimList)
	for _, d := range want {
		if !slices.Contains(have, d) {
			fmt.Fprintf(&b, " +%s", d)
		}
	}
	for _, d := range have {
		if !slices.Contains(want, d) {
			fmt.Fprintf(&b, " -%s", d)
		}
	}
	return b.String()
}
