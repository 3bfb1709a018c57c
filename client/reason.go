package client

import "github.com/cleatproject/cleat/proto/reason"

// Reason is a machine-readable name of an error's cause; see proto/reason for what each means.
type Reason = reason.Reason

// The reasons of this package's errors. NoReason is the absence of one.
const (
	NoReason = reason.None

	ReasonDaemonUnreachable      = reason.DaemonUnreachable
	ReasonSocketDenied           = reason.SocketDenied
	ReasonConnectionLost         = reason.ConnectionLost
	ReasonDaemonStopping         = reason.DaemonStopping
	ReasonMetadataDamaged        = reason.MetadataDamaged
	ReasonMetadataNewer          = reason.MetadataNewer
	ReasonMetadataOlder          = reason.MetadataOlder
	ReasonDirectoryInUse         = reason.DirectoryInUse
	ReasonDiskFull               = reason.DiskFull
	ReasonRuntimeMissing         = reason.RuntimeMissing
	ReasonRuntimeFailed          = reason.RuntimeFailed
	ReasonShimMissing            = reason.ShimMissing
	ReasonShimSilent             = reason.ShimSilent
	ReasonLoggerFailed           = reason.LoggerFailed
	ReasonProgramMissing         = reason.ProgramMissing
	ReasonCommandNotFound        = reason.CommandNotFound
	ReasonCommandNotExecutable   = reason.CommandNotExecutable
	ReasonDirectoryNotFound      = reason.DirectoryNotFound
	ReasonUserNotFound           = reason.UserNotFound
	ReasonContainerNotFound      = reason.ContainerNotFound
	ReasonTaskNotFound           = reason.TaskNotFound
	ReasonImageNotFound          = reason.ImageNotFound
	ReasonNamespaceNotFound      = reason.NamespaceNotFound
	ReasonSnapshotNotFound       = reason.SnapshotNotFound
	ReasonContentNotFound        = reason.ContentNotFound
	ReasonLeaseNotFound          = reason.LeaseNotFound
	ReasonSandboxNotFound        = reason.SandboxNotFound
	ReasonContainerExists        = reason.ContainerExists
	ReasonContainerRunning       = reason.ContainerRunning
	ReasonNamespaceNotEmpty      = reason.NamespaceNotEmpty
	ReasonImageIncomplete        = reason.ImageIncomplete
	ReasonPlatformNotFound       = reason.PlatformNotFound
	ReasonImageHasNames          = reason.ImageHasNames
	ReasonQuotaUnavailable       = reason.QuotaUnavailable
	ReasonSnapshotterUnavailable = reason.SnapshotterUnavailable
	ReasonRegistryUnauthorized   = reason.RegistryUnauthorized
	ReasonRegistryDenied         = reason.RegistryDenied
	ReasonRegistryNotFound       = reason.RegistryNotFound
	ReasonRegistryTooMany        = reason.RegistryTooMany
	ReasonRegistryUnreachable    = reason.RegistryUnreachable
	ReasonRegistryConfig         = reason.RegistryConfig
	ReasonRegistryTLS            = reason.RegistryTLS
	ReasonRegistryFailed         = reason.RegistryFailed
	ReasonNamespaceDenied        = reason.NamespaceDenied
	ReasonPolicyDenied           = reason.PolicyDenied
	ReasonRootRequired           = reason.RootRequired
)

// ReasonOf returns the reason of an error, or NoReason.
func ReasonOf(err error) Reason { return reason.Of(err) }

// WithReason returns err with a reason; text and class are unchanged.
func WithReason(err error, r Reason) error { return reason.With(err, r) }

// Reasons lists every reason except NoReason.
func Reasons() []Reason { return reason.All() }
