package content_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"
)

// BenchmarkContent writes and reads a blob over gRPC on a unix socket.
func BenchmarkContent(b *testing.B) {
	s := serve(b, "ns")
	c := s.content("ns")
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	var n uint64
	write := func() digest.Digest {
		n++
		binary.LittleEndian.PutUint64(data, n)
		w, err := c.open(c.ctx, &api.WriteContentRequest{Action: api.WriteAction_STAT, Ref: "r"})
		if err != nil {
			b.Fatal(err)
		}
		for off := 0; off < len(data); off += 1 << 20 {
			if _, err := w.Write(data[off : off+1<<20]); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Commit(c.ctx, int64(len(data)), ""); err != nil {
			b.Fatal(err)
		}
		return digest.Digest(w.last.Digest)
	}
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Delete(c.ctx, write()); err != nil {
				b.Fatal(err)
			}
		}
	})
	d := write()
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			got := 0
			if err := c.read(&api.ReadContentRequest{Digest: d.String()}, func(m *api.ReadContentResponse) { got += len(m.Data) }); err != nil || got != len(data) {
				b.Fatal(got, err)
			}
		}
	})
}
