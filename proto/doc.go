// Package proto is the root of cleat's wire definitions: one folder a .proto file, messages
// generated beside it by generate.sh.
//
//   - types: well-known types and the containerd.types messages the others share
//   - task: containerd.task.v2 and v3, the service a shim offers its manager
//   - events: containerd.events, the task events
//   - runcopts, bootstrap: options and start-up of shims
//   - cgroups: the answers of Stats
//   - shimapi: cleat.shim.v1, what cleatd asks of its own shim beyond the task API
//   - cleatapi: cleat.v1, what cleatd offers its clients beyond the containerd API
//   - rpc: how these messages travel over ttrpc
//
// The messages are plain structs with gogo-generated marshalling. They register nowhere and use
// no reflection, so that a program pays only for those it uses. Unknown fields are dropped.
package proto
