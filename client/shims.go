package client

import (
	"context"

	"github.com/cleatproject/cleat/proto/cleatapi"
)

// Shim is a shim of the daemon.
type Shim struct {
	// ID of the container it was started for.
	ID, Namespace            string
	Pid                      uint32
	Runtime, Version, Socket string
	// State is ready, connecting, or unresponsive.
	State string
}

// Shims lists the namespace's shims, or every namespace's; it waits for none of them.
func (c *Client) Shims(ctx context.Context, allNamespaces bool) ([]Shim, error) {
	resp, err := query[cleatapi.ListShimsResponse](ctx, c, cleatapi.ShimsService, "List",
		&cleatapi.ListShimsRequest{AllNamespaces: allNamespaces})
	if err != nil {
		return nil, about("list shims", "", err)
	}
	out := make([]Shim, 0, len(resp.Shims))
	for _, m := range resp.Shims {
		out = append(out, Shim{
			ID: m.Id, Namespace: m.Namespace, Pid: m.Pid, Runtime: m.Runtime,
			Version: m.Version, Socket: m.Socket, State: m.State,
		})
	}
	return out, nil
}
