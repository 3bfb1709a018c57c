package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cleatproject/cleat/daemon/service/announce"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/proto/sandbox"
	"github.com/cleatproject/cleat/runtime"
)

// sandboxer is the one controller of sandboxes there is: a shim that speaks the sandbox API.
const sandboxer = "shim"

// Get returns a running sandbox, or one that was, for the controller that a client names.
func (s *Sandboxes) Get(namespace, controller, id string) (*runtime.Sandbox, error) {
	if err := checkSandboxer(controller); err != nil {
		return nil, err
	}
	return s.tasks.Sandbox(namespace, id)
}

func checkSandboxer(name string) error {
	if name != "" && name != sandboxer {
		return fmt.Errorf("sandbox controller %.80q: there is only %q: %w", name, sandboxer, errdefs.ErrNotFound)
	}
	return nil
}

// Launch is called by daemon/api/sandbox_controller.go and starts the shim of a sandbox, by
// runtime/sandbox.go. v is the sandbox as the client describes it with the call; where that has no
// id, the recorded one is taken. o lacks what stands in the record.
func (s *Sandboxes) Launch(ctx context.Context, namespace, controller string, v metadata.Sandbox, o runtime.SandboxOptions) error {
	unlock, err := s.locks.Lock(ctx, namespace+"/"+o.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if v.ID == "" {
		err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
			v, err = tx.Sandboxes(namespace).Get(o.ID)
			return err
		})
		if err != nil {
			return err
		}
	}
	if v.ID != o.ID {
		return fmt.Errorf("sandbox %.80q is described as %.80q: %w", o.ID, v.ID, errdefs.ErrInvalidArgument)
	}
	if err := checkSandboxer(cmp.Or(controller, v.Sandboxer)); err != nil {
		return err
	}
	if o.Runtime = v.Runtime.Name; o.Runtime == "" {
		err = s.db.View(ctx, func(tx *metadata.Tx) error {
			d, err := s.defaults.In(tx, namespace)
			o.Runtime = d.Runtime
			return err
		})
		if err != nil {
			return err
		}
	}
	if o.Options == nil {
		o.Options = toWireAny(v.Runtime.Options)
	}
	if v.Spec != nil {
		o.Spec = v.Spec.Value
	}
	_, err = s.tasks.CreateSandbox(ctx, namespace, o)
	return err
}

// Start makes a launched sandbox ready and announces that.
func (s *Sandboxes) Start(ctx context.Context, namespace, controller, id string) (*sandbox.StartSandboxResponse, *runtime.Sandbox, error) {
	b, err := s.Get(namespace, controller, id)
	if err != nil {
		return nil, nil, err
	}
	resp, err := b.Start(ctx)
	if err != nil {
		return nil, nil, err
	}
	return resp, b, s.db.Update(ctx, func(tx *metadata.Tx) error {
		return announce.Add(tx, namespace, "/sandboxes/start", &apievents.SandboxStart{SandboxID: id})
	})
}

// Stop ends a sandbox and announces that. Idempotent.
func (s *Sandboxes) Stop(ctx context.Context, namespace, controller, id string, timeout time.Duration) error {
	b, err := s.Get(namespace, controller, id)
	if err != nil {
		return err
	}
	before, err := b.Status(ctx, false)
	if err != nil {
		return err
	}
	if err := b.Stop(ctx, timeout); err != nil || before.State == runtime.NotReady {
		return err
	}
	exit, err := b.Wait(ctx)
	if err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *metadata.Tx) error {
		return announce.Add(tx, namespace, "/sandboxes/exit", &apievents.SandboxExit{
			SandboxID: id, ExitStatus: exit.Status, ExitedAt: timestamppb.New(exit.At),
		})
	})
}

// Shutdown removes a sandbox with its shim; its record stays. It is refused while a container
// of it has a task. Idempotent.
func (s *Sandboxes) Shutdown(ctx context.Context, namespace, controller, id string) error {
	unlock, err := s.locks.Lock(ctx, namespace+"/"+id)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := s.Get(namespace, controller, id)
	if errors.Is(err, errdefs.ErrNotFound) && checkSandboxer(controller) == nil {
		return nil
	}
	if err != nil {
		return err
	}
	var containers []metadata.Container
	err = s.db.View(ctx, func(tx *metadata.Tx) (err error) {
		containers, err = tx.Containers(namespace).List()
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range containers {
		if c.SandboxID != id {
			continue
		}
		if _, err := s.tasks.Get(namespace, c.ID); err == nil {
			return fmt.Errorf("shut sandbox %s down: container %s has a task; delete it first: %w", id, c.ID, errdefs.ErrFailedPrecondition)
		}
	}
	return b.Shutdown(ctx)
}

// joinSandbox returns the shim that is to hold a task of a sandbox's container; none for a shim of its own.
func joinSandbox(tasks *runtime.Manager, namespace, id string) (*runtime.Join, error) {
	b, err := tasks.Sandbox(namespace, id)
	if err != nil {
		return nil, fmt.Errorf("%w; its sandbox is not running: %w", err, errdefs.ErrFailedPrecondition)
	}
	return b.Join()
}
