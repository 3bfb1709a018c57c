package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/cleatproject/cleat/client/stdio"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

// ExportOptions of ExportImages; the zero value exports every platform that is present.
type ExportOptions struct {
	// Platform exports only the manifests for os/arch[/variant].
	Platform string
	// AllPlatforms makes the call fail if a platform of an image is missing.
	AllPlatforms bool
}

// ExportImages writes images, by name or digest, to w as one archive: an OCI layout that docker load
// accepts as well. The output of a failed call is unusable. If w is an *os.File the kernel moves
// the bytes; a write to any other blocks the call.
func (c *Client) ExportImages(ctx context.Context, w io.Writer, names []string, opts ExportOptions) (err error) {
	set, err := stdio.New(c.StdioRoot(), stdio.Want{Stdout: true})
	if err != nil {
		return fmt.Errorf("export images: %w", err)
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	set.Copy(stdio.Streams{Out: w})
	calling, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-set.Broken(): // Finish returns the error
			cancel()
		case <-calling.Done():
		}
	})
	_, err = c.transfer(calling, transfer{
		source:      storeEnd(&cleatapi.ImageStore{Names: names, Platform: opts.Platform, AllPlatforms: opts.AllPlatforms}),
		destination: archiveEnd(&cleatapi.ArchiveFile{Path: set.Paths.Stdout}),
	})
	cancel()
	wg.Wait()
	select {
	case <-set.Broken():
		return set.Finish(ctx)
	default:
	}
	if err != nil {
		return about("export images", "", err)
	}
	// The daemon has closed its end: once ours is closed, reading the pipe ends.
	if err := set.Started(); err != nil {
		return fmt.Errorf("export images: %w", err)
	}
	return set.Finish(ctx)
}
