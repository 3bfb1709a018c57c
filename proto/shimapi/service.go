// Package shimapi holds the messages of the native service of shims.
package shimapi

// Service is the name of the native shim service on the wire.
const Service = "cleat.shim.v1.Shim"

// StdioOwnerKey is the key of a call's metadata with the owner of the FIFOs that a task or process may use
// for its stdio: a numeric user id.
const StdioOwnerKey = "cleat-stdio-owner"
