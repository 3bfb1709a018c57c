package ctxio

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReader_ContextEnded_ReturnsContextError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := Reader(ctx, strings.NewReader("text"))
	buf := make([]byte, 2)
	if n, err := r.Read(buf); n != 2 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	cancel()
	if n, err := r.Read(buf); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d, %v, want nothing and the context's error", n, err)
	}
}

func TestReader_End(t *testing.T) {
	got, err := io.ReadAll(Reader(t.Context(), strings.NewReader("text")))
	if string(got) != "text" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
