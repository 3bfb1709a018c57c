package runtime

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

// infoURL is the type of a shim's description of itself.
const infoURL = "containerd.types.RuntimeInfo"

// Describe runs a shim's published -info verb: name is a runtime name or an absolute path, options are
// the runtime's own and may be nil. The answer is a containerd.types.RuntimeInfo.
func (m *Manager) Describe(ctx context.Context, name string, options *types.Any) (*types.Any, error) {
	binary, err := m.resolve(name)
	if err != nil {
		return nil, err
	}
	var stdin []byte
	if options != nil {
		if stdin, err = rpc.Marshal(options); err != nil {
			return nil, err
		}
	}
	out, err := m.output(ctx, exec.Command(binary, "-info"), stdin) // output handles ctx
	if err != nil {
		return nil, fmt.Errorf("%s -info: %w", filepath.Base(binary), err)
	}
	var info types.RuntimeInfo
	if err := info.Unmarshal(out); err != nil {
		return nil, fmt.Errorf("%s -info: no RuntimeInfo: %w: %w", filepath.Base(binary), err, errdefs.ErrNotImplemented)
	}
	return &types.Any{TypeUrl: infoURL, Value: out}, nil
}
