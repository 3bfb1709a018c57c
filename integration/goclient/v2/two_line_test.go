package goclient

import (
	"context"

	"github.com/containerd/containerd/api/services/introspection/v1"
	containerd "github.com/containerd/containerd/v2/client"
)

// plugins lists every plugin; the two lines of the client differ in how.
func plugins(ctx context.Context, c *containerd.Client) (*introspection.PluginsResponse, error) {
	return c.IntrospectionService().Plugins(ctx)
}
