// Package version reports the version of the build.
package version

import "runtime/debug"

// version is set by the linker (make build): the tag or commit the binary was built from.
var version string // written by the linker, never at run time

// Version returns the version stamped by the build, else the module's, else "devel".
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// Revision returns the commit the binary was built from, or "".
func Revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
