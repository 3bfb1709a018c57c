package snapshots

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/metadata"
	"github.com/cleatproject/cleat/mount"
	"github.com/cleatproject/cleat/snapshot"
)

// Labels by which a snapshot is made for a user namespace, "CONTAINER:HOST:SIZE" or several of these separated
// by commas, as published.
const (
	LabelUIDMapping = "containerd.io/snapshot/uidmapping"
	LabelGIDMapping = "containerd.io/snapshot/gidmapping"
)

// Owners maps the ids of an image's files to those that a user namespace gives its users.
type Owners struct {
	uid, gid idRanges
	options  []string // by which a mount does it
}

type idRange struct{ inside, outside, size uint32 }

// idRanges do not overlap, neither inside nor outside.
type idRanges []idRange

// to returns what an id is outside; ids beyond the ranges stay.
func (rs idRanges) to(id uint32) uint32 {
	for _, r := range rs {
		if id >= r.inside && id-r.inside < r.size {
			return r.outside + (id - r.inside)
		}
	}
	return id
}

// back undoes to.
func (rs idRanges) back(id uint32) uint32 {
	for _, r := range rs {
		if id >= r.outside && id-r.outside < r.size {
			return r.inside + (id - r.outside)
		}
	}
	return id
}

// OwnersOf reads the labels of a snapshot; nil where it is not made for a user namespace.
func OwnersOf(labels map[string]string) (*Owners, error) {
	uid, gid := labels[LabelUIDMapping], labels[LabelGIDMapping]
	if uid == "" && gid == "" {
		return nil, nil // there are none
	}
	o := &Owners{options: []string{"uidmap=" + uid, "gidmap=" + gid}}
	var err error
	if o.uid, err = parseRanges(uid); err == nil {
		o.gid, err = parseRanges(gid)
	}
	if err != nil {
		return nil, fmt.Errorf("labels %s and %s: %w", LabelUIDMapping, LabelGIDMapping, err)
	}
	return o, nil
}

// maxRanges is how many the kernel takes.
const maxRanges = 340

// parseRanges reads the value of a label.
func parseRanges(text string) (rs idRanges, err error) {
	parts := strings.Split(text, ",")
	if len(parts) > maxRanges {
		return nil, fmt.Errorf("%d ranges of ids, at most %d are possible: %w", len(parts), maxRanges, errdefs.ErrInvalidArgument)
	}
	for _, part := range parts {
		r, err := parseRange(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		for _, o := range rs {
			if r.inside < o.inside+o.size && o.inside < r.inside+r.size || r.outside < o.outside+o.size && o.outside < r.outside+r.size {
				return nil, fmt.Errorf("%q: two ranges of ids overlap: %w", text, errdefs.ErrInvalidArgument)
			}
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func parseRange(text string) (r idRange, err error) {
	fields := strings.Split(text, ":")
	numbers := []*uint32{&r.inside, &r.outside, &r.size}
	if len(fields) != len(numbers) {
		return r, fmt.Errorf("%q: want CONTAINER:HOST:SIZE: %w", text, errdefs.ErrInvalidArgument)
	}
	for i, n := range numbers {
		v, err := strconv.ParseUint(fields[i], 10, 31)
		if err != nil {
			return r, fmt.Errorf("%q: %w: %w", text, err, errdefs.ErrInvalidArgument)
		}
		*n = uint32(v)
	}
	if r.size == 0 {
		return r, fmt.Errorf("%q maps nothing: %w", text, errdefs.ErrInvalidArgument)
	}
	return r, nil
}

// fit makes the mounts of a snapshot what its labels ask for. made says that the snapshot was made just
// now, and its own files may still be changed for it.
//
// A user namespace's owners are mapped by the kernel where it can: for the layers below an overlay, and
// for views. Otherwise the files of the snapshot are given to them, once, when it is made.
func fit(ctx context.Context, mounts []mount.Mount, rec metadata.Snapshot, made bool) ([]mount.Mount, error) {
	if rec.Labels[LabelVolatile] == "true" {
		mounts = throwAway(mounts)
	}
	owners, err := OwnersOf(rec.Labels)
	if owners == nil || err != nil {
		return mounts, err
	}
	if mapped := owners.byMount(mounts, rec.Kind); mapped != nil {
		if upper, _, ok := mount.OverlayDirs(mounts[0]); made && ok && upper != "" {
			return mapped, owners.give(upper)
		}
		return mapped, nil
	}
	if rec.Kind != snapshot.KindActive {
		return nil, fmt.Errorf("this host cannot map the owners of files in a view: %w", errdefs.ErrNotImplemented)
	}
	if !made {
		return mounts, nil
	}
	return mounts, owners.giveAll(ctx, mounts)
}

// byMount returns mounts that map owners; nil where the kernel cannot.
func (o *Owners) byMount(mounts []mount.Mount, kind snapshot.Kind) []mount.Mount {
	if len(mounts) != 1 {
		return nil
	}
	m := mounts[0]
	_, lower, overlay := mount.OverlayDirs(m)
	if !overlay {
		if m.Type != "bind" || kind != snapshot.KindView {
			return nil
		}
		lower = []string{m.Source}
	}
	if !mount.IDMappable(lower[0]) {
		return nil
	}
	m.Options = append(slices.Clone(m.Options), o.options...)
	return []mount.Mount{m}
}

// give changes the owner of one file.
func (o *Owners) give(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	var caps [24]byte
	n, err := unix.Lgetxattr(path, capability, caps[:])
	if err != nil {
		n = 0 // there are none, as a rule, and nowhere to keep them otherwise
	}
	if err := os.Lchown(path, int(o.uid.to(st.Uid)), int(o.gid.to(st.Gid))); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK && st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 { // which chown took
		if err := unix.Chmod(path, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	if n == 0 {
		return nil
	}
	if err := unix.Lsetxattr(path, capability, o.capabilities(caps[:n]), 0); err != nil {
		return &os.PathError{Op: "setxattr", Path: path, Err: err}
	}
	return nil
}

// capability is the attribute with a file's capabilities. Its second form counts for the host's root,
// its third for the one it names.
const (
	capability       = "security.capability"
	capVersionMask   = 0xff000000
	capVersionSecond = 0x02000000
	capVersionThird  = 0x03000000
)

// capabilities makes a file's capabilities those that root in the user namespace can use.
func (o *Owners) capabilities(value []byte) []byte {
	if len(value) != 20 || binary.LittleEndian.Uint32(value)&capVersionMask != capVersionSecond {
		return value
	}
	out := slices.Clone(value)
	binary.LittleEndian.PutUint32(out, binary.LittleEndian.Uint32(value)&^capVersionMask|capVersionThird)
	return binary.LittleEndian.AppendUint32(out, o.uid.to(0))
}

// Back gives owner and capabilities of a file what they were for, for DiffOptions.Owners.
func (o *Owners) Back(uid, gid uint32, caps string) (newUID, newGID uint32, newCaps string) {
	value := []byte(caps)
	if len(value) == 24 && binary.LittleEndian.Uint32(value)&capVersionMask == capVersionThird && binary.LittleEndian.Uint32(value[20:]) == o.uid.to(0) {
		value = value[:20]
		binary.LittleEndian.PutUint32(value, binary.LittleEndian.Uint32(value)&^capVersionMask|capVersionSecond)
	}
	return o.uid.back(uid), o.gid.back(gid), string(value)
}

// MapsWhatItReads reports whether a difference of these mounts would see files through a mount that maps owners,
// and their owners mapped twice. That is not so for what stands in an overlay's upper directory.
func (o *Owners) MapsWhatItReads(left, right []mount.Mount) bool {
	if o == nil || image.ReadsUpperAlone(left, right) {
		return false
	}
	return slices.ContainsFunc(right, func(m mount.Mount) bool { return slices.Contains(m.Options, o.options[0]) })
}

// giveAll changes the owner of every file of a snapshot, each once, however many names it has.
func (o *Owners) giveAll(ctx context.Context, mounts []mount.Mount) (err error) {
	dir, err := os.MkdirTemp("", "cleat-owners-")
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := mount.All(mounts, dir); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	defer func() {
		if uerr := mount.UnmountAll(dir, 0); uerr != nil {
			err = errors.Join(err, uerr)
			return
		}
		err = errors.Join(err, os.Remove(dir))
	}()
	seen := make(map[uint64]bool)
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !info.IsDir() && st.Nlink > 1 {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		return o.give(path)
	})
}
