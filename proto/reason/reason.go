// Package reason names the causes of errors that a program can act on. An error carries at most one
// Reason next to its class of github.com/containerd/errdefs, also over gRPC and ttrpc (package rpc), so
// that a client derives its advice from the name and never from the text.
//
// A Reason is an error of its class. It is attached where the cause is known, in the place of the class:
//
//	fmt.Errorf("image %s: %w", name, reason.ImageNotFound)
//
// Errors of an OCI runtime have no name; FromRuntime is the one function that parses such text.
package reason

import (
	"errors"
	"syscall"

	"github.com/containerd/errdefs"
)

// Reason is the name of a cause. The names are part of the API: they are never reused.
type Reason string

// The reasons. The comment states when each is set.
const (
	// None is the absence of a reason.
	None Reason = ""

	// DaemonUnreachable: nothing answers on the daemon's socket.
	DaemonUnreachable Reason = "DAEMON_UNREACHABLE"
	// SocketDenied: this user may not connect to the daemon's socket.
	SocketDenied Reason = "SOCKET_DENIED"
	// ConnectionLost: the daemon ended during a call.
	ConnectionLost Reason = "CONNECTION_LOST"
	// DaemonStopping: the daemon is stopping; the call can be repeated after its restart.
	DaemonStopping Reason = "DAEMON_STOPPING"
	// MetadataDamaged: the daemon's database cannot be used.
	MetadataDamaged Reason = "METADATA_DAMAGED"
	// MetadataNewer and MetadataOlder: the database has the schema of another version of cleatd.
	MetadataNewer Reason = "METADATA_NEWER"
	MetadataOlder Reason = "METADATA_OLDER"
	// DirectoryInUse: another daemon works in the same directory.
	DirectoryInUse Reason = "DIRECTORY_IN_USE"
	// DiskFull: a file system or quota has no space left.
	DiskFull Reason = "DISK_FULL"

	// RuntimeMissing: the OCI runtime is not installed.
	RuntimeMissing Reason = "OCI_RUNTIME_MISSING"
	// RuntimeFailed: the OCI runtime reported an error; the text is its own.
	RuntimeFailed Reason = "OCI_RUNTIME_FAILED"
	// ShimMissing: the shim of the requested runtime is not installed.
	ShimMissing Reason = "SHIM_MISSING"
	// ShimSilent: a shim does not answer.
	ShimSilent Reason = "SHIM_SILENT"
	// LoggerFailed: a binary:// logger cannot be started or does not become ready.
	LoggerFailed Reason = "LOGGER_FAILED"
	// ProgramMissing: a program that the daemon or a shim needs is not installed.
	ProgramMissing Reason = "HOST_PROGRAM_MISSING"

	// CommandNotFound: the container has no such program.
	CommandNotFound Reason = "COMMAND_NOT_FOUND"
	// CommandNotExecutable: the container's program cannot be invoked.
	CommandNotExecutable Reason = "COMMAND_NOT_EXECUTABLE"
	// DirectoryNotFound: the process's working directory does not exist in the container.
	DirectoryNotFound Reason = "WORKING_DIRECTORY_NOT_FOUND"
	// UserNotFound: the container's passwd or group file has no such name.
	UserNotFound Reason = "USER_NOT_FOUND"

	// ContainerNotFound, TaskNotFound, ImageNotFound, NamespaceNotFound, SnapshotNotFound,
	// ContentNotFound, LeaseNotFound, SandboxNotFound: no such object in the namespace.
	ContainerNotFound Reason = "CONTAINER_NOT_FOUND"
	TaskNotFound      Reason = "TASK_NOT_FOUND"
	ImageNotFound     Reason = "IMAGE_NOT_FOUND"
	NamespaceNotFound Reason = "NAMESPACE_NOT_FOUND"
	SnapshotNotFound  Reason = "SNAPSHOT_NOT_FOUND"
	ContentNotFound   Reason = "CONTENT_NOT_FOUND"
	LeaseNotFound     Reason = "LEASE_NOT_FOUND"
	SandboxNotFound   Reason = "SANDBOX_NOT_FOUND"

	// ContainerExists: the container's id is taken.
	ContainerExists Reason = "CONTAINER_EXISTS"
	// ContainerRunning: the container has to be stopped first.
	ContainerRunning Reason = "CONTAINER_RUNNING"
	// NamespaceNotEmpty: the namespace still holds objects.
	NamespaceNotEmpty Reason = "NAMESPACE_NOT_EMPTY"
	// ImageIncomplete: a part of the image, or one of its platforms, is not stored.
	ImageIncomplete Reason = "IMAGE_INCOMPLETE"
	// PlatformNotFound: the image has no manifest for the platform.
	PlatformNotFound Reason = "PLATFORM_NOT_FOUND"
	// ImageHasNames: an image with several names was to be removed by its digest.
	ImageHasNames Reason = "IMAGE_HAS_NAMES"
	// SnapshotterUnavailable: the snapshotter is unknown, or does not work on this host.
	SnapshotterUnavailable Reason = "SNAPSHOTTER_UNAVAILABLE"

	// QuotaUnavailable: the file system of the snapshots does not keep project quotas.
	QuotaUnavailable Reason = "QUOTA_UNAVAILABLE"

	// RegistryUnauthorized: the registry answered 401.
	RegistryUnauthorized Reason = "REGISTRY_UNAUTHORIZED"
	// RegistryDenied: the registry answered 403.
	RegistryDenied Reason = "REGISTRY_DENIED"
	// RegistryNotFound: the registry has no such image.
	RegistryNotFound Reason = "REGISTRY_NOT_FOUND"
	// RegistryTooMany: the registry limits the rate of requests.
	RegistryTooMany Reason = "REGISTRY_TOO_MANY_REQUESTS"
	// RegistryUnreachable: no connection to the registry, or it fails.
	RegistryUnreachable Reason = "REGISTRY_UNREACHABLE"

	// RegistryConfig: the daemon's configuration of the registry (hosts.toml) cannot be used.
	RegistryConfig Reason = "REGISTRY_CONFIG"
	// RegistryTLS: the registry's certificate, or its way to speak TLS or plain HTTP, is not as configured.
	RegistryTLS Reason = "REGISTRY_TLS"
	// RegistryFailed: the registry answered 5xx.
	RegistryFailed Reason = "REGISTRY_FAILED"

	// NamespaceDenied: this user may not work in the namespace (namespace_access).
	NamespaceDenied Reason = "NAMESPACE_DENIED"
	// PolicyDenied: the policy of this user does not allow a part of the request.
	PolicyDenied Reason = "POLICY_DENIED"
	// RootRequired: the operation on this host needs the rights of root.
	RootRequired Reason = "ROOT_REQUIRED"
)

// All returns every reason but None.
func All() []Reason {
	return []Reason{
		DaemonUnreachable, SocketDenied, ConnectionLost, DaemonStopping, MetadataDamaged, MetadataNewer, MetadataOlder,
		DirectoryInUse, DiskFull,
		RuntimeMissing, RuntimeFailed, ShimMissing, ShimSilent, LoggerFailed, ProgramMissing,
		CommandNotFound, CommandNotExecutable, DirectoryNotFound, UserNotFound,
		ContainerNotFound, TaskNotFound, ImageNotFound, NamespaceNotFound, SnapshotNotFound, ContentNotFound,
		LeaseNotFound, SandboxNotFound, ContainerExists, ContainerRunning, NamespaceNotEmpty, ImageIncomplete,
		PlatformNotFound, ImageHasNames, SnapshotterUnavailable, QuotaUnavailable,
		RegistryUnauthorized, RegistryDenied, RegistryNotFound, RegistryTooMany, RegistryUnreachable,
		RegistryConfig, RegistryTLS, RegistryFailed,
		NamespaceDenied, PolicyDenied, RootRequired,
	}
}

// Class returns the errdefs class of an error with this reason unless another is set.
func (r Reason) Class() error {
	switch r {
	case DaemonUnreachable, ConnectionLost, DaemonStopping, DirectoryInUse, ShimSilent, LoggerFailed,
		RegistryUnreachable, RegistryTLS, RegistryFailed:
		return errdefs.ErrUnavailable
	case SocketDenied, RegistryDenied, NamespaceDenied, PolicyDenied, RootRequired:
		return errdefs.ErrPermissionDenied
	case RegistryUnauthorized:
		return errdefs.ErrUnauthenticated
	case MetadataDamaged:
		return errdefs.ErrDataLoss
	case DiskFull, RegistryTooMany:
		return errdefs.ErrResourceExhausted
	case RuntimeMissing, ShimMissing, CommandNotFound, DirectoryNotFound, UserNotFound, ContainerNotFound, TaskNotFound,
		ImageNotFound, NamespaceNotFound, SnapshotNotFound, ContentNotFound, LeaseNotFound, SandboxNotFound,
		ImageIncomplete, PlatformNotFound, RegistryNotFound:
		return errdefs.ErrNotFound
	case ContainerExists:
		return errdefs.ErrAlreadyExists
	case MetadataNewer, MetadataOlder, ContainerRunning, NamespaceNotEmpty, ImageHasNames, ProgramMissing,
		QuotaUnavailable:
		return errdefs.ErrFailedPrecondition
	case SnapshotterUnavailable, RegistryConfig:
		return errdefs.ErrInvalidArgument
	default:
		return errdefs.ErrUnknown
	}
}

// Error returns the text of the class: the reason itself is not meant for people.
func (r Reason) Error() string { return r.Class().Error() }

// Unwrap returns the class.
func (r Reason) Unwrap() error { return r.Class() }

// marked is an error to which a reason was added. Text and class are the error's own.
type marked struct {
	error
	reason Reason
}

func (m *marked) Unwrap() error { return m.error }

// As finds the reason before those further down.
func (m *marked) As(target any) bool {
	if r, ok := target.(*Reason); ok {
		*r = m.reason
		return true
	}
	return false
}

// With returns err with the reason r, its text and class unchanged. A reason that err has already is
// replaced. With returns nil for a nil error.
func With(err error, r Reason) error {
	if err == nil || r == None {
		return err
	}
	return &marked{error: err, reason: r}
}

// Default returns err with the reason r unless it has one.
func Default(err error, r Reason) error {
	if err == nil || Of(err) != None {
		return err
	}
	return With(err, r)
}

// Of returns the reason of an error, or None. A full disk is recognised by its errno.
func Of(err error) Reason {
	var r Reason
	if errors.As(err, &r) {
		return r
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return DiskFull
	}
	return None
}

// Known returns the reason with a name, or None if this version does not know it.
func Known(name string) Reason {
	for _, r := range All() {
		if string(r) == name {
			return r
		}
	}
	return None
}
