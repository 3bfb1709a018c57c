package content_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	api "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/metadata"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/daemon/api/access"
	meta "github.com/cleatproject/cleat/metadata"
)

func TestNamespaces_ShareProvenContentOnly(t *testing.T) {
	s := serve(t, "a", "b", "c")
	a, b := s.content("a"), s.content("b")
	d := a.put(t, "hello", map[string]string{"whose": "a"})
	opts := content.WriterOptions{Expected: d}
	// b does not see it, and has to write it all.
	_, err := b.Info(b.ctx, d)
	check(t, "before", err, errdefs.IsNotFound)
	check(t, "before", b.read(&api.ReadContentRequest{Digest: d.String()}, func(*api.ReadContentResponse) {}), errdefs.IsNotFound)
	w, err := b.Writer(b.ctx, "r", opts)
	must(t, err)
	if w.Status().Offset != 0 {
		t.Errorf("status %+v", w.Status())
	}
	check(t, "without its bytes", w.Commit(b.ctx, 0, ""), errdefs.IsFailedPrecondition)
	must(t, b.Abort(b.ctx, "r"))
	b.put(t, "hello", map[string]string{"whose": "b"})
	for name, c := range map[string]remote{"a": a, "b": b} {
		resp, err := c.ContentClient.Info(c.ctx, &api.InfoRequest{Digest: d.String()})
		if err != nil || resp.Info.Labels["whose"] != name {
			t.Errorf("%s: %+v, %v", name, resp, err)
		}
	}
	// What the one deletes stays with the other.
	must(t, a.Delete(a.ctx, d))
	_, err = a.Info(a.ctx, d)
	check(t, "deleted", err, errdefs.IsNotFound)
	if info, err := b.Info(b.ctx, d); err != nil || info.Size != 5 {
		t.Errorf("%+v, %v", info, err)
	}
	// A namespace that shares gives it away without the bytes.
	c := s.content("c")
	must(t, s.db.Update(t.Context(), func(tx *meta.Tx) error {
		return tx.Namespaces().SetLabels("b", map[string]string{"containerd.io/namespace.shareable": "true"})
	}))
	_, err = c.Writer(c.ctx, "r", opts)
	check(t, "shared", err, errdefs.IsAlreadyExists)
	if info, err := c.Info(c.ctx, d); err != nil || info.Size != 5 {
		t.Errorf("%+v, %v", info, err)
	}
	resp, err := c.ContentClient.Info(c.ctx, &api.InfoRequest{Digest: d.String()})
	if err != nil || len(resp.Info.Labels) > 0 {
		t.Errorf("labels came along: %+v, %v", resp, err)
	}
	must(t, b.Delete(b.ctx, d))
	must(t, c.read(&api.ReadContentRequest{Digest: d.String()}, func(*api.ReadContentResponse) {}))
	must(t, c.Delete(c.ctx, d))
	must(t, s.disk.Walk(t.Context(), func(i content.Info) error { return fmt.Errorf("%+v is left", i) }))
}

func TestWrite_AddsContentToLease(t *testing.T) {
	s := serve(t, "ns", "shares")
	leases := leasesapi.NewLeasesClient(s.conn)
	_, err := leases.Create(s.in("ns"), &leasesapi.CreateRequest{ID: "l"})
	must(t, err)
	c := s.content("ns")
	leased := remote{c.ContentClient, metadata.AppendToOutgoingContext(c.ctx, access.GRPCLease, "l")}
	held := func() string {
		resp, err := leases.ListResources(s.in("ns"), &leasesapi.ListResourcesRequest{ID: "l"})
		must(t, err)
		var out []string
		for _, r := range resp.Resources {
			out = append(out, r.Type+" "+r.ID)
		}
		return strings.Join(out, ",")
	}
	c.put(t, "without", nil)
	if got := held(); got != "" {
		t.Errorf("held: %s", got)
	}
	fresh := leased.put(t, "fresh", nil)
	want := "content " + fresh.String()
	if got := held(); got != want {
		t.Errorf("held: %s", got)
	}
	// What is there already is held from now on, too: at the opening, and at the commit.
	for data, write := range map[string]bool{"without": false, "late": true} {
		d := digest.FromString(data)
		if write {
			w, err := leased.Writer(leased.ctx, "late", content.WriterOptions{})
			must(t, err)
			_, err = io.WriteString(w, data)
			must(t, err)
			c.put(t, data, nil)
			check(t, "commit", w.Commit(leased.ctx, 0, d), errdefs.IsAlreadyExists)
		} else {
			_, err := leased.Writer(leased.ctx, "r", content.WriterOptions{Expected: d})
			check(t, "open", err, errdefs.IsAlreadyExists)
		}
		if got := held(); !strings.Contains(got, d.String()) {
			t.Errorf("%s is not held: %s", data, got)
		}
	}
	// And what is taken up from another namespace.
	must(t, s.db.Update(t.Context(), func(tx *meta.Tx) error {
		return tx.Namespaces().SetLabels("shares", map[string]string{"containerd.io/namespace.shareable": "true"})
	}))
	d := s.content("shares").put(t, "shared", nil)
	_, err = leased.Writer(leased.ctx, "r", content.WriterOptions{Expected: d})
	check(t, "shared", err, errdefs.IsAlreadyExists)
	if got := held(); !strings.Contains(got, d.String()) {
		t.Errorf("the shared one is not held: %s", got)
	}
	// A lease that is not there refuses the blob before it is made.
	lost := remote{c.ContentClient, metadata.AppendToOutgoingContext(c.ctx, access.GRPCLease, "lost")}
	_, err = lost.Writer(lost.ctx, "r", content.WriterOptions{})
	check(t, "no lease", err, errdefs.IsNotFound)
	w, err := leased.Writer(leased.ctx, "r", content.WriterOptions{})
	must(t, err)
	_, err = io.WriteString(w, "orphan")
	must(t, err)
	_, err = leases.Delete(s.in("ns"), &leasesapi.DeleteRequest{ID: "l"})
	must(t, err)
	check(t, "lease gone", w.Commit(leased.ctx, 0, ""), errdefs.IsNotFound)
	_, err = c.Info(c.ctx, digest.FromString("orphan"))
	check(t, "not recorded", err, errdefs.IsNotFound)
	_, err = s.disk.Info(t.Context(), digest.FromString("orphan"))
	check(t, "not stored", err, errdefs.IsNotFound)
}

// A record whose blob was moved aside does not keep its bytes from coming again.
func TestDamagedContent_CanBeWrittenAgain(t *testing.T) {
	s := serve(t, "ns")
	c := s.content("ns")
	d := c.put(t, "hello", map[string]string{"kept": "yes"})
	must(t, s.disk.Delete(t.Context(), d))
	w, err := c.Writer(c.ctx, "r", content.WriterOptions{Expected: d})
	must(t, err)
	_, err = io.WriteString(w, "hello")
	must(t, err)
	check(t, "commit", w.Commit(c.ctx, 5, d), errdefs.IsAlreadyExists)
	var got bytes.Buffer
	must(t, c.read(&api.ReadContentRequest{Digest: d.String()}, func(m *api.ReadContentResponse) { got.Write(m.Data) }))
	if got.String() != "hello" {
		t.Errorf("read %q", got.String())
	}
}

// A namespace takes its uploads with it, and is made by the first blob.
func TestContent_OfRemovedNamespace(t *testing.T) {
	s := serve(t, "ns", "nsx")
	for _, ns := range []string{"ns", "nsx"} {
		c := s.content(ns)
		w, err := c.Writer(c.ctx, "r", content.WriterOptions{})
		must(t, err)
		_, err = io.WriteString(w, "half")
		must(t, errors.Join(err, w.Close()))
	}
	namespaces := namespacesapi.NewNamespacesClient(s.conn)
	_, err := namespaces.Delete(t.Context(), &namespacesapi.DeleteNamespaceRequest{Name: "ns"})
	must(t, err)
	c := s.content("ns")
	if list, err := c.ListStatuses(c.ctx, ""); err != nil || len(list) > 0 {
		t.Errorf("the namespace that is gone has %+v, %v", list, err)
	}
	w, err := c.Writer(c.ctx, "r", content.WriterOptions{})
	must(t, err)
	_, err = io.WriteString(w, "whole")
	must(t, err)
	must(t, w.Commit(c.ctx, 5, digest.FromString("whole")))
	must(t, w.Close())
	_, err = namespaces.Get(t.Context(), &namespacesapi.GetNamespaceRequest{Name: "ns"})
	must(t, err)
	list, err := namespaces.List(t.Context(), &namespacesapi.ListNamespacesRequest{})
	must(t, err)
	if !slices.ContainsFunc(list.Namespaces, func(n *namespacesapi.Namespace) bool { return n.Name == "ns" }) {
		t.Errorf("the namespaces are %v", list.Namespaces)
	}
	if list, err := s.content("nsx").ListStatuses(t.Context(), ""); err != nil || len(list) != 1 {
		t.Errorf("the other namespace has %+v, %v", list, err)
	}
}
