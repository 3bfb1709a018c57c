package sandbox

// Service is the name of the sandbox service on the wire.
const Service = "containerd.runtime.sandbox.v1.Sandbox"
