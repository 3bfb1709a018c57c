package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
)

// shelf is a registry that accepts one blob, in chunks.
type shelf struct {
	mu      sync.Mutex
	has     []byte
	begun   int
	patches []string // their Content-Range
	taken   int64    // bytes that came in by PATCH
	whole   []byte   // the final content
	// cut is how many bytes of the PATCH of that number are received before its connection breaks; forget
	// makes the upload unknown then.
	cut    map[int]int64
	forget bool
	refuse int // a status for every PATCH
}

func (s *shelf) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	where := func() {
		w.Header().Set("Location", fmt.Sprintf("/v2/team/app/blobs/uploads/%d?state=%d", s.begun, len(s.has)))
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(s.has)-1)))
	}
	known := strings.HasSuffix(r.URL.Path, fmt.Sprintf("/uploads/%d", s.begun))
	switch {
	case r.Method == http.MethodPost:
		s.begun++
		s.has = nil
		where()
		w.Header().Del("Range")
		w.WriteHeader(http.StatusAccepted)
	case !known:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		where()
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPatch:
		s.patch(w, r, where)
	case r.Method == http.MethodPut:
		rest, _ := io.ReadAll(r.Body)
		s.whole = append(s.has, rest...)
		if r.URL.Query().Get("digest") != digest.FromBytes(s.whole).String() || s.refuse == 0 && r.URL.Query().Get("state") != fmt.Sprint(len(s.has)) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}
}

func (s *shelf) patch(w http.ResponseWriter, r *http.Request, where func()) {
	s.patches = append(s.patches, r.Header.Get("Content-Range"))
	if s.refuse != 0 {
		w.WriteHeader(s.refuse)
		return
	}
	if !strings.HasPrefix(r.Header.Get("Content-Range"), fmt.Sprintf("%d-", len(s.has))) {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	body := io.Reader(r.Body)
	cut, cuts := s.cut[len(s.patches)]
	if cuts {
		body = io.LimitReader(body, cut)
	}
	data, _ := io.ReadAll(body)
	s.has = append(s.has, data...)
	s.taken += int64(len(data))
	if cuts {
		if s.forget {
			s.begun += 100
		}
		panicAbort()
	}
	where()
	w.WriteHeader(http.StatusAccepted)
}

func TestPushBlob_InChunks(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1000)
	for name, tt := range map[string]struct {
		shelf   *shelf
		chunk   int64
		patches int
		taken   int64 // by chunks
		begun   int
	}{
		"small: in one":       {&shelf{}, 10_000, 0, 0, 1},
		"never":               {&shelf{}, 0, 0, 0, 1},
		"by chunks":           {&shelf{}, 3000, 4, 10_000, 1},
		"cut in the middle":   {&shelf{cut: map[int]int64{2: 1234}}, 3000, 4, 10_000, 1},
		"cut at its end":      {&shelf{cut: map[int]int64{2: 3000}}, 3000, 4, 10_000, 1},
		"cut again and again": {&shelf{cut: map[int]int64{1: 2999, 2: 1, 3: 0, 4: 0, 5: 0, 6: 17, 7: 0}}, 3000, 10, 10_000, 1},
		"cut and forgotten":   {&shelf{cut: map[int]int64{2: 10}, forget: true}, 3000, 6, 13_010, 102},
		"no chunks taken":     {&shelf{refuse: http.StatusMethodNotAllowed}, 3000, 1, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t, tt.shelf.answer)
			r := open(t, l.host(), "", Credential{})
			r.client.opts.Chunk = tt.chunk
			_, err := r.PushBlob(t.Context(), describe("application/x", data), "", func(offset int64) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(data[offset:])), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			s := tt.shelf
			if !bytes.Equal(s.whole, data) || len(s.patches) != tt.patches || s.taken != tt.taken || s.begun != tt.begun {
				t.Errorf("%d bytes there; chunks %q, %d bytes by them, begun %d times", len(s.whole), s.patches, s.taken, s.begun)
			}
		})
	}
}

func TestPushBlob_BadRegistry_Fails(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 1000)
	always := make(map[int]int64)
	for i := range 100 {
		always[i] = 0
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		is     func(error) bool
	}{
		"cut every time": {(&shelf{cut: always}).answer, errdefs.IsUnavailable},
		"forbidden":      {(&shelf{refuse: http.StatusForbidden}).answer, errdefs.IsPermissionDenied},
		"it has more than there is": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/v2/team/app/blobs/uploads/1")
			w.Header().Set("Range", "0-99999999")
			w.WriteHeader(http.StatusAccepted)
		}, errdefs.IsFailedPrecondition},
		"it takes nothing": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/v2/team/app/blobs/uploads/1")
			w.Header().Set("Range", "0-0")
			w.WriteHeader(map[string]int{http.MethodGet: http.StatusNoContent}[r.Method] + map[bool]int{true: http.StatusAccepted}[r.Method != http.MethodGet])
		}, errdefs.IsFailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t, tt.answer)
			r := open(t, l.host(), "", Credential{})
			r.client.opts.Chunk = 3000
			_, err := r.PushBlob(t.Context(), describe("application/x", data), "", func(offset int64) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(data[offset:])), nil
			})
			checkError(t, err, tt.is, "push", l.host())
		})
	}
	l := newLiar(t, (&shelf{}).answer)
	r := open(t, l.host(), "", Credential{})
	r.client.opts.Chunk = 3000
	broken := errors.New("the disk is broken")
	_, err := r.PushBlob(t.Context(), describe("application/x", data), "", func(offset int64) (io.ReadCloser, error) {
		if offset > 0 {
			return nil, broken
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	})
	if err == nil || !strings.Contains(err.Error(), broken.Error()) {
		t.Error(err)
	}
}

func TestUploadRange(t *testing.T) {
	for text, want := range map[string]int64{"0-0": 0, "0-1": 2, "0-99": 100, "bytes=0-99": 100, "": -1, "1-5": -1, "0-": -1, "0--5": -1, "5": -1, "0-9223372036854775807": -1} {
		got, ok := uploadRange(text)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %d, %t", text, got, ok)
		}
	}
}
