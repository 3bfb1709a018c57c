package metadata

import (
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/snapshot"
)

// Any is a typed value that the database stores without decoding it.
type Any struct {
	TypeURL string
	Value   []byte
}

// Namespace separates the records of one user of the daemon from another's.
type Namespace struct {
	Name   string
	Labels map[string]string

	unknown []byte
}

// Runtime names the shim that runs a container, and its options.
type Runtime struct {
	Name    string
	Options *Any
}

// Container describes how to create a container; it need not be running.
type Container struct {
	ID          string
	Labels      map[string]string
	Image       string
	Runtime     Runtime
	Spec        *Any
	Snapshotter string
	SnapshotKey string
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Extensions  map[string]Any
	SandboxID   string

	unknown []byte
}

// Sandbox describes how to create a sandbox; it need not be running.
type Sandbox struct {
	ID         string
	Runtime    Runtime
	Spec       *Any
	Labels     map[string]string
	CreatedAt  time.Time
	UpdatedAt  time.Time
	Extensions map[string]Any
	// Sandboxer names the controller that manages it.
	Sandboxer string

	unknown []byte
}

// Image is a name for content.
type Image struct {
	Name      string
	Labels    map[string]string
	Target    ocispec.Descriptor
	CreatedAt time.Time
	UpdatedAt time.Time

	unknown []byte
}

// LabelExpire on a lease is its expiry time, in RFC 3339.
const LabelExpire = "containerd.io/gc.expire"

// Lease keeps resources from being collected while a client works with them.
type Lease struct {
	ID        string
	Labels    map[string]string
	CreatedAt time.Time

	unknown []byte
}

// Resource is an object that a lease holds. Type is "content", "ingests", "snapshots/<name of the
// snapshotter>", or another with a meaning to the daemon.
type Resource struct {
	ID   string
	Type string
}

// Snapshot is the record of a snapshot; its files belong to the driver, under ID.
type Snapshot struct {
	// Key is the name; for a committed snapshot the name it was committed to.
	Key    string
	Parent string
	Kind   snapshot.Kind
	// ID is the driver's number, unique in the database and never used again.
	ID        uint64
	Labels    map[string]string
	CreatedAt time.Time
	UpdatedAt time.Time
	// Size in bytes and Inodes are those measured at commit.
	Size   int64
	Inodes int64

	unknown []byte
}

// Blob records that a namespace sees a blob of the content store.
type Blob struct {
	Digest    digest.Digest
	Size      int64
	Labels    map[string]string
	CreatedAt time.Time
	UpdatedAt time.Time

	unknown []byte
}
