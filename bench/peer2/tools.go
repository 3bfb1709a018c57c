//go:build tools

// Package peer2 names the programs of containerd 2.3 that `make bench-peer2` builds and compares with.
package peer2

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
