package content

import (
	"context"
	_ "crypto/sha512" // SHA-384 and SHA-512, which go-digest does not import
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"

	"github.com/cleatproject/cleat/internal/durable"
	"github.com/cleatproject/cleat/proto/reason"
)

// Store is a content store. It is safe for concurrent use.
type Store struct {
	dir  string
	disk durable.Disk
	boot string // the boot ID of the machine; "" if unknown
	pace pace
	bufs sync.Pool // of *[]byte, bufferSize long

	mu      sync.Mutex
	writing map[string]*Writer // by ref; nil while its writer is being opened
}

// Info describes a blob.
type Info struct {
	Digest    digest.Digest
	Size      int64
	CreatedAt time.Time
}

// Options change how a store works. The zero value is right except in tests.
type Options struct {
	// FS is the file system that the store writes to; nil is the host's.
	FS durable.FS
	// ReadOnly opens an existing store for reading only, also concurrently with the process that uses it:
	// nothing on disk is changed. A method that would is a failed precondition.
	ReadOnly bool
}

// Open opens the store in dir, creates missing directories, and cleans up after a crash:
// see the package's text.
func Open(dir string) (*Store, error) { return OpenWith(dir, Options{}) }

// OpenWith is Open with options.
func OpenWith(dir string, opts Options) (*Store, error) {
	if opts.FS == nil {
		opts.FS = durable.OS{}
	}
	if opts.ReadOnly {
		opts.FS = readOnly{}
	}
	return open(dir, opts, bootID(), defaultPace())
}

func open(dir string, opts Options, boot string, p pace) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	s := &Store{dir: abs, disk: durable.On(opts.FS), boot: boot, pace: p, writing: make(map[string]*Writer)}
	s.bufs.New = func() any { b := make([]byte, bufferSize); return &b }
	if opts.ReadOnly {
		return s, nil
	}
	dirs := []string{s.ingests()}
	for _, a := range algorithms() {
		dirs = append(dirs, s.blobs(a))
	}
	for _, d := range dirs {
		if err := s.disk.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	if err := s.recover(); err != nil {
		return nil, fmt.Errorf("open content store: %w", err)
	}
	return s, nil
}

// bootID returns the kernel's boot ID.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // then no unsynced data is trusted
	}
	return strings.TrimSpace(string(raw))
}

func algorithms() []digest.Algorithm {
	return []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}
}

func (s *Store) blobs(a digest.Algorithm) string { return filepath.Join(s.dir, "blobs", a.String()) }

// path returns the present or future path of the blob. Only a valid digest of a supported algorithm has
// a path: it is part of a file name.
func (s *Store) path(d digest.Digest) (string, error) {
	if err := validateDigest(d); err != nil {
		return "", err
	}
	return filepath.Join(s.blobs(d.Algorithm()), d.Encoded()), nil
}

func validateDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %.160q: %w: %w", d, err, errdefs.ErrInvalidArgument)
	}
	for _, a := range algorithms() {
		if d.Algorithm() == a {
			return nil
		}
	}
	return fmt.Errorf("digest %.160q: algorithm is not supported: %w", d, errdefs.ErrInvalidArgument)
}

// Info returns the attributes of a blob, or not found.
func (s *Store) Info(ctx context.Context, d digest.Digest) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	path, err := s.path(d)
	if err != nil {
		return Info{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return Info{}, blobError("stat", d, err)
	}
	return info(d, fi), nil
}

func info(d digest.Digest, fi fs.FileInfo) Info {
	return Info{Digest: d, Size: fi.Size(), CreatedAt: fi.ModTime().UTC()}
}

// blobError adds action, blob and class to an error.
func blobError(verb string, d digest.Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("content %s: %w", d, reason.ContentNotFound)
	}
	return fmt.Errorf("%s content %s: %w", verb, d, diskError(err))
}

// diskError sets the class of an error of the file system.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	}
	return err
}

// Walk calls fn with every blob, in no particular order, until fn fails. Blobs
// that are added or deleted concurrently may be seen or not.
func (s *Store) Walk(ctx context.Context, fn func(Info) error) error {
	for _, a := range algorithms() {
		entries, err := os.ReadDir(s.blobs(a))
		if err != nil {
			return fmt.Errorf("list content: %w", err)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			d := digest.NewDigestFromEncoded(a, e.Name())
			fi, err := e.Info()
			if err != nil || d.Validate() != nil || !fi.Mode().IsRegular() {
				continue // deleted concurrently, or not a blob
			}
			if err := fn(info(d, fi)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete deletes a blob permanently, or returns not found. Open Readers stay valid.
func (s *Store) Delete(ctx context.Context, d digest.Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path, err := s.path(d)
	if err != nil {
		return err
	}
	if err := s.disk.Remove(path); err != nil {
		return blobError("delete", d, err)
	}
	return s.disk.SyncDir(filepath.Dir(path))
}
