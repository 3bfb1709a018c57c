package goclient

import (
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// remote lets a client speak plain HTTP to a registry on loopback.
func remote() containerd.RemoteOpt {
	return containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost)),
	}))
}

// unpacked lets a pull unpack what it fetched.
func unpacked() containerd.RemoteOpt {
	return func(c *containerd.Client, r *containerd.RemoteContext) error {
		if err := containerd.WithPullUnpack(c, r); err != nil {
			return err
		}
		return containerd.WithPullSnapshotter("overlayfs")(c, r)
	}
}
