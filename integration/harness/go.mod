module github.com/cleatproject/cleat/integration/harness

go 1.26.8

require (
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.0
	golang.org/x/sys v0.30.0
)
