package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
)

// undoTime bounds the removal of a snapshot that came to nothing.
const undoTime = 30 * time.Second

// layer is a layer to be unpacked.
type layer struct {
	desc         ocispec.Descriptor
	diffID       digest.Digest
	name, parent string // of the snapshots
	number, of   int    // for people
}

func (l *layer) errorf(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("layer %d of %d, %s: %w", l.number, l.of, l.desc.Digest, err)
}

// unpackLayers makes the snapshots of layers, each upon the one before it. Where the snapshotter
// stacks them, they are filled at the same time, and committed in their order.
func unpackLayers(ctx context.Context, p Provider, s Snapshots, layers []layer, opts UnpackOptions) error {
	if stacker, ok := s.(Stacker); ok && len(layers) > 1 {
		if userXattr, ok := stacker.Layered(); ok {
			return sideBySide(ctx, p, stacker, layers, opts, userXattr)
		}
	}
	for i := range layers {
		f := &filling{layer: &layers[i], snapshots: s, parent: layers[i].parent}
		err := f.fill(ctx, p, opts)
		if err == nil {
			err = f.commit(ctx)
		}
		if err := errors.Join(err, f.discard(ctx)); err != nil {
			return layers[i].errorf(err)
		}
		opts.tell(f.desc, StateUnpacked)
	}
	return nil
}

// sideBySide fills several layers at once. The first is made upon its parent; the others upon none.
func sideBySide(ctx context.Context, p Provider, s Stacker, layers []layer, opts UnpackOptions, userXattr bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	atOnce := opts.AtOnce
	if atOnce == 0 {
		atOnce = max(2, runtime.GOMAXPROCS(0))
	}
	fillings := make([]*filling, len(layers))
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		for _, f := range fillings {
			err = errors.Join(err, f.discard(ctx))
		}
	}()
	slots := make(chan struct{}, atOnce)
	for i := range layers {
		f := &filling{layer: &layers[i], snapshots: s, done: make(chan struct{}), userXattr: userXattr}
		if i == 0 {
			f.parent = f.layer.parent
		} else {
			f.alone = true
		}
		fillings[i] = f
	}
	wg.Go(func() {
		for _, f := range fillings { // the lower layers go first
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				f.err = ctx.Err()
				close(f.done)
				continue
			}
			wg.Go(func() {
				defer func() { <-slots; close(f.done) }()
				f.err = f.fill(ctx, p, opts)
			})
		}
	})
	var below *filling
	for _, f := range fillings {
		<-f.done
		if err := f.stack(ctx, p, s, below, opts); err != nil {
			return f.errorf(err)
		}
		opts.tell(f.desc, StateUnpacked)
		below = f
	}
	return nil
}

// filling is a layer on its way into a snapshot.
type filling struct {
	*layer
	snapshots Snapshots
	// alone says that the snapshot is made upon none, in the form of userXattr; otherwise it is
	// made upon parent.
	alone, userXattr bool
	parent           string

	key string // of the active snapshot; "" once there is none
	// root is what the snapshot's root directory has, and ownRoot whether the layer says so.
	root    unix.Stat_t
	ownRoot bool
	dir     string

	done chan struct{} // closed once filled
	err  error
}

// tell tells whoever watches how far a layer has come.
func (o *UnpackOptions) tell(desc ocispec.Descriptor, state State) {
	if o.Watch != nil {
		o.Watch(desc, state)
	}
}

// fill prepares a snapshot and applies the layer to it, beside its being fetched where it is.
func (f *filling) fill(ctx context.Context, p Provider, opts UnpackOptions) error {
	if err := opts.check(f.desc.MediaType); err != nil {
		return err
	}
	if opts.Gate != nil {
		leave, err := opts.Gate.Enter(ctx)
		if err != nil {
			return err
		}
		defer leave()
	}
	if opts.Stream != nil {
		if done, err := f.fillBeside(ctx, opts); done || err != nil {
			return err
		}
	}
	if opts.Wait != nil {
		if err := opts.Wait(ctx, f.desc); err != nil {
			return err
		}
	}
	opts.tell(f.desc, StateUnpacking)
	blob, err := p.ReaderAt(ctx, f.desc.Digest)
	if err != nil {
		return err
	}
	return errors.Join(f.fillFrom(ctx, whole(blob), opts), blob.Close())
}

// fillBeside fills the snapshot from the bytes of the layer as they arrive. Not done, with nothing left of
// it, where the layer is here, or its bytes were not what they should be and are fetched anew.
func (f *filling) fillBeside(ctx context.Context, opts UnpackOptions) (done bool, err error) {
	stream, err := opts.Stream(ctx, f.desc)
	if stream == nil || err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	stop := context.AfterFunc(ctx, stream.Stop)
	defer stop()
	unpacked := f.fillFrom(ctx, stream, opts)
	// What is wrong with the bytes is for those to say who fetch them.
	if err := opts.Wait(ctx, f.desc); err != nil {
		return true, err
	}
	if unpacked != nil && !stream.Valid() {
		return false, f.discard(ctx)
	}
	opts.tell(f.desc, StateUnpacking)
	return true, unpacked
}

// fillFrom prepares the snapshot and fills it.
func (f *filling) fillFrom(ctx context.Context, from coded, opts UnpackOptions) error {
	key := "unpack-" + rand.Text() + " " + f.name
	mounts, err := f.snapshots.Prepare(ctx, key, f.parent)
	if err != nil {
		return err
	}
	f.key = key
	return f.apply(ctx, from, mounts, opts.ApplyOptions)
}

// stack commits a filled layer upon the one below it. A layer that could not be filled by itself is
// filled now.
func (f *filling) stack(ctx context.Context, p Provider, s Stacker, below *filling, opts UnpackOptions) error {
	if errors.Is(f.err, archive.ErrBelow) {
		if err := f.discard(ctx); err != nil {
			return err
		}
		f.alone, f.parent = false, f.layer.parent
		f.err = f.fill(ctx, p, opts)
	}
	if f.err != nil {
		return f.err
	}
	if !f.alone {
		return f.commit(ctx)
	}
	if !f.ownRoot {
		// As if it had been made upon the one below.
		f.root = below.root
		st := &f.root
		if err := errors.Join(os.Lchown(f.dir, int(st.Uid), int(st.Gid)), unix.Chmod(f.dir, st.Mode&0o7777)); err != nil {
			return err
		}
	}
	err := s.CommitUpon(ctx, f.name, f.key, f.layer.parent)
	return f.committed(err)
}

// commit commits a layer that was made upon its parent.
func (f *filling) commit(ctx context.Context) error {
	return f.committed(f.snapshots.Commit(ctx, f.name, f.key))
}

// committed takes it well where another has made the same layer meanwhile.
func (f *filling) committed(err error) error {
	if err == nil {
		f.key = ""
	}
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// discard removes a snapshot that came to nothing.
func (f *filling) discard(ctx context.Context) error {
	if f == nil || f.key == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	err := f.snapshots.Remove(ctx, f.key)
	if err == nil {
		f.key = ""
	}
	return err
}

// rootOf reads what the root of a filled snapshot has.
func (f *filling) rootOf(dir string) error {
	f.dir = dir
	if err := unix.Stat(dir, &f.root); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err.(syscall.Errno)}
	}
	return nil
}
