// Package shim is the program that owns a container: containerd-shim-cleat-v2.
package shim
