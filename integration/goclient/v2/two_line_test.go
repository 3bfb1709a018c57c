package goclient

import (
	"context"

	"github.com/containerd/containerd/api/services/introspection/v1"
	containerd "github.com/containerd/containerd/v2/client"
)

// plugins lists every plugin; each version of the client does so differently.
func plugins(ctx context.Context, c *containerd.Client) (*introspection.PluginsResponse, error) {
	return c.IntrospectionService().Plugins(ctx)
}
