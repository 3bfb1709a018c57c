// Package api is the wire side of cleatd: a file a service, each method decoding its request,
// making one call to a store or to daemon/service, and encoding the answer. There is no logic here.
//
// Every containerd service is registered twice by one implementation (register.go): on gRPC and on
// ttrpc. The natives (package native) are on ttrpc only. Errors leave with the status code of their
// errdefs class.
package api
