package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
)

// undoTime bounds the removal of a failed snapshot.
const undoTime = 30 * time.Second

// layer is a layer to be unpacked.
type layer struct {
	desc         ocispec.Descriptor
	diffID       digest.Digest
	name, parent string // of the snapshots
	number, of   int    // for messages
}

func (l *layer) errorf(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("layer %d of %d, %s: %w", l.number, l.of, l.desc.Digest, err)
}

// unpackLayers creates the snapshots of layers, each on the one before it. If the snapshotter
// supports stacking, they are filled in parallel, and committed in their order.
func unpackLayers(ctx context.Context, p Provider, s Snapshots, layers []layer, opts UnpackOptions) error {
	if stacker, ok := s.(Stacker); ok && len(layers) > 1 {
		if userXattr, ok := stacker.Layered(); ok {
			return fillInParallel(ctx, p, stacker, layers, opts, userXattr)
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
		opts.report(f.desc, StateUnpacked)
	}
	return nil
}

// fillInParallel fills several layers in parallel. The first is created on its parent; the others without one.
func fillInParallel(ctx context.Context, p Provider, s Stacker, layers []layer, opts UnpackOptions, userXattr bool) (err error) {
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
		opts.report(f.desc, StateUnpacked)
		below = f
	}
	return nil
}

// filling is a layer that is being unpacked into a snapshot.
type filling struct {
	*layer
	snapshots Snapshots
	// alone marks a snapshot created without a parent, in the form of userXattr; otherwise it is
	// created on parent.
	alone, userXattr bool
	parent           string

	key string // of the active snapshot; "" if there is none
	// root holds the attributes of the snapshot's root directory, ownRoot whether the layer sets them.
	root    unix.Stat_t
	ownRoot bool
	dir     string

	done chan struct{} // closed once filled
	err  error
}

// report passes the progress of a layer to Watch.
func (o *UnpackOptions) report(desc ocispec.Descriptor, state State) {
	if o.Watch != nil {
		o.Watch(desc, state)
	}
}

// fill prepares a snapshot and applies the layer to it, in parallel with its download if there is one.
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
	if opts.From != nil {
		if done, err := f.fillFromStream(ctx, opts); done || err != nil {
			return err
		}
		if err := opts.From.Wait(ctx, f.desc); err != nil {
			return err
		}
	}
	opts.report(f.desc, StateUnpacking)
	blob, err := p.ReaderAt(ctx, f.desc.Digest)
	if err != nil {
		return err
	}
	return errors.Join(f.fillFrom(ctx, openStream(blob), opts), blob.Close())
}

// fillFromStream fills the snapshot from the bytes of the layer as they arrive. Not done, with nothing left
// of it, if the layer is local, or its bytes were wrong and are fetched again.
func (f *filling) fillFromStream(ctx context.Context, opts UnpackOptions) (done bool, err error) {
	stream, err := opts.From.Stream(ctx, f.desc)
	if stream == nil || err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	stop := context.AfterFunc(ctx, stream.Stop)
	defer stop()
	unpacked := f.fillFrom(ctx, stream, opts)
	// Prefer the fetch error: it caused the unpack error.
	if err := opts.From.Wait(ctx, f.desc); err != nil {
		return true, err
	}
	if unpacked != nil && !stream.Valid() {
		return false, f.discard(ctx)
	}
	opts.report(f.desc, StateUnpacking)
	return true, unpacked
}

// fillFrom prepares the snapshot and fills it.
func (f *filling) fillFrom(ctx context.Context, from layerStream, opts UnpackOptions) error {
	key := "unpack-" + rand.Text() + " " + f.name
	mounts, err := f.snapshots.Prepare(ctx, key, f.parent)
	if err != nil {
		return err
	}
	f.key = key
	return f.apply(ctx, from, mounts, opts.ApplyOptions)
}

// stack commits a filled layer on the one below it. A layer that could not be filled by itself is
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
		// As if it had been created on the one below.
		f.root = below.root
		st := &f.root
		if err := errors.Join(os.Lchown(f.dir, int(st.Uid), int(st.Gid)), unix.Chmod(f.dir, st.Mode&0o7777)); err != nil {
			return err
		}
	}
	err := s.CommitOn(ctx, f.name, f.key, f.layer.parent)
	return f.committed(err)
}

// commit commits a layer that was created on its parent.
func (f *filling) commit(ctx context.Context) error {
	return f.committed(f.snapshots.Commit(ctx, f.name, f.key))
}

// committed treats it as success if a concurrent unpack has created the same layer.
func (f *filling) committed(err error) error {
	if err == nil {
		f.key = ""
	}
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// discard removes a failed snapshot.
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

// rootOf reads the attributes of a filled snapshot's root.
func (f *filling) rootOf(dir string) error {
	f.dir = dir
	if err := unix.Stat(dir, &f.root); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return nil
}
