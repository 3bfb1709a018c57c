package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/reason"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
)

// destroyLimit is how long a shim may take to undo its container before it is killed itself.
const destroyLimit = 20 * time.Second

// deleteTries bounds the number of shims of a task that Delete calls in turn, if they die during the
// call.
const deleteTries = 3

// Delete frees a stopped task with its shim and bundle and returns the init's exit. It returns
// errdefs.ErrFailedPrecondition for a running task, and errdefs.ErrNotFound if another call deletes it. It may
// be retried after any error. If ctx ends first the deletion continues: a shim that has deleted its container
// has no result for a second call.
func (t *Task) Delete(ctx context.Context) (Exit, error) {
	type result struct {
		exit Exit
		err  error
	}
	done := make(chan result, 1)
	t.m.spawn(func(ctx context.Context) {
		e, err := t.delete(ctx)
		done <- result{e, err}
	})
	select {
	case r := <-done:
		return r.exit, r.err
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("delete task %s: %w", t.id, ctx.Err())
	}
}

// delete is Delete, ending with the Manager at the latest.
func (t *Task) delete(ctx context.Context) (Exit, error) {
	for try := 1; ; try++ {
		c, err := t.connection(ctx)
		if t.Info().Link == Dead {
			return t.deleteDead()
		}
		if err != nil {
			return Exit{}, err
		}
		leave, err := t.m.gates.delete.Enter(ctx)
		if err != nil {
			return Exit{}, fmt.Errorf("delete task %s: %w", t.id, err)
		}
		resp, err := call[task.DeleteResponse](ctx, c, runtimeCall, "Delete", &task.DeleteRequest{Id: t.id})
		leave()
		if errdefs.IsUnavailable(err) && !t.recovered && t.durable().Phase == deleteReported && t.claimRemoval() {
			// The answer was lost, the event was not.
			e := t.Info().Exit
			resp, err = &task.DeleteResponse{Pid: e.Pid, ExitStatus: e.Status, ExitedAt: types.FromTime(e.At)}, nil
		}
		if err == nil {
			return t.removeDeleted(context.WithoutCancel(ctx), c, resp)
		}
		if t.isRemoving() && ctx.Err() == nil {
			return Exit{}, fmt.Errorf("delete task %s: deleted by another call: %w", t.id, reason.TaskNotFound)
		}
		// A shim that died is replaced or cleaned up: see watch.
		if ctx.Err() != nil || try == deleteTries || !c.broke(err) {
			return Exit{}, fmt.Errorf("delete task %s: %w", t.id, err)
		}
	}
}

// removeDeleted removes the remains of a task that its shim has deleted.
func (t *Task) removeDeleted(ctx context.Context, c *conn, resp *task.DeleteResponse) (Exit, error) {
	e := Exit{Pid: resp.Pid, Status: resp.ExitStatus, At: resp.ExitedAt.Time()}
	t.setExit(e)
	t.setRemoving()
	t.durable() // waits for an event that is being published
	// Before the bundle is removed: a shim without a bundle would not be found again.
	err := t.shutdown(ctx, c)
	if err := errors.Join(err, t.clear()); err != nil {
		t.m.cfg.Log.Warn("cannot remove the rest of a deleted task", "id", t.id, "namespace", t.namespace, "error", err)
	}
	t.m.forget(t)
	t.runGone()
	return e, nil
}

// clear removes the bundle, once: when a second caller arrives, the next task of that name may have its own at this
// path.
func (t *Task) clear() error {
	t.cleaning.Lock()
	defer t.cleaning.Unlock()
	t.keeping.Lock()
	defer t.keeping.Unlock()
	if t.cleared {
		return nil
	}
	if err := t.bundle.remove(); err != nil {
		return err
	}
	t.cleared = true
	return nil
}

// deleteDead is Delete for a task whose shim died and was cleaned up after.
func (t *Task) deleteDead() (Exit, error) {
	t.setRemoving()
	e := t.Info().Exit
	t.m.hide(t)
	if err := t.advance(evRemoved, e, nil); err != nil {
		t.m.show(t)
		return Exit{}, err
	}
	if err := t.clear(); err != nil {
		return Exit{}, err
	}
	t.m.forget(t)
	return e, nil
}

// destroy removes all parts of a task: its processes, the OCI runtime's state, mounts and the shim. The bundle
// stays for the caller to remove. The end of the task is published, if its start was: by the shim, or on its
// behalf.
func (t *Task) destroy(ctx context.Context, s *shim) error {
	t.setRemoving()
	leave, err := t.m.gates.delete.Enter(ctx)
	if err != nil {
		return fmt.Errorf("destroy task %s: %w", t.id, err)
	}
	defer leave()
	ctx, stop := withPatience(ctx, destroyLimit, t.shimPid)
	defer stop()
	// A new connection: closing the old one cancels the call that may still run in the shim.
	err = t.disconnect()
	if c, derr := dial(ctx, s.address); derr == nil {
		derr := t.dismantle(ctx, c)
		if derr == nil {
			return errors.Join(err, t.awaitGone(c, s))
		}
		if c.joined {
			return errors.Join(err, derr, c.client.Close())
		}
		t.update(func(i *Info) { i.ShimAddress = s.address.Address })
		err = errors.Join(err, t.killShim(c), t.awaitGone(c, s))
	}
	derr := t.cleanUp(ctx)
	if !s.address.Joined {
		derr = errors.Join(derr, removeSocket(s.address.Address))
	}
	return errors.Join(err, derr, t.removeUnshimmed())
}

// shimPid returns the pid of the shim, or 0 if it is not known.
func (t *Task) shimPid() int { return int(t.Info().ShimPid) }

// cleanUp removes what a dead shim has left, unless that was done before.
func (t *Task) cleanUp(ctx context.Context) error {
	t.cleaning.Lock()
	defer t.cleaning.Unlock()
	if t.Info().Link == Dead || t.isCleared() {
		return nil
	}
	_, err := t.m.cleanUpDead(ctx, t.bundle)
	return err
}

// isCleared reports whether the bundle was removed.
func (t *Task) isCleared() bool {
	t.keeping.Lock()
	defer t.keeping.Unlock()
	return t.cleared
}

// cleanUpExit cleans up after a dead shim: once, the OCI runtime's state and the mounts; then its
// container's exit is known, published, and readable until the task is deleted.
func (m *Manager) cleanUpExit(ctx context.Context, t *Task) error {
	leave, err := m.gates.delete.Enter(ctx)
	if err != nil {
		return fmt.Errorf("clean up after the shim of %s: %w", t.id, err)
	}
	defer leave()
	t.cleaning.Lock()
	defer t.cleaning.Unlock()
	if t.Info().Link == Dead || t.isCleared() {
		return nil // by another caller
	}
	rec, err := exitrecord.Read(t.bundle.path)
	if !t.durable().CleanedUp || err != nil {
		resp, derr := m.cleanUpDead(context.WithoutCancel(ctx), t.bundle)
		if derr != nil {
			m.cfg.Log.Warn("cleaning up with the shim's delete verb", "id", t.id, "namespace", t.namespace, "error", derr)
		}
		if err != nil { // no record: the shim died before its container
			rec = exitrecord.Record{ID: t.id, Pid: int(resp.Pid), Status: int(resp.ExitStatus), ExitedAt: resp.ExitedAt.Time()}
			if i := t.Info(); i.Status == types.Status_STOPPED { // as reported by the shim
				rec.Pid, rec.Status, rec.ExitedAt = int(i.Exit.Pid), int(i.Exit.Status), i.Exit.At
			}
			// A removed bundle holds no record, and needs none. On a full disk the exit is known
			// for as long as this daemon lives.
			if werr := exitrecord.Write(t.bundle.path, rec); werr != nil && !errors.Is(werr, fs.ErrNotExist) {
				m.cfg.Log.Warn("cannot record an exit", "id", t.id, "namespace", t.namespace, "error", werr)
			}
		}
	}
	e := Exit{Pid: uint32(rec.Pid), Status: uint32(rec.Status), At: rec.ExitedAt}
	t.setExit(e)
	t.update(func(i *Info) { i.Pid, i.Exit, i.Status = e.Pid, e, types.Status_STOPPED })
	if err := t.advance(evShimDied, e, nil); err != nil {
		return err
	}
	if addr, err := t.bundle.readAddress(); err == nil && !addr.Joined {
		if err := removeSocket(addr.Address); err != nil {
			return err
		}
	}
	t.setConn(nil, Dead)
	t.runGone()
	return nil
}

// cleanUpDead cleans up after a dead shim. State inside a virtual machine, for example, died with
// it.
func (m *Manager) cleanUpDead(ctx context.Context, b *bundle) (task.DeleteResponse, error) {
	if addr, err := b.readAddress(); err == nil && addr.Joined && b.read(shimBinaryFile) == "" {
		return task.DeleteResponse{ExitStatus: 255, ExitedAt: types.FromTime(time.Now())},
			mount.UnmountAll(b.file("rootfs"), unix.UMOUNT_NOFOLLOW)
	}
	return m.deleteVerb(ctx, b)
}

// evictEnv informs a shim, or its verb delete, that the socket of the previous shim has no listener: the shim is
// dead, or its socket file was removed, and then it must be ended.
const evictEnv = "CLEAT_EVICT=1"

// deleteVerb runs the published `delete` of the shim binary in the bundle. If it fails, the result
// is the published substitute: status 255, now.
func (m *Manager) deleteVerb(ctx context.Context, b *bundle) (task.DeleteResponse, error) {
	failed := task.DeleteResponse{ExitStatus: 255, ExitedAt: types.FromTime(time.Now())}
	binary := b.read(shimBinaryFile)
	if binary == "" {
		return failed, fmt.Errorf("bundle of %s: no shim binary recorded: %w", b.id, errdefs.ErrDataLoss)
	}
	cmd := m.shimCommand(b, binary, "delete", "-bundle", b.path)
	cmd.Env = append(cmd.Env, evictEnv)
	out, err := m.output(ctx, cmd, nil)
	if err != nil {
		return failed, fmt.Errorf("%s delete %s: %w", binary, b.id, err)
	}
	var resp task.DeleteResponse
	if err := resp.Unmarshal(out); err != nil {
		return failed, fmt.Errorf("%s delete %s: %w", binary, b.id, err)
	}
	return resp, nil
}

// Abandon kills a task and removes all of it, in any state of the task and its shim. It is for
// requests that failed after Create, and for removal by force. Of several concurrent calls one does
// the work, and the others wait for it.
func (t *Task) Abandon(ctx context.Context) error {
	t.abandoning.Lock()
	defer t.abandoning.Unlock()
	if t.isCleared() {
		return nil // by another caller
	}
	t.m.hide(t)
	var err error
	if t.Info().Link == Dead {
		t.setRemoving()
		err = t.removeUnshimmed()
	} else {
		t.mu.Lock()
		s := &shim{bundle: t.bundle, address: address{Address: t.info.ShimAddress}, child: t.child}
		t.mu.Unlock()
		if addr, aerr := t.bundle.readAddress(); aerr == nil {
			s.address = addr
		}
		err = t.destroy(ctx, s)
	}
	// Clients that wait for it must be notified of its end.
	t.setExit(Exit{Pid: t.Info().Pid, Status: uint32(128 + unix.SIGKILL), At: time.Now().UTC()})
	err = errors.Join(err, t.clear())
	t.m.forget(t)
	t.runGone()
	if err != nil {
		return fmt.Errorf("abandon task %s: %w", t.id, err)
	}
	return nil
}
