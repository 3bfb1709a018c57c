package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// listOf returns an index of n documents, of two types in turn, from one number on.
func listOf(t *testing.T, from, n int) []byte {
	t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for i := from; i < from+n; i++ {
		d := describe(ocispec.MediaTypeImageManifest, fmt.Append(nil, i))
		d.ArtifactType = []string{"even", "odd"}[i%2]
		index.Manifests = append(index.Manifests, d)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestReferrers_InPages(t *testing.T) {
	subject := digest.FromString("subject")
	l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/team/app/referrers/"+subject.String() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		page := 0
		if _, err := fmt.Sscan(r.URL.Query().Get("page"), &page); err != nil {
			page = 0
		}
		if page < 2 {
			w.Header().Set("Link", fmt.Sprintf(`</v2/team/app/referrers/%s?page=%d>; rel="next"`, subject, page+1))
		}
		_, _ = w.Write(listOf(t, page*3, 3))
	})
	r := open(t, l.host(), "", Credential{})
	for kind, want := range map[string]int{"": 9, "even": 5, "odd": 4, "none": 0} {
		if list, err := r.Referrers(t.Context(), subject, kind); err != nil || len(list) != want {
			t.Errorf("%q: %d, %v, want %d", kind, len(list), err, want)
		}
	}
}

func TestReferrers_ByTag(t *testing.T) {
	subject := digest.FromString("subject")
	for _, status := range []int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest} {
		exists := true
		l := newLiar(t, func(w http.ResponseWriter, r *http.Request) {
			if exists && r.URL.Path == "/v2/team/app/manifests/"+strings.Replace(subject.String(), ":", "-", 1) {
				_, _ = w.Write(listOf(t, 0, 2))
				return
			}
			if strings.Contains(r.URL.Path, "/manifests/") {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
		})
		r := open(t, l.host(), "", Credential{})
		if list, err := r.Referrers(t.Context(), subject, "odd"); err != nil || len(list) != 1 {
			t.Errorf("%d: %v, %v", status, list, err)
		}
		exists = false
		if list, err := r.Referrers(t.Context(), subject, ""); err != nil || len(list) != 0 {
			t.Errorf("%d, without a list: %v, %v", status, list, err)
		}
	}
}

func TestReferrers_RefusesInvalidLists(t *testing.T) {
	subject := digest.FromString("subject")
	other := newLiar(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(listOf(t, 0, 1)) })
	next := func(w http.ResponseWriter, to string) {
		w.Header().Set("Link", "<"+to+`>; rel="next"`)
		_, _ = w.Write(listOf(t, 0, 1))
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		is     func(error) bool
		words  string
	}{
		"a list on another server":   {func(w http.ResponseWriter, _ *http.Request) { next(w, other.URL+"/v2/team/app/x") }, errdefs.IsFailedPrecondition, "another server"},
		"a list that leaves the API": {func(w http.ResponseWriter, _ *http.Request) { next(w, "/other") }, errdefs.IsFailedPrecondition, "another server"},
		"a list that never ends":     {func(w http.ResponseWriter, r *http.Request) { next(w, r.URL.Path) }, errdefs.IsInvalidArgument, "more than"},
		"a long list":                {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(listOf(t, 0, maxReferrers+1)) }, errdefs.IsInvalidArgument, "more than"},
		"an endless list": {func(w http.ResponseWriter, _ *http.Request) {
			for block := []byte(strings.Repeat(" ", 1<<20)); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, errdefs.IsInvalidArgument, "exceeds the maximum"},
		"no JSON":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, errdefs.IsFailedPrecondition, "not JSON"},
		"a manifest":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"config":{},"layers":[]}`)) }, errdefs.IsFailedPrecondition, "not an index"},
		"another type": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"mediaType":"x"}`)) }, errdefs.IsFailedPrecondition, "not an index"},
		"a bad digest": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"manifests":[{"digest":"../x"}]}`))
		}, errdefs.IsFailedPrecondition, "invalid descriptor"},
		"forbidden":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, errdefs.IsPermissionDenied, "403"},
		"an ill machine": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, errdefs.IsUnavailable, "500"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t, c.answer)
			_, err := open(t, l.host(), "", Credential{Username: "alice", Password: password}).Referrers(t.Context(), subject, "")
			checkError(t, err, c.is, l.host(), "team/app:1", c.words)
		})
	}
	if other.saw(password) || other.requests.Load() != 0 {
		t.Error("another server got a request")
	}
	if _, err := open(t, other.host(), "", Credential{}).Referrers(t.Context(), "x", ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
}
