package main

import (
	"fmt"
	"strings"
)

// given returns the modules that the product is built on. Each is in real use: a dependency that only tests import, or
// none of the binaries, is not.
func given() []string {
	return []string{
		"github.com/containerd/ttrpc",
		"github.com/gogo/protobuf",
		"github.com/opencontainers/runtime-spec",
		"github.com/containerd/console",
		"github.com/containerd/fifo",
		"github.com/containerd/go-runc",
		"golang.org/x/sys",
	}
}

// generator makes the messages that the binaries marshal. It uses gogo/protobuf, and its output needs no package of that
// at run time, where it would cost memory in each shim.
const generator = module + "proto/internal/protoc-gen-cleat"

// givenInUse reports the given modules that neither a package of a binary nor the generator imports. Imports of tests
// and of other modules do not count.
func givenInUse(pkgs []listed) []string {
	product := make(map[string]bool)
	for _, p := range pkgs {
		if !strings.HasPrefix(p.ImportPath, module+"cmd/") && p.ImportPath != generator {
			continue
		}
		product[p.ImportPath] = true
		for _, d := range p.Deps {
			product[d] = true
		}
	}
	used := make(map[string]bool)
	for _, p := range pkgs {
		if !product[p.ImportPath] || !strings.HasPrefix(p.ImportPath, module) {
			continue
		}
		for _, imp := range p.Imports {
			for _, m := range given() {
				if within(imp, m) {
					used[m] = true
				}
			}
		}
	}
	var findings []string
	for _, m := range given() {
		if !used[m] {
			findings = append(findings, fmt.Sprintf("%s: is given for use, and no product code imports it", m))
		}
	}
	return findings
}
