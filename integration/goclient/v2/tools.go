//go:build tools

// Package goclient names the program that two_ctr_test.go builds, so that its modules are pinned.
package goclient

import _ "github.com/containerd/containerd/v2/cmd/ctr/app"
