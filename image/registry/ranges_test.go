package registry

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// noise returns bytes without repetitions.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// parts is a server of one blob, which counts its requests.
type parts struct {
	data []byte
	// lie, if not nil, answers instead if it returns true.
	lie func(w http.ResponseWriter, r *http.Request, n int64) bool

	requests, atOnce atomic.Int64
	mu               sync.Mutex
	most             int64 // requests at once
	ranges           []string
}

func (p *parts) answer(w http.ResponseWriter, r *http.Request) {
	n := p.requests.Add(1)
	now := p.atOnce.Add(1)
	defer p.atOnce.Add(-1)
	p.mu.Lock()
	p.most = max(p.most, now)
	p.ranges = append(p.ranges, r.Header.Get("Range"))
	p.mu.Unlock()
	if p.lie != nil && p.lie(w, r, n) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.data))
}

// openRanged opens a repository of a server, with limits for the parallel requests per blob and in all.
func openRanged(t *testing.T, l *liar, atOnce, limit int) *Repository {
	t.Helper()
	r := open(t, l.host(), "", Credential{})
	r.client.opts.Ranges = Ranges{From: 1 << 20, AtOnce: atOnce, Loopback: true}
	r.Limit(limit)
	return r
}

func fetched(t *testing.T, r *Repository, data []byte, offset int64) ([]byte, error) {
	t.Helper()
	rc, err := r.Fetch(t.Context(), describe("application/x", data), offset)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func TestFetch_InPieces(t *testing.T) {
	data := noise(5*pieceSize + 12345)
	for _, offset := range []int64{0, 1, pieceSize, 3*pieceSize + 7, int64(len(data)) - pieceSize, int64(len(data)) - 1} {
		for _, limit := range []int{1, 2, 8} {
			p := &parts{data: data}
			r := openRanged(t, newLiar(t, p.answer), 4, limit)
			got, err := fetched(t, r, data, offset)
			if err != nil || !bytes.Equal(got, data[offset:]) {
				t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
			}
			missing := int64(len(data)) - offset
			want := (missing + pieceSize - 1) / pieceSize
			if n := p.requests.Load(); n != want {
				t.Errorf("from %d: %d requests, want %d: %q", offset, n, want, p.ranges)
			}
			if p.most > int64(min(limit, 4)) {
				t.Errorf("from %d: %d requests at once, the limit is %d", offset, p.most, limit)
			}
		}
	}
}

// Parts are requested in parallel: none is answered before several were requested.
func TestFetch_PiecesInParallel(t *testing.T) {
	data := noise(6 * pieceSize)
	var waiting sync.WaitGroup
	waiting.Add(3)
	p := &parts{data: data, lie: func(_ http.ResponseWriter, _ *http.Request, n int64) bool {
		if n >= 2 && n <= 4 {
			waiting.Done()
			waiting.Wait()
		}
		return false
	}}
	if got, err := fetched(t, openRanged(t, newLiar(t, p.answer), 4, 4), data, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// Ranges are not used for small blobs and servers on loopback.
	p = &parts{data: data}
	r := openRanged(t, newLiar(t, p.answer), 4, 4)
	r.client.opts.Ranges.Loopback = false
	if got, err := fetched(t, r, data, 0); err != nil || !bytes.Equal(got, data) || p.requests.Load() != 1 {
		t.Errorf("%d bytes, %v, %q", len(got), err, p.ranges)
	}
	p = &parts{data: data[:pieceSize]}
	if got, err := fetched(t, openRanged(t, newLiar(t, p.answer), 4, 4), p.data, 0); err != nil || !bytes.Equal(got, p.data) || p.requests.Load() != 1 {
		t.Errorf("%d bytes, %v, %q", len(got), err, p.ranges)
	}
}

func TestFetch_WrongRanges(t *testing.T) {
	data := noise(4 * pieceSize)
	all := func(r *http.Request) bool {
		r.Header.Del("Range")
		return false
	}
	for name, tt := range map[string]struct {
		lie func(w http.ResponseWriter, r *http.Request, n int64) bool
		is  func(error) bool // nil: fetched nevertheless
	}{
		"no ranges":          {func(_ http.ResponseWriter, r *http.Request, _ int64) bool { return all(r) }, nil},
		"none after a while": {func(_ http.ResponseWriter, r *http.Request, n int64) bool { return n > 2 && all(r) }, nil},
		"connections that break": {func(w http.ResponseWriter, r *http.Request, n int64) bool {
			if n%2 == 0 {
				w.Header().Set("Content-Length", fmt.Sprint(pieceSize))
				var at int
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, at+pieceSize-1, len(data)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(data[at : at+pieceSize/3])
				panicAbort()
			}
			return false
		}, nil},
		"shorter ranges": {func(_ http.ResponseWriter, r *http.Request, _ int64) bool {
			var from, to int
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err == nil {
				r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, min(to, from+pieceSize/2)))
			}
			return false
		}, nil},
		"other ranges": {func(_ http.ResponseWriter, r *http.Request, n int64) bool {
			if n == 3 {
				r.Header.Set("Range", fmt.Sprintf("bytes=%d-", 3*pieceSize+99))
			}
			return false
		}, nil},
		"another size": {func(w http.ResponseWriter, _ *http.Request, _ int64) bool {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/99", pieceSize-1))
			w.WriteHeader(http.StatusPartialContent)
			return true
		}, errdefs.IsFailedPrecondition},
		"gone in the middle": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			if n > 2 {
				w.WriteHeader(http.StatusNotFound)
			}
			return n > 2
		}, errdefs.IsNotFound},
		"ill": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			if n > 2 {
				w.WriteHeader(http.StatusBadGateway)
			}
			return n > 2
		}, errdefs.IsUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			p := &parts{data: data, lie: tt.lie}
			l := newLiar(t, p.answer)
			got, err := fetched(t, openRanged(t, l, 3, 3), data, 0)
			if tt.is != nil {
				checkError(t, err, tt.is, "fetch", l.host())
				if !bytes.Equal(got, data[:len(got)]) {
					t.Errorf("what came before it, %d bytes, is not the beginning", len(got))
				}
				return
			}
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v: %q", len(got), err, p.ranges)
			}
			if strings.HasPrefix(name, "no ranges") && p.requests.Load() != 1 {
				t.Errorf("%d requests", p.requests.Load())
			}
		})
	}
}
