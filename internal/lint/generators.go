package main

import (
	"fmt"
	"slices"
)

// generatorOnly lists the packages of other modules that only generators may link, each with its reason.
func generatorOnly() map[string]string {
	return map[string]string{
		"github.com/spf13/cobra/doc": "the pages of the command line are generated behind the build tag docgen",
	}
}

// generators reports the programs below cmd that link such a package.
func generators(pkgs []listed) []string {
	var findings []string
	for _, p := range pkgs {
		for dep, reason := range generatorOnly() {
			if within(p.ImportPath, module+"cmd") && slices.Contains(p.Deps, dep) {
				findings = append(findings, fmt.Sprintf("%s: must not link %s: %s", p.ImportPath, dep, reason))
			}
		}
	}
	return findings
}
