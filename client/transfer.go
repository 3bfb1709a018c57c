package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/client/internal/wire"
	"github.com/cleatproject/cleat/proto/cleatapi"
	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

// transfer is one call of containerd's transfer service. Its answer is empty: the result is reported on a
// stream. Call and streams share a connection, so that closing it ends them all in the daemon.
type transfer struct {
	source, destination end
	// registry is the end that asks for the credential; nil if none does.
	registry   *cleatapi.Registry
	credential Credential
	// progress, if not nil, is called with changed parts, by one goroutine at a time.
	progress func([]Part)
}

// end is a source or destination, and the name of its type.
type end struct {
	typ     string
	message rpc.Message
}

func registryEnd(m *cleatapi.Registry) end   { return end{cleatapi.RegistryType, m} }
func storeEnd(m *cleatapi.ImageStore) end    { return end{cleatapi.ImageStoreType, m} }
func archiveEnd(m *cleatapi.ArchiveFile) end { return end{cleatapi.ArchiveFileType, m} }

// outcome is the result of a transfer.
type outcome struct {
	saved  []string // names, in order
	pushed *wire.Descriptor
}

// duplex is a stream of the streaming service.
type duplex = rpc.Duplex[types.Any, *types.Any]

// transfer makes the call and returns the result reported until its end.
func (c *Client) transfer(ctx context.Context, t transfer) (out outcome, err error) {
	conn, err := c.conns.take(ctx)
	if err != nil {
		return out, err
	}
	defer func() { c.conns.put(conn, err == nil) }()
	streaming, leave := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		leave()
		wg.Wait()
	}()
	if t.registry != nil && t.credential != (Credential{}) {
		id, s, err := openStream(streaming, conn, "auth")
		if err != nil {
			return out, err
		}
		t.registry.AuthStream = id
		wg.Go(func() { answer(streaming, s, t.credential) })
	}
	id, s, err := openStream(streaming, conn, "progress")
	if err != nil {
		return out, err
	}
	req := &wire.TransferRequest{Options: &wire.TransferOptions{ProgressStream: id}}
	if req.Source, err = pack(t.source.typ, t.source.message); err != nil {
		return out, err
	}
	if req.Destination, err = pack(t.destination.typ, t.destination.message); err != nil {
		return out, err
	}
	f := newFollower(t.progress)
	followed := make(chan error, 1)
	wg.Go(func() { followed <- f.follow(streaming, s) })
	_, err = rpc.Call[types.Empty](c.outgoing(ctx), conn.ttrpc, wire.TransferService, "Transfer", req)
	if err != nil {
		leave() // a stream of a daemon that has ended may not end
	}
	ferr := <-followed
	f.finish()
	if err == nil && ferr != nil {
		err = fmt.Errorf("receive progress: %w: %w", ferr, errdefs.ErrUnavailable)
	}
	if err == nil {
		wg.Wait() // the daemon ends the other one as well, and the connection can be used again
	}
	return f.outcome, err
}

// openStream opens a stream for a later call, and returns its id once the daemon has registered it.
func openStream(ctx context.Context, conn *conn, what string) (string, *duplex, error) {
	s, err := rpc.OpenDuplex[types.Any](ctx, conn.ttrpc, wire.StreamingService, "Stream")
	if err != nil {
		return "", nil, err
	}
	id := what + "-" + rand.Text()
	first, err := pack(wire.StreamInitType, &wire.StreamInit{Id: id})
	if err != nil {
		return "", nil, err
	}
	if err := s.Send(ctx, first); err != nil {
		return "", nil, fmt.Errorf("open stream for %s: %w", what, err)
	}
	_, err = s.Receive(ctx) // the acknowledgement
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("ended by the daemon: %w", errdefs.ErrUnavailable)
	}
	if err != nil {
		return "", nil, fmt.Errorf("open stream for %s: %w", what, err)
	}
	return id, s, nil
}

// answer sends the credential when the daemon asks for it, until the stream ends. The daemon asks for the registry
// of the reference, and for no other host.
func answer(ctx context.Context, s *duplex, c Credential) {
	for {
		a, err := s.Receive(ctx)
		if err != nil {
			return // the call returns the error
		}
		var asked wire.AuthRequest
		if a.TypeUrl != wire.AuthRequestType || asked.Unmarshal(a.Value) != nil {
			continue
		}
		m, err := pack(wire.AuthResponseType, c.answer(asked.Wwwauthenticate))
		if err != nil || s.Send(ctx, m) != nil {
			return
		}
	}
}

// answer returns the part of a credential that matches a registry's challenges.
func (c Credential) answer(challenges []string) *wire.AuthResponse {
	basic := len(challenges) > 0 && !strings.Contains(strings.ToLower(strings.Join(challenges, ",")), "bearer ")
	switch {
	case basic && c.Username != "" && c.Password != "":
	case c.RegistryToken != "":
		return &wire.AuthResponse{AuthType: wire.AuthType_HEADER, Secret: "Bearer " + c.RegistryToken}
	case c.IdentityToken != "":
		return &wire.AuthResponse{AuthType: wire.AuthType_REFRESH, Username: c.Username, Secret: c.IdentityToken}
	}
	return &wire.AuthResponse{AuthType: wire.AuthType_CREDENTIALS, Username: c.Username, Secret: c.Password}
}

func pack(typ string, m rpc.Message) (*types.Any, error) {
	value, err := rpc.Marshal(m)
	return &types.Any{TypeUrl: typ, Value: value}, err
}

// saved returns the images that a transfer has named, in its order.
func (c *Client) saved(ctx context.Context, t outcome) ([]Image, error) {
	if len(t.saved) == 0 {
		return nil, errNoAnswer()
	}
	filters := make([]string, len(t.saved))
	for i, name := range t.saved {
		filters[i] = "name==" + strconv.Quote(name)
	}
	resp, err := query[cleatapi.ListImagesResponse](ctx, c, cleatapi.ImagesService, "List", &cleatapi.ListImagesRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	found := make(map[string]Image, len(resp.Images))
	for _, m := range resp.Images {
		found[m.Name] = image(m)
	}
	out := make([]Image, len(t.saved))
	for i, name := range t.saved {
		img, ok := found[name]
		if !ok {
			return nil, fmt.Errorf("image %s: removed again: %w", name, errdefs.ErrNotFound)
		}
		out[i] = img
	}
	return out, nil
}

func errNoAnswer() error {
	return fmt.Errorf("call ended without an answer: %w", errdefs.ErrUnavailable)
}
