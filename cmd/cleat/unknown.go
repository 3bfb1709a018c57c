package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// unknownCommand returns the error for a command that parent does not have. Its hint suggests commands with similar
// names, or names the tool for what cleat leaves to others.
func unknownCommand(parent *cobra.Command, name string) error {
	prefix := strings.TrimPrefix(parent.CommandPath()+" ", parent.Root().Name()+" ")
	err := fmt.Errorf("no command %q", prefix+name)
	if hint := dockerHints()[prefix+name]; hint != "" {
		return hinted(err, hint)
	}
	parent.SuggestionsMinimumDistance = min(2, len(name)/2) // letters that may differ
	if similar := parent.SuggestionsFor(name); len(similar) > 0 {
		for i, s := range similar {
			similar[i] = parent.CommandPath() + " " + s
		}
		return hinted(err, "did you mean "+strings.Join(similar, " or ")+"?")
	}
	return hinted(err, strings.TrimSpace("cleat help "+prefix)+" lists the commands")
}

// dockerHints returns, for each command of Docker that cleat does not have, what to use instead.
func dockerHints() map[string]string {
	const (
		build      = "cleat does not build images; use docker buildx or buildah, then cleat pull or cleat image import"
		network    = "cleat does not create networks; use ip netns or a CNI plugin, then cleat run --network ns:PATH"
		volume     = "cleat does not manage volumes; mount a directory with cleat run --volume or --mount"
		compose    = "cleat does not run Compose files; use docker compose with a dockerd that runs on cleatd's socket"
		cluster    = "cleat manages one host; use Kubernetes or Nomad for clusters"
		login      = "use docker login, or skopeo login --authfile ~/.docker/config.json, or cleat pull --user"
		copying    = "use tar through cleat exec, or share a directory with cleat run --volume"
		containers = "commands for containers have no prefix: cleat run, cleat ps, cleat rm"
		restart    = "cleat does not start a stopped container again; use cleat rm, then cleat run"
	)
	return map[string]string{
		"build": build, "builder": build, "buildx": build, "image build": build,
		"network": network, "volume": volume, "compose": compose, "docker-compose": compose,
		"swarm": cluster, "service": cluster, "stack": cluster, "node": cluster, "secret": cluster,
		"login": login, "logout": login,
		"cp": copying, "container": containers,
		"start": restart, "restart": restart,
		"config":  "cleatd config dump prints the daemon's configuration; see docs/configuration.md",
		"create":  "cleat run --detach creates a container and starts it",
		"rename":  "names do not change; use cleat run --name",
		"update":  "set limits with the flags of cleat run",
		"port":    "cleat does not publish ports; use cleat run --network host, or forward ports to a namespace of your own",
		"top":     "use cleat exec CONTAINER ps, or cleat inspect for the process id of the container",
		"diff":    "cleat commit writes the changes of a container to an image",
		"export":  "cleat commit writes a container to an image, cleat image export writes images to an archive",
		"import":  "cleat image import reads an archive of images",
		"load":    "cleat image import reads an archive of images",
		"save":    "cleat image export writes images to an archive",
		"history": "cleat image inspect shows the history of an image", "image history": "cleat image inspect shows the history of an image",
		"search":   "cleat does not search registries; use skopeo list-tags or the registry's website",
		"manifest": "cleat image inspect shows the manifest of an image; use skopeo or crane to edit manifests",
		"trust":    "use cosign or notation to sign images",
		"system":   "use cleat image usage, cleat image prune, cleat gc and cleat doctor",
		"info":     "use cleat version and cleat doctor",
		"context":  "select a daemon with --address or CLEAT_ADDRESS",
		"plugin":   "cleatd's configuration names snapshotters and runtimes; see docs/configuration.md",
	}
}
