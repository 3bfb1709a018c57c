// Package sandbox holds the messages of the sandbox service of shims.
package sandbox

// Service is the name of the sandbox service on the wire.
const Service = "containerd.runtime.sandbox.v1.Sandbox"
