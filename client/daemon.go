package client

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatproject/cleat/client/internal/wire"
	"github.com/cleatproject/cleat/proto/types"
)

// snapshotterPlugin is the type of a snapshotter in containerd's list of plugins.
const snapshotterPlugin = "io.containerd.snapshotter.v1"

// Version is the daemon's version.
type Version struct{ Version, Revision string }

// Version returns the daemon's version.
func (c *Client) Version(ctx context.Context) (Version, error) {
	resp, err := query[wire.VersionResponse](ctx, c, wire.VersionService, "Version", &types.Empty{})
	if err != nil {
		return Version{}, about("read version", "", err)
	}
	return Version{Version: resp.Version, Revision: resp.Revision}, nil
}

// Namespaces lists the names of the daemon's namespaces.
func (c *Client) Namespaces(ctx context.Context) ([]string, error) {
	resp, err := query[wire.ListNamespacesResponse](ctx, c, wire.NamespacesService, "List", &wire.ListNamespacesRequest{})
	if err != nil {
		return nil, about("list namespaces", "", err)
	}
	out := make([]string, 0, len(resp.Namespaces))
	for _, n := range resp.Namespaces {
		out = append(out, n.Name)
	}
	return out, nil
}

// Snapshotters lists the names of the snapshotters that work on the daemon's host.
func (c *Client) Snapshotters(ctx context.Context) ([]string, error) {
	resp, err := query[wire.PluginsResponse](ctx, c, wire.PluginsService, "Plugins",
		&wire.PluginsRequest{Filters: []string{"type==" + snapshotterPlugin}})
	if err != nil {
		return nil, about("list snapshotters", "", err)
	}
	var out []string
	for _, p := range resp.Plugins {
		if p.InitErr == nil {
			out = append(out, p.Id)
		}
	}
	return out, nil
}

// CreateNamespace creates a namespace; an existing one is errdefs.ErrAlreadyExists.
func (c *Client) CreateNamespace(ctx context.Context, name string) error {
	_, err := call[wire.CreateNamespaceResponse](ctx, c, wire.NamespacesService, "Create",
		&wire.CreateNamespaceRequest{Namespace: &wire.Namespace{Name: name}})
	return about("create namespace", name, err)
}

// DeleteNamespace deletes an empty namespace; one that is not empty is
// errdefs.ErrFailedPrecondition.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	_, err := call[types.Empty](ctx, c, wire.NamespacesService, "Delete", &wire.DeleteNamespaceRequest{Name: name})
	return about("delete namespace", name, err)
}

// Spec returns the runtime spec that a container was created with.
func (c *Client) Spec(ctx context.Context, id string) (*specs.Spec, error) {
	var s specs.Spec
	return &s, c.readSpec(ctx, id, &s)
}

// ProcessSpec returns only the init of the spec; nil if the spec has none. It
// takes a fraction of the time of Spec.
func (c *Client) ProcessSpec(ctx context.Context, id string) (*specs.Process, error) {
	var s struct {
		Process *specs.Process `json:"process"`
	}
	err := c.readSpec(ctx, id, &s)
	return s.Process, err
}

func (c *Client) readSpec(ctx context.Context, id string, into any) error {
	resp, err := query[wire.GetContainerResponse](ctx, c, wire.ContainersService, "Get", &wire.GetContainerRequest{Id: id})
	if err != nil {
		return about("read spec of", id, err)
	}
	if resp.Container == nil || resp.Container.Spec == nil {
		return fmt.Errorf("read spec of %s: container has none: %w", id, errdefs.ErrNotFound)
	}
	if err := json.Unmarshal(resp.Container.Spec.Value, into); err != nil {
		return fmt.Errorf("decode spec of %s: %w", id, err)
	}
	return nil
}
