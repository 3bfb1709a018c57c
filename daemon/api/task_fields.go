package api

import (
	"fmt"
	"strconv"

	api "github.com/containerd/containerd/api/services/tasks/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	apitask "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/internal/filters"
	"github.com/cleatproject/cleat/runtime"
)

// joinOf returns the shim that a task is to be created in; nil for one of its own. Older clients name
// it in the options of runc's shim.
func joinOf(req *api.CreateTaskRequest) (*runtime.Join, error) {
	at, version := req.GetTaskApiAddress(), req.GetTaskApiVersion()
	if o := req.GetOptions(); at == "" && o.MessageIs((*runcoptions.Options)(nil)) {
		var options runcoptions.Options
		if err := o.UnmarshalTo(&options); err != nil {
			return nil, fmt.Errorf("create task %s: options: %w: %w", req.GetContainerID(), err, errdefs.ErrInvalidArgument)
		}
		at, version = options.GetTaskApiAddress(), options.GetTaskApiVersion() //nolint:staticcheck // deprecated, and sent by older clients
	}
	if at == "" {
		return nil, nil
	}
	return &runtime.Join{Address: at, Version: version}, nil
}

// nonEmpty returns a list of the text, empty for "".
func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// taskFields are what filters see of a task.
func taskFields(i runtime.Info) filters.Adaptor {
	return filters.AdaptorFunc(func(path []string) (string, bool) {
		switch path[0] {
		case "id", "container":
			return i.ID, true
		case "pid":
			return strconv.FormatUint(uint64(i.Pid), 10), true
		case "status":
			return apitask.Status(i.Status).String(), true
		case "runtime":
			return i.Runtime, true
		}
		return "", false
	})
}
