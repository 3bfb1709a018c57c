// Package task holds the messages of the task service of shims.
package task

// Names of the task service on the wire. Both carry the messages of this package.
const (
	V2Service = "containerd.task.v2.Task"
	V3Service = "containerd.task.v3.Task"
)
