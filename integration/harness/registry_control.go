package harness

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Stall makes the registry stop in the middle of a blob: after n bytes it waits for its client to leave, or for the
// returned function. reached is closed at that point.
func (r *Registry) Stall(blob []byte, after int) (reached chan struct{}, release func()) {
	reached = make(chan struct{})
	free := make(chan struct{})
	var once sync.Once
	path := "/blobs/" + digest.FromBytes(blob).String()
	r.Interfere(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodGet || !strings.HasSuffix(req.URL.Path, path) || req.Header.Get("Range") != "" {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		n, _ := w.Write(blob[:after])
		r.Sent.Add(int64(n))
		_ = http.NewResponseController(w).Flush()
		once.Do(func() { close(reached) })
		select {
		case <-req.Context().Done():
		case <-free:
		}
		return true
	})
	return reached, sync.OnceFunc(func() { close(free) })
}

// StallImage stores an image and makes the registry stop after 1 MiB of the last of its layers, which has a little
// over 2 MiB: see Stall.
func (r *Registry) StallImage() (ref string, layers [][]byte, reached chan struct{}, release func()) {
	r.t.Helper()
	layers = LayersOf(r.t, 1, 2<<20)
	r.Image("big/box", "1", Amd64, layers...)
	reached, release = r.Stall(layers[1], 1<<20)
	return r.Host + "/big/box:1", layers, reached, release
}

// Interfere lets f answer a request if it returns true; nil removes f.
func (r *Registry) Interfere(f func(w http.ResponseWriter, req *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interfere = f
}

// SentBytes waits until no request is in progress and returns how many bytes were sent: the bytes that a client has
// received may not be counted yet, and the proxy may still write to a killed one.
func (r *Registry) SentBytes() int64 {
	r.t.Helper()
	Eventually(r.t, "no request is under way", func() error {
		if n := r.underWay.Load(); n > 0 {
			return fmt.Errorf("%d in progress", n)
		}
		return nil
	})
	return r.Sent.Load()
}
