package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/cleatproject/cleat/client"
	"github.com/cleatproject/cleat/mount"
)

func imageMountCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "mount [FLAGS] [IMAGE DIRECTORY]", Short: "mount an image, or list mounted images",
		Long: "The image is mounted in the mount namespace of this command, read-only unless --rw is given. cleat image\n" +
			"unmount unmounts it and discards what was written.",
		Args: argCount(0, 2), ValidArgsFunction: a.completeArgs(false, listImages, nil),
	}
	fs := cmd.Flags()
	var r client.MountImageRequest
	l := &listFlags{}
	l.declare(fs)
	fs.BoolVar(&r.Writable, "rw", false, "mount read-write")
	fs.StringVar(&r.Platform, "platform", "", "mount the image for `PLATFORM`: OS/ARCH[/VARIANT] (default that of the host)")
	fs.StringVar(&r.Snapshotter, "snapshotter", "", "use the snapshotter `NAME`")
	inGroup(fs, groupImage, "platform")
	inGroup(fs, groupStorage, "rw", "snapshotter")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return listMounts(cmd.Context(), a, l)
		case 1:
			return usage(cmd.CommandPath(), fmt.Errorf("mount image %s: no directory given: %w", args[0], errdefs.ErrInvalidArgument))
		}
		r.Image = args[0]
		return mountImage(cmd.Context(), a, r, args[1])
	}
	return cmd
}

// ownMounts returns the identity of this program's mount namespace.
func ownMounts() (string, error) {
	ns, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return "", fmt.Errorf("look up mount namespace: %w", err)
	}
	return ns, nil
}

// plainPath returns the absolute path of a file with symbolic links resolved.
func plainPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("directory %s: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	return abs, err
}

func mountImage(ctx context.Context, a *app, r client.MountImageRequest, dir string) (err error) {
	if r.Target, err = plainPath(dir); err != nil {
		return hinted(err, "the directory must exist; mkdir creates it")
	}
	if info, err := os.Stat(r.Target); err != nil || !info.IsDir() {
		return fmt.Errorf("mount image on %s: not a directory: %w", dir, errdefs.ErrInvalidArgument)
	}
	if r.MountNamespace, err = ownMounts(); err != nil {
		return err
	}
	// An interrupt takes effect only after the mount is complete or undone.
	proxy, ctx := newProxy(ctx)
	defer proxy.close()
	return a.withClient(ctx, func(c *client.Client) error {
		steps, key, err := c.MountImage(ctx, r)
		if errdefs.IsAlreadyExists(err) {
			return hinted(err, "cleat image unmount "+r.Target+" unmounts it")
		}
		if err != nil {
			return err
		}
		if err := mount.All(mounts(steps), r.Target); err != nil {
			err = fmt.Errorf("mount image %s on %s: %w", r.Image, r.Target, needsRoot(err))
			return errors.Join(err, c.UnmountImage(context.WithoutCancel(ctx), r.Target, key, true))
		}
		return writeLines(a.stdout, []string{r.Target})
	})
}

func mounts(steps []client.MountStep) []mount.Mount {
	out := make([]mount.Mount, len(steps))
	for i, s := range steps {
		out[i] = mount.Mount{Type: s.Type, Source: s.Source, Target: s.Target, Options: s.Options}
	}
	return out
}

// isMounted reports whether the directory of a mount shows its image (ours), or another file system (other).
func isMounted(m client.ImageMount) (ours, other bool, err error) {
	at, err := mount.Containing(m.Target)
	if errors.Is(err, fs.ErrNotExist) { // the directory was removed
		return false, false, nil
	}
	if err != nil || at.Point != m.Target {
		return false, false, err
	}
	if len(m.Steps) == 0 {
		return true, false, nil
	}
	step := m.Steps[0]
	switch step.Type {
	case "overlay":
		ours = at.Type == "overlay" && at.Source == step.Source
	case "bind":
		var source, target syscall.Stat_t
		if err := errors.Join(syscall.Stat(step.Source, &source), syscall.Stat(m.Target, &target)); err != nil {
			return false, true, fmt.Errorf("inspect mount on %s: %w", m.Target, err)
		}
		ours = source.Dev == target.Dev && source.Ino == target.Ino
	default:
		ours = at.Type == step.Type
	}
	return ours, !ours, nil
}

func imageUnmountCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "unmount [FLAGS] DIRECTORY...", Short: "unmount images", Aliases: []string{"umount"},
		Long: "What was written to an image mounted with --rw is discarded: with the next garbage collection, or at once\n" +
			"with --rm.",
		Args: argCount(1, -1), ValidArgsFunction: a.completeArgs(true, listMountedDirectories),
	}
	remove := cmd.Flags().Bool("rm", false, "remove the snapshot at once")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		proxy, ctx := newProxy(cmd.Context())
		defer proxy.close()
		return a.withClient(ctx, func(c *client.Client) error {
			var errs error
			for _, dir := range args {
				if err := unmountImage(ctx, c, dir, *remove); err != nil {
					errs = errors.Join(errs, err)
					continue
				}
				errs = errors.Join(errs, writeLines(a.stdout, []string{dir}))
			}
			return errs
		})
	}
	return cmd
}

func unmountImage(ctx context.Context, c *client.Client, dir string, remove bool) error {
	target, err := plainPath(dir)
	if err != nil {
		if target, err = filepath.Abs(dir); err != nil { // the directory may have been removed
			return err
		}
	}
	m, err := mountedOn(ctx, c, target)
	if err != nil {
		return err
	}
	ours, other, err := isMounted(m)
	if err != nil {
		return err
	}
	if other {
		return hinted(fmt.Errorf("unmount image from %s: something else is mounted on it: %w", target, errdefs.ErrFailedPrecondition),
			"umount "+target+" unmounts it")
	}
	for i := len(m.Steps) - 1; ours && i >= 0; i-- {
		if err := syscall.Unmount(filepath.Join(target, m.Steps[i].Target), 0); errors.Is(err, syscall.EBUSY) {
			return hinted(fmt.Errorf("unmount image from %s: directory in use: %w", target, errdefs.ErrFailedPrecondition), "fuser -vm "+target+" lists the processes")
		} else if err != nil {
			return fmt.Errorf("unmount image from %s: %w", target, needsRoot(err))
		}
	}
	return c.UnmountImage(context.WithoutCancel(ctx), target, m.Key, remove)
}

// needsRoot adds the reason to the error of a system call that this user is not allowed to make.
func needsRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return client.WithReason(err, client.ReasonRootRequired)
	}
	return err
}

// mountedOn finds the image mounted on a directory, in this program's mount namespace or one that no longer exists.
func mountedOn(ctx context.Context, c *client.Client, target string) (client.ImageMount, error) {
	own, err := ownMounts()
	if err != nil {
		return client.ImageMount{}, err
	}
	list, err := c.ImageMounts(ctx)
	if err != nil {
		return client.ImageMount{}, err
	}
	elsewhere := false
	for _, m := range list {
		if m.Target != target {
			continue
		}
		if m.MountNamespace == own || m.MountNamespace == "" {
			return m, nil
		}
		elsewhere = true
	}
	if elsewhere {
		return client.ImageMount{}, fmt.Errorf("unmount image from %s: mounted in another mount namespace: %w", target, errdefs.ErrFailedPrecondition)
	}
	return client.ImageMount{}, hinted(fmt.Errorf("unmount image from %s: no image is mounted on it: %w", target, errdefs.ErrNotFound),
		"cleat image mount lists mounted images; --namespace selects another namespace")
}

// imageMountJSON is the JSON form of a mounted image.
type imageMountJSON struct {
	Target      string `json:"target"`
	Image       string `json:"image"`
	Writable    bool   `json:"writable"`
	Status      string `json:"status"`
	Snapshotter string `json:"snapshotter"`
	Key         string `json:"key"`
	Created     string `json:"created"`
}

func listMounts(ctx context.Context, a *app, l *listFlags) error {
	own, err := ownMounts()
	if err != nil {
		return err
	}
	return a.withClient(ctx, func(c *client.Client) error {
		list, err := c.ImageMounts(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		names, rows, asJSON := []string{}, [][]string{}, []imageMountJSON{}
		for _, m := range list {
			status := "elsewhere" // in another mount namespace
			if m.MountNamespace == own {
				status = "not mounted"
				if ours, _, err := isMounted(m); err == nil && ours {
					status = "mounted"
				}
			}
			mode := "ro"
			if m.Writable {
				mode = "rw"
			}
			names = append(names, m.Target)
			rows = append(rows, []string{m.Target, m.Image, mode, status, since(m.CreatedAt, now)})
			asJSON = append(asJSON, imageMountJSON{m.Target, m.Image, m.Writable, status, m.Snapshotter, m.Key, timestamp(m.CreatedAt)})
		}
		return l.show(a.stdout, []string{"DIRECTORY", "IMAGE", "MODE", "STATUS", "AGE"}, rows, names, asJSON)
	})
}
