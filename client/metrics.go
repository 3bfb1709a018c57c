package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client/internal/wire"
	v1 "github.com/cleatproject/cleat/proto/cgroups/v1"
	v2 "github.com/cleatproject/cleat/proto/cgroups/v2"
	"github.com/cleatproject/cleat/proto/types"
)

// Metrics is the resource usage of a container, for both cgroup versions.
type Metrics struct {
	ID   string
	Time time.Time
	// CPU time used since the container was created.
	CPU time.Duration
	// Memory in bytes, without the page cache that can be dropped; the limit is 0 if there is
	// none.
	Memory, MemoryLimit uint64
	// Pids counts processes and threads; the limit is 0 if there is none.
	Pids, PidsLimit uint64
	// Bytes read from and written to block devices.
	BlockRead, BlockWrite uint64
}

// unlimited is the lowest memory limit that means none: cgroup v1 reports a number near 2^63.
const unlimited = 1 << 60

// Metrics returns the usage of running containers; filters are in containerd's syntax ("id==x"), none
// means all.
func (c *Client) Metrics(ctx context.Context, filters ...string) ([]Metrics, error) {
	resp, err := query[wire.MetricsResponse](ctx, c, wire.TasksService, "Metrics",
		&wire.MetricsRequest{Filters: filters})
	if err != nil {
		return nil, about("read metrics", "", err)
	}
	out := make([]Metrics, 0, len(resp.Metrics))
	for _, m := range resp.Metrics {
		x := Metrics{ID: m.Id, Time: m.Timestamp.Time()}
		if err := x.decode(m.Data); err != nil {
			return nil, about("decode metrics of", m.Id, err)
		}
		out = append(out, x)
	}
	return out, nil
}

func (x *Metrics) decode(data *types.Any) error {
	if data == nil {
		return nil
	}
	switch name := data.TypeUrl[strings.LastIndexByte(data.TypeUrl, '/')+1:]; name {
	case "io.containerd.cgroups.v1.Metrics":
		var m v1.Metrics
		if err := m.Unmarshal(data.Value); err != nil {
			return err
		}
		x.fromV1(&m)
	case "io.containerd.cgroups.v2.Metrics":
		var m v2.Metrics
		if err := m.Unmarshal(data.Value); err != nil {
			return err
		}
		x.fromV2(&m)
	default:
		return fmt.Errorf("metrics of type %q: %w", name, errdefs.ErrNotImplemented)
	}
	if x.MemoryLimit >= unlimited {
		x.MemoryLimit = 0
	}
	if x.PidsLimit >= unlimited {
		x.PidsLimit = 0
	}
	return nil
}

func (x *Metrics) fromV1(m *v1.Metrics) {
	if m.Cpu != nil && m.Cpu.Usage != nil {
		x.CPU = time.Duration(m.Cpu.Usage.Total)
	}
	if m.Memory != nil && m.Memory.Usage != nil {
		x.Memory = less(m.Memory.Usage.Usage, m.Memory.TotalInactiveFile)
		x.MemoryLimit = m.Memory.Usage.Limit
	}
	if m.Pids != nil {
		x.Pids, x.PidsLimit = m.Pids.Current, m.Pids.Limit
	}
	if m.Blkio != nil {
		for _, e := range m.Blkio.IoServiceBytesRecursive {
			switch strings.ToLower(e.Op) {
			case "read":
				x.BlockRead += e.Value
			case "write":
				x.BlockWrite += e.Value
			}
		}
	}
}

func (x *Metrics) fromV2(m *v2.Metrics) {
	if m.Cpu != nil {
		x.CPU = time.Duration(m.Cpu.UsageUsec) * time.Microsecond
	}
	if m.Memory != nil {
		x.Memory = less(m.Memory.Usage, m.Memory.InactiveFile)
		x.MemoryLimit = m.Memory.UsageLimit
	}
	if m.Pids != nil {
		x.Pids, x.PidsLimit = m.Pids.Current, m.Pids.Limit
	}
	if m.Io != nil {
		for _, e := range m.Io.Usage {
			x.BlockRead += e.Rbytes
			x.BlockWrite += e.Wbytes
		}
	}
}

func less(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}
