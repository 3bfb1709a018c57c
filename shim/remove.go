package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/internal/exitrecord"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/task"
	"github.com/cleatproject/cleat/proto/types"
	"github.com/cleatproject/cleat/reaper"
)

// killedStatus is the exit status reported for a container that died with its shim: its exit was
// not seen.
const killedStatus = 137

// remove is the verb delete: it cleans up after a dead shim and kills the container if it still runs. A shim that
// is alive but unreachable is ended first if the daemon requests that by CLEAT_EVICT=1; if it cannot be, the
// container is removed nevertheless. It can be called any number of times. stdout gets a DeleteResponse, with the
// exit that the shim recorded, or else 137 and the present time.
func remove(cfg Config, env environment) error {
	var err error
	if env.evict {
		ctx, cancel := context.WithTimeout(context.Background(), lockLimit)
		defer cancel()
		err = evict(ctx, cfg.Bundle, cfg.ID)
	}
	r := reaper.New()
	err = errors.Join(err, removeContainer(cfg, newMonitor(r, os.Environ())), r.Close())
	if err != nil {
		return fmt.Errorf("delete %s: %w", cfg.ID, err)
	}
	resp := &task.DeleteResponse{ExitStatus: killedStatus, ExitedAt: types.FromTime(time.Now())}
	if pid, err := readPid(filepath.Join(cfg.Bundle, initPidFile)); err == nil {
		resp.Pid = uint32(pid)
	}
	rec, err := exitrecord.Read(cfg.Bundle)
	switch {
	case err == nil && rec.ID == cfg.ID:
		resp.Pid, resp.ExitStatus, resp.ExitedAt = uint32(rec.Pid), uint32(rec.Status), types.FromTime(rec.ExitedAt)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	}
	return answer(env, resp)
}

func removeContainer(cfg Config, m *monitor) error {
	h, err := readHandle(cfg.Bundle)
	switch {
	case errors.Is(err, os.ErrNotExist): // no container was created
		return mount.UnmountAll(filepath.Join(cfg.Bundle, "rootfs"), unix.UMOUNT_NOFOLLOW)
	case err != nil:
		return err
	case h.ID != cfg.ID:
		return fmt.Errorf("bundle %s belongs to %s: %w", cfg.Bundle, h.ID, errdefs.ErrInvalidArgument)
	}
	runc.Monitor = m
	rt := &ociRuntime{monitor: m, binary: h.Binary, root: h.Root, systemdCgroup: h.SystemdCgroup, bundle: cfg.Bundle}
	ctx, cancel := context.WithTimeout(context.Background(), undoLimit)
	defer cancel()
	if err := rt.forget(ctx, cfg.ID); err != nil {
		return err
	}
	if err := mount.UnmountAll(filepath.Join(cfg.Bundle, "rootfs"), unix.UMOUNT_NOFOLLOW); err != nil {
		return err
	}
	return removeOldSocket(cfg.Bundle)
}

// removeOldSocket removes the socket that `start` created for the dead shim.
func removeOldSocket(bundle string) error {
	data, err := os.ReadFile(filepath.Join(bundle, addressFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find socket: %w", err)
	}
	path, err := rpc.SocketPath(strings.TrimSpace(string(data)))
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}
