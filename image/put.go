package image

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatproject/cleat/content"
)

// MakeRef returns a name for the ingest of a blob that is made here and that nobody takes up again.
func MakeRef() string { return "make-" + rand.Text() + "-1" }

// putDocument stores a document of the size that can be read again, and returns its descriptor.
func putDocument(ctx context.Context, c Content, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if len(raw) > maxDocument {
		return d, invalidf("make %s: it would have %d bytes, at most %d are read", mediaType, len(raw), maxDocument)
	}
	ref := MakeRef()
	w, err := c.Writer(ctx, ref, content.WriterOptions{Expected: d.Digest, Total: d.Size})
	if errdefs.IsAlreadyExists(err) {
		return d, nil
	}
	if err != nil {
		return d, fmt.Errorf("make %s: %w", mediaType, err)
	}
	_, err = w.Write(raw)
	if err == nil {
		err = w.Commit(ctx, d.Size, d.Digest)
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return d, errors.Join(fmt.Errorf("make %s: %w", mediaType, err), w.Close(), ignoreNotFound(c.Abort(context.WithoutCancel(ctx), ref)))
	}
	return d, w.Close()
}

// document is a JSON object of which what is not understood is carried along. It is written with its
// members sorted, and so always in the same way.
type document map[string]json.RawMessage

// parseDocument reads an object; anything else is an invalid argument.
func parseDocument(raw []byte) (document, error) {
	var d document
	if err := json.Unmarshal(raw, &d); err != nil || d == nil {
		return nil, invalidf("document is no JSON object: %w", errors.Join(err))
	}
	return d, nil
}

// get decodes a member, where there is one.
func (d document) get(member string, into any) error {
	raw, ok := d[member]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return invalidf("member %s: %w", member, err)
	}
	return nil
}

// set replaces a member.
func (d document) set(member string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", member, err)
	}
	d[member] = raw
	return nil
}

// encode returns the object's text.
func (d document) encode() ([]byte, error) {
	raw, err := json.Marshal(map[string]json.RawMessage(d))
	if err != nil {
		return nil, fmt.Errorf("encode document: %w", err)
	}
	return raw, nil
}
