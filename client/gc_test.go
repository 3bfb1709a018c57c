package client_test

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
)

func TestGarbageCollection(t *testing.T) {
	f := newFake(t, map[string]*ttrpc.ServiceDesc{cleatapi.GCService: methods(map[string]ttrpc.Method{
		"Collect": rpc.Unary(func(_ context.Context, r *cleatapi.CollectRequest) (*cleatapi.CollectResponse, error) {
			resp := &cleatapi.CollectResponse{Freed: []*cleatapi.Freed{{Kind: "content", Namespace: "blue", Name: "sha256:00", Bytes: 5}}, Omitted: 2, Bytes: 9}
			if !r.DryRun {
				resp.Run = &cleatapi.GCRun{PauseNs: 7, Objects: 3}
			}
			return resp, nil
		}),
		"Stats": rpc.Unary(func(context.Context, *cleatapi.GCStatsRequest) (*cleatapi.GCStatsResponse, error) {
			return &cleatapi.GCStatsResponse{Runs: 4, LastError: "no"}, nil
		}),
		"Why": rpc.Unary(func(ctx context.Context, r *cleatapi.WhyRequest) (*cleatapi.WhyResponse, error) {
			if r.Names[0] == "none" {
				return nil, fmt.Errorf("none: %w", errdefs.ErrNotFound)
			}
			return &cleatapi.WhyResponse{Objects: []*cleatapi.Kept{
				{Name: r.Names[0], Chain: []*cleatapi.Reference{{Kind: "image", Name: namespaceOf(ctx), Via: "root"}}},
				{Name: r.Names[0], Chain: []*cleatapi.Reference{{Kind: "content", Name: "x"}}},
			}}, nil
		}),
	})})
	c := f.dial()
	want := client.Garbage{Freed: []client.Freed{{Kind: "content", Namespace: "blue", Name: "sha256:00", Bytes: 5}}, Omitted: 2, Bytes: 9}
	if got, err := c.FindGarbage(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	want.Run = client.GCRun{Pause: 7 * time.Nanosecond, Objects: 3}
	if got, err := c.CollectGarbage(t.Context()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := c.GCStats(t.Context()); err != nil || got.Runs != 4 || got.LastError != "no" || got.Last != (client.GCRun{}) {
		t.Errorf("%+v %v", got, err)
	}
	kept, err := c.Why(t.Context(), "img")
	if err != nil || len(kept) != 2 || kept[0].Garbage() || !kept[1].Garbage() || kept[0].Chain[0].Name != "blue" {
		t.Errorf("%+v %v", kept, err)
	}
	if _, err := c.Why(t.Context(), "none"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}
