package native

import (
	"context"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/image"
	"github.com/cleatproject/cleat/proto/cleatapi"
)

func TestProgress_ReportsChanges(t *testing.T) {
	a := ocispec.Descriptor{Digest: digest.FromString("a"), Size: 10}
	b := ocispec.Descriptor{Digest: digest.FromString("b"), Size: 20}
	p := newProgress()
	p.Part(a, image.StateWaiting, 0)
	p.Part(b, image.StateFetching, 1)
	p.Part(a, image.StateFetching, 5)
	first := p.take()
	if len(first) != 2 || first[0].State != "downloading" || first[0].Done != 5 || first[1].Total != 20 {
		t.Errorf("%+v", first)
	}
	p.Part(b, image.StateFetched, 20)
	if second := p.take(); len(second) != 1 || second[0].Done != 20 || first[1].Done != 1 {
		t.Errorf("%+v, and the first %+v", second, first)
	}
	if none := p.take(); len(none) != 0 {
		t.Errorf("%+v", none)
	}
}

func TestTransfer_ClientLeaves_Ends(t *testing.T) {
	gone := errors.New("gone")
	err := transferring(t.Context(), func(*cleatapi.TransferProgress) error { return gone },
		func(ctx context.Context, p *progress) (*cleatapi.Image, error) {
			p.Part(ocispec.Descriptor{Digest: digest.FromString("a")}, image.StateWaiting, 0)
			<-ctx.Done() // the progress could not be sent
			return nil, context.Cause(ctx)
		})
	if !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestTransfer_SendsImageLast(t *testing.T) {
	var sent []*cleatapi.TransferProgress
	err := transferring(t.Context(), func(m *cleatapi.TransferProgress) error {
		sent = append(sent, m)
		return nil
	}, func(_ context.Context, p *progress) (*cleatapi.Image, error) {
		p.Part(ocispec.Descriptor{Digest: digest.FromString("a")}, image.StateUnpacked, 0)
		return &cleatapi.Image{Name: "n"}, nil
	})
	if err != nil || len(sent) == 0 || sent[len(sent)-1].Image == nil || len(sent[len(sent)-1].Items) != 1 {
		t.Errorf("%+v, %v", sent, err)
	}
}
