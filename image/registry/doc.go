// Package registry is a client of image registries, for the OCI distribution protocol and
// Docker's.
//
// Parse parses references as Docker's users write them. A Client opens a Repository for one
// request with the credential of the requesting client; the Repository resolves, fetches and pushes, and is
// closed when the request ends.
//
// # Hosts
//
// The directory Options.ConfigPath has a folder for each registry with a file hosts.toml in containerd's
// layout: mirrors, used in their order and before the registry itself, each with its capabilities,
// certificates and headers. It is read for each request.
//
// # Guarantees
//
// A credential is sent to the registry that the reference names and to the token server that this one
// names, never to a mirror, to the target of a redirect, or to the URLs that a layer names. TLS is
// verified, and plain HTTP is used with loopback addresses only, unless the configuration says
// otherwise. Fetched content has the size that its descriptor states or ends with an error; the caller that
// stores the bytes verifies their digest. An interrupted transfer is resumed where it
// was. The memory that a registry can make this package use is bounded.
//
// Errors have a class of errdefs and name the registry and the reference. They contain neither
// a credential nor the query of a URL, which may sign a request.
package registry

const (
	// maxManifest bounds the bytes read of a document.
	maxManifest = 8 << 20
	// maxErrorBody bounds the bytes read of an error response.
	maxErrorBody = 16 << 10
	// maxRedirects bounds a chain of redirects.
	maxRedirects = 10
)
