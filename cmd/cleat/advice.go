package main

import (
	"errors"

	"github.com/cleatproject/cleat/client"
)

// advice is the hint and the exit code for an error's reason.
type advice struct {
	// hint is what the user can do; empty for none.
	hint string
	// inContainer is the exit code of run and exec if the cause is in the container: codeCannotInvoke or codeNotFound;
	// 0 for a failure of cleat or its host.
	inContainer int
}

// code returns the exit code of run and exec.
func (a advice) code() int {
	if a.inContainer != 0 {
		return a.inContainer
	}
	return codeOwnFailure
}

// advices returns the advice for each reason that has one. Reasons of withoutAdvice have none.
func advices() map[client.Reason]advice {
	table := map[client.Reason]advice{
		client.ReasonCommandNotFound: {
			hint:        "the program must exist in the image, at the path given or in its PATH",
			inContainer: codeNotFound,
		},
		client.ReasonCommandNotExecutable: {
			hint:        "the program must be an executable file for this machine",
			inContainer: codeCannotInvoke,
		},
		client.ReasonDirectoryNotFound: {
			hint:        "the working directory must exist in the container; run creates it, exec does not",
			inContainer: codeCannotInvoke,
		},
	}
	for _, group := range []map[client.Reason]string{hostHints(), objectHints(), registryHints()} {
		for r, hint := range group {
			table[r] = advice{hint: hint}
		}
	}
	return table
}

// hostHints are the hints about the daemon, its host and the rights of this user.
func hostHints() map[client.Reason]string {
	return map[client.Reason]string{
		client.ReasonDaemonUnreachable: "is cleatd running? Start it, or name its socket with --address or CLEAT_ADDRESS",
		client.ReasonSocketDenied:      "the socket is for root and the group that cleatd's configuration names; see docs/security.md",
		client.ReasonConnectionLost:    "cleatd ended during the call; try again, and see its log if this happens again",
		client.ReasonDaemonStopping:    "try again once cleatd runs again",
		client.ReasonMetadataDamaged: "running containers continue; cleat doctor shows the damage. " +
			"To repair it, stop cleatd and run cleat doctor --repair, or restore a backup of the file",
		client.ReasonMetadataNewer:  "run the newer cleatd again, or restore the backup from before the upgrade",
		client.ReasonMetadataOlder:  "start cleatd once: it migrates the database",
		client.ReasonDirectoryInUse: "stop the other cleatd, or give this one its own --root and --state",
		client.ReasonDiskFull: "free some space: cleat image usage shows what images take; " +
			"cleat image rm, cleat image prune and cleat gc remove some",
		client.ReasonRuntimeMissing: "install runc on the host, or name another runtime with --runtime",
		client.ReasonShimMissing:    "install the shim of that runtime, or map its name in cleatd's configuration (runtimes)",
		client.ReasonShimSilent:     "the shim may be stopped or swapped out; cleat shim ls shows its process",
		client.ReasonLoggerFailed:   "the logger of --log must be an executable on the host that closes descriptor 5 once it is ready",
		client.ReasonProgramMissing: "install that program on the host",
		client.ReasonSnapshotterUnavailable: "cleat doctor shows which snapshotters work on this host; " +
			"--snapshotter selects one",
		client.ReasonQuotaUnavailable: "keep the daemon's root directory on xfs or ext4 with project quotas; " +
			"docs/snapshotters.md shows how to make and mount them",
		client.ReasonNamespaceDenied: "namespace_access in cleatd's configuration lists the namespaces of a user; --namespace selects one",
		client.ReasonPolicyDenied:    "the policy of this user in cleatd's configuration forbids this; see docs/security.md",
		client.ReasonRootRequired:    "this command needs the rights of root on this host",
	}
}

// objectHints are the hints about the objects of a namespace.
func objectHints() map[client.Reason]string {
	const images = "cleat image ls lists the images of a namespace; cleat pull IMAGE fetches one, cleat image import FILE adds one"
	const containers = "cleat ps --all lists the containers of a namespace; --namespace selects another"
	return map[client.Reason]string{
		client.ReasonContainerNotFound: containers,
		client.ReasonTaskNotFound:      containers,
		client.ReasonContainerExists:   "cleat rm removes the container of that name; --name selects another",
		client.ReasonContainerRunning:  "cleat stop stops it; cleat rm --force kills and removes it",
		client.ReasonImageNotFound:     images,
		client.ReasonImageIncomplete:   "pull or import the image again, with all its platforms or with --platform for one",
		client.ReasonPlatformNotFound:  "select one of its platforms with --platform, or only store it with --no-unpack",
		client.ReasonImageHasNames:     "remove it by each of its names",
		client.ReasonNamespaceNotFound: "cleat namespace ls lists the namespaces",
		client.ReasonNamespaceNotEmpty: "remove what it holds first",
		client.ReasonUserNotFound:      "a name must be in the image's /etc/passwd or /etc/group; a number need not",
	}
}

// registryHints are the hints about the answers of registries.
func registryHints() map[client.Reason]string {
	return map[client.Reason]string{
		client.ReasonRegistryUnauthorized: "log in with docker login or --user, or check the name: " +
			"registries also answer so for images that do not exist",
		client.ReasonRegistryDenied:      "the registry does not allow this to the user, or without one; log in with docker login or --user",
		client.ReasonRegistryNotFound:    "check the reference: name, tag and platform",
		client.ReasonRegistryTooMany:     "wait a while, or log in: the registry limits the rate of requests",
		client.ReasonRegistryUnreachable: "is the registry's address right, and reachable from this host? The same command resumes the transfer",
		client.ReasonRegistryFailed:      "the registry has a problem; the same command resumes the transfer later",
		client.ReasonRegistryTLS:         "configure its certificates, or plain HTTP, in its hosts.toml; see docs/registries.md",
		client.ReasonRegistryConfig:      "correct the daemon's configuration of the registry; see docs/registries.md",
	}
}

// withoutAdvice lists the reasons that need no hint, each with an explanation.
func withoutAdvice() map[client.Reason]string {
	return map[client.Reason]string{
		client.ReasonRuntimeFailed:    "the OCI runtime's own text",
		client.ReasonSnapshotNotFound: "no command of cleat names snapshots",
		client.ReasonContentNotFound:  "no command of cleat names content",
		client.ReasonLeaseNotFound:    "no command of cleat names leases",
		client.ReasonSandboxNotFound:  "no command of cleat names sandboxes",
	}
}

// adviceFor returns the advice for an error: its own hint if it has one, or else that of its reason.
func adviceFor(err error) advice {
	a := advices()[client.ReasonOf(err)]
	if h := (*hintError)(nil); errors.As(err, &h) {
		a.hint = h.hint
	}
	return a
}
