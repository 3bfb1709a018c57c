// Package registry talks to registries of images, as clients of the OCI distribution protocol and of
// Docker's do.
//
// Parse reads references the way Docker's users write them. A Client opens a Repository for one
// request with the credential of whoever makes it; the Repository resolves, fetches and pushes, and is
// closed when the request ends.
//
// # Where it asks
//
// The directory Options.ConfigPath has a folder for each registry with a file hosts.toml in containerd's
// layout: mirrors, asked in their order and before the registry itself, each with what it may be asked
// for, its certificates and its headers. It is read for each request.
//
// # Guarantees
//
// A credential goes to the registry that the reference names and to the authority that this one asks
// tokens of, never to a mirror, to where a redirect leads, or to the URLs that a layer names. TLS is
// verified, and plain HTTP is spoken with loopback addresses only, unless the configuration says
// otherwise. What is fetched has as many bytes as its descriptor says or ends with an error; whether they
// are the right ones is checked by whoever stores them. A transfer that breaks off is taken up where it
// was. What a registry may make this package keep in memory is bounded.
//
// Errors have a class of errdefs and name the registry, the reference and what to do. They hold neither
// a credential nor the query of a URL, which may sign a request.
package registry

const (
	// maxManifest bounds what is read of a document, in bytes.
	maxManifest = 8 << 20
	// maxErrorBody bounds what is read of an answer that is an error.
	maxErrorBody = 16 << 10
	// maxRedirects bounds a chain of redirects.
	maxRedirects = 10
)
