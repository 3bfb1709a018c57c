package version

import "strings"

// Containerd is the version of containerd whose API cleat implements. Clients compare it with the version they require.
const Containerd = "2.4.2"

// own separates the two versions in API.
const own = "+cleat."

// API returns the version that is reported on the API: that of containerd with cleat's as its build metadata, which is
// parseable as a semantic version.
func API() string { return Containerd + own + metadata(Version()) }

// metadata replaces characters that the build metadata of a semantic version cannot contain.
func metadata(v string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, v)
}

// Split returns the two versions of API. Another daemon's version is containerd's alone.
func Split(api string) (cleat, containerd string) {
	containerd, cleat, _ = strings.Cut(api, own)
	return cleat, containerd
}
