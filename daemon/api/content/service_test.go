package content_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/cleatproject/cleat/content"
	"github.com/cleatproject/cleat/content/contenttest"
)

func TestConformance_OverAPI(t *testing.T) {
	contenttest.Run(t, func(t *testing.T) (contenttest.Store, func() contenttest.Store) {
		s := serve(t, "ns")
		return s.content("ns"), func() contenttest.Store {
			s.restart()
			return s.content("ns")
		}
	})
}

// put stores a blob with labels in one message.
func (r remote) put(t *testing.T, data string, labels map[string]string) digest.Digest {
	t.Helper()
	w, err := r.open(r.ctx, &api.WriteContentRequest{
		Action: api.WriteAction_COMMIT, Ref: "put-" + digest.FromString(data).Encoded(), Data: []byte(data), Total: int64(len(data)),
		Expected: digest.FromString(data).String(), Labels: labels,
	})
	must(t, err)
	must(t, w.Close())
	return digest.FromString(data)
}

// check checks the class of an error.
func check(t *testing.T, what string, err error, is func(error) bool) {
	t.Helper()
	if !is(err) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestContentUpdate(t *testing.T) {
	s := serve(t, "ns", "other")
	c := s.content("ns")
	d := c.put(t, "hello", map[string]string{"a": "1", "b": "2"})
	update := func(info *api.Info, paths ...string) (*api.Info, error) {
		req := &api.UpdateRequest{Info: info}
		if paths != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
		}
		resp, err := c.Update(c.ctx, req)
		return resp.GetInfo(), errgrpc.ToNative(err)
	}
	for _, step := range []struct {
		labels map[string]string
		paths  []string
		want   string
	}{
		{map[string]string{"a": "3", "b": "ignored"}, []string{"labels.a"}, "map[a:3 b:2]"},
		{map[string]string{"c.d/e": "4"}, []string{"labels.c.d/e", "labels.b"}, "map[a:3 c.d/e:4]"},
		{map[string]string{"x": "5"}, []string{"labels"}, "map[x:5]"},
		{map[string]string{"y": "6"}, nil, "map[y:6]"},
		{nil, nil, "map[]"},
	} {
		info, err := update(&api.Info{Digest: d.String(), Size: 99, Labels: step.labels}, step.paths...)
		if err != nil || fmt.Sprint(info.Labels) != step.want || info.Size != 5 {
			t.Errorf("%v %q: %+v, %v", step.labels, step.paths, info, err)
		}
		if info.UpdatedAt.AsTime().Before(info.CreatedAt.AsTime()) {
			t.Errorf("times %+v", info)
		}
	}
	for _, path := range []string{"digest", "size", "created_at", "nonsense", ""} {
		_, err := update(&api.Info{Digest: d.String(), Size: 1}, path)
		check(t, "update of "+path, err, errdefs.IsInvalidArgument)
	}
	_, err := update(&api.Info{Digest: digest.FromString("none").String()})
	check(t, "update of nothing", err, errdefs.IsNotFound)
	_, err = update(nil)
	check(t, "update without info", err, errdefs.IsInvalidArgument)
	_, err = update(&api.Info{Digest: d.String(), Labels: map[string]string{"k": strings.Repeat("x", 5000)}})
	check(t, "too long a label", err, errdefs.IsInvalidArgument)
	c = s.content("other")
	_, err = update(&api.Info{Digest: d.String()})
	check(t, "another namespace's blob", err, errdefs.IsNotFound)
}

func TestContentList(t *testing.T) {
	s := serve(t, "ns")
	c := s.content("ns")
	var all []string
	for i := range 250 { // more than a message takes
		all = append(all, c.put(t, fmt.Sprint(i), map[string]string{"odd": fmt.Sprint(i%2 == 1)}).String())
	}
	slices.Sort(all)
	for filter, want := range map[string]int{
		"": 250, "labels.odd==true": 125, "digest==" + all[7]: 1, "size==3": 150, "size==1,labels.odd==true": 5, "labels.none": 0,
	} {
		var filters []string
		if filter != "" {
			filters = append(filters, filter)
		}
		list, err := c.list(c.ctx, filters...)
		if err != nil || len(list) != want {
			t.Errorf("%q: %d, %v, want %d", filter, len(list), err, want)
		}
	}
	list, err := c.list(c.ctx, "digest=="+all[0], "digest=="+all[1])
	if err != nil || len(list) != 2 {
		t.Errorf("either of two: %v, %v", list, err)
	}
	_, err = c.list(c.ctx, "labels.odd==")
	check(t, "a broken filter", err, errdefs.IsInvalidArgument)
}

func TestContentRead(t *testing.T) {
	s := serve(t, "ns")
	c := s.content("ns")
	data := bytes.Repeat([]byte("0123456789"), 300_000)
	d := c.put(t, string(data), nil)
	for _, r := range []struct {
		off, size  int64
		from, to   int
		outOfRange bool
	}{
		{0, 0, 0, len(data), false},
		{-5, 0, 0, len(data), false},
		{10, 7, 10, 17, false},
		{2_999_990, 100, 2_999_990, len(data), false},
		{1, 1<<63 - 1, 1, len(data), false},
		{3_000_000, 0, 0, 0, false},
		{3_000_001, 0, 0, 0, true},
	} {
		var got []byte
		var longest int
		err := c.read(&api.ReadContentRequest{Digest: d.String(), Offset: r.off, Size: r.size}, func(m *api.ReadContentResponse) {
			got = append(got, m.Data...)
			longest = max(longest, len(m.Data))
		})
		if r.outOfRange {
			check(t, fmt.Sprint(r), err, errdefs.IsOutOfRange)
			continue
		}
		if err != nil || !bytes.Equal(got, data[r.from:r.to]) || longest > 1<<20 {
			t.Errorf("%+v: %d bytes, the longest message %d, %v", r, len(got), longest, err)
		}
	}
	err := c.read(&api.ReadContentRequest{Digest: d.String(), Size: -1}, func(*api.ReadContentResponse) {})
	check(t, "negative size", err, errdefs.IsInvalidArgument)
	check(t, "none", c.read(&api.ReadContentRequest{Digest: digest.FromString("x").String()}, func(*api.ReadContentResponse) {}), errdefs.IsNotFound)
}

func TestContentStatuses(t *testing.T) {
	s := serve(t, "ns", "other")
	c := s.content("ns")
	for _, ref := range []string{"layer-1", "layer-2", "config"} {
		w, err := c.Writer(c.ctx, ref, content.WriterOptions{Total: 3, Expected: digest.FromString(ref)})
		must(t, err)
		_, err = w.Write([]byte("x"))
		must(t, err)
		must(t, w.Close())
	}
	for filter, want := range map[string]string{
		"": "config layer-1 layer-2", "^layer-": "layer-1 layer-2", "1|config": "config layer-1",
		"ref==config": "config", "ref~=^layer": "layer-1 layer-2", "ref!=config": "layer-1 layer-2", "nothing": "",
	} {
		resp, err := c.ContentClient.ListStatuses(c.ctx, &api.ListStatusesRequest{Filters: []string{filter}})
		must(t, err)
		var refs []string
		for _, st := range resp.Statuses {
			refs = append(refs, st.Ref)
			if st.Expected != digest.FromString(st.Ref).String() || st.Total != 3 || st.Offset != 1 {
				t.Errorf("status %+v", st)
			}
		}
		slices.Sort(refs)
		if got := strings.Join(refs, " "); got != want {
			t.Errorf("%q: %q, want %q", filter, got, want)
		}
	}
	for _, filter := range []string{"(", "ref~=(", "ref=="} {
		_, err := c.ContentClient.ListStatuses(c.ctx, &api.ListStatusesRequest{Filters: []string{filter}})
		check(t, filter, errgrpc.ToNative(err), errdefs.IsInvalidArgument)
	}
	other := s.content("other")
	if list, err := other.ListStatuses(other.ctx, ""); err != nil || len(list) > 0 {
		t.Errorf("another namespace sees %+v, %v", list, err)
	}
	check(t, "another's ingest", other.Abort(other.ctx, "config"), errdefs.IsNotFound)
	_, err := other.Status(other.ctx, "config")
	check(t, "another's ingest", err, errdefs.IsNotFound)
}

func TestContentWrite_InvalidRequest_IsRefused(t *testing.T) {
	s := serve(t, "ns")
	c := s.content("ns")
	for name, m := range map[string]struct {
		second *api.WriteContentRequest
		is     func(error) bool
	}{
		"a gap":               {&api.WriteContentRequest{Action: api.WriteAction_WRITE, Offset: 9, Data: []byte("x")}, errdefs.IsOutOfRange},
		"an overlap":          {&api.WriteContentRequest{Action: api.WriteAction_WRITE, Offset: 2, Data: []byte("x")}, errdefs.IsOutOfRange},
		"a negative offset":   {&api.WriteContentRequest{Action: api.WriteAction_WRITE, Offset: -1, Data: []byte("x")}, errdefs.IsInvalidArgument},
		"beyond the total":    {&api.WriteContentRequest{Action: api.WriteAction_WRITE, Offset: 5, Data: []byte("xx")}, errdefs.IsOutOfRange},
		"another ref":         {&api.WriteContentRequest{Action: api.WriteAction_WRITE, Ref: "r2", Offset: 5}, errdefs.IsInvalidArgument},
		"an unknown action":   {&api.WriteContentRequest{Action: 7, Offset: 5}, errdefs.IsInvalidArgument},
		"a bad digest":        {&api.WriteContentRequest{Action: api.WriteAction_COMMIT, Offset: 5, Expected: "sha256:1"}, errdefs.IsInvalidArgument},
		"commit of a gap":     {&api.WriteContentRequest{Action: api.WriteAction_COMMIT, Offset: 9, Total: 5}, errdefs.IsOutOfRange},
		"commit too early":    {&api.WriteContentRequest{Action: api.WriteAction_COMMIT, Offset: 5}, errdefs.IsFailedPrecondition},
		"commit of other":     {&api.WriteContentRequest{Action: api.WriteAction_COMMIT, Offset: 5, Total: 5, Expected: digest.FromString("x").String()}, errdefs.IsFailedPrecondition},
		"commit, bad labels":  {&api.WriteContentRequest{Action: api.WriteAction_COMMIT, Offset: 5, Total: 5, Labels: map[string]string{"k": strings.Repeat("x", 5000)}}, errdefs.IsInvalidArgument},
		"commit, wrong total": {&api.WriteContentRequest{Action: api.WriteAction_COMMIT, Offset: 5, Total: 4}, errdefs.IsFailedPrecondition},
	} {
		w, err := c.open(c.ctx, &api.WriteContentRequest{Action: api.WriteAction_WRITE, Ref: "r", Total: 6, Data: []byte("hello")})
		must(t, err)
		check(t, name, w.send(m.second), m.is)
		must(t, w.Close())
		if st, err := c.Status(c.ctx, "r"); err != nil || st.Offset != 5 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		must(t, c.Abort(c.ctx, "r"))
	}
	_, err := c.open(c.ctx, &api.WriteContentRequest{Action: api.WriteAction_WRITE, Data: []byte("x")})
	check(t, "no ref", err, errdefs.IsInvalidArgument)
	must(t, c.Walk(c.ctx, func(i content.Info) error { return fmt.Errorf("%+v is visible", i) }))
	// Nor is anything in the store that no record names.
	must(t, s.disk.Walk(t.Context(), func(i content.Info) error { return fmt.Errorf("%+v is there", i) }))
}

// What a message says last of total and digest counts; no data and offset 0 change nothing; data at
// offset 0 begins anew.
func TestContentWriteSession(t *testing.T) {
	s := serve(t, "ns")
	c := s.content("ns")
	w, err := c.open(c.ctx, &api.WriteContentRequest{Action: api.WriteAction_WRITE, Ref: "r", Total: 100, Expected: digest.FromString("no").String(), Data: []byte("wrong")})
	must(t, err)
	must(t, w.send(&api.WriteContentRequest{Action: api.WriteAction_WRITE}))
	if w.last.Offset != 5 {
		t.Errorf("after nothing: %+v", w.last)
	}
	must(t, w.send(&api.WriteContentRequest{Action: api.WriteAction_WRITE, Data: []byte("ri"), Total: 5}))
	must(t, w.send(&api.WriteContentRequest{Action: api.WriteAction_STAT}))
	if w.last.Offset != 2 || w.last.Total != 5 || w.last.StartedAt == nil || w.last.UpdatedAt == nil || w.last.Action != api.WriteAction_STAT {
		t.Errorf("stat: %+v", w.last)
	}
	must(t, w.send(&api.WriteContentRequest{
		Action: api.WriteAction_COMMIT, Offset: 2, Data: []byte("ght"), Expected: digest.FromString("right").String(), Labels: map[string]string{"l": "v"},
	}))
	if w.last.Offset != 5 || w.last.Digest != digest.FromString("right").String() || w.last.Action != api.WriteAction_COMMIT {
		t.Errorf("commit: %+v", w.last)
	}
	must(t, w.Close())
	resp, err := c.ContentClient.Info(c.ctx, &api.InfoRequest{Digest: digest.FromString("right").String()})
	if err != nil || resp.Info.Labels["l"] != "v" || resp.Info.Size != 5 {
		t.Errorf("%+v, %v", resp, err)
	}
}

// TestContentWrite_EachResponse_IsComplete has every answer carry all that is published of it.
func TestContentWrite_EachResponse_IsComplete(t *testing.T) {
	s := serve(t, "ns")
	c := s.content("ns")
	var w *remoteWriter
	written := ""
	for i, step := range []struct {
		req     *api.WriteContentRequest
		written string
	}{
		{&api.WriteContentRequest{Action: api.WriteAction_STAT, Ref: "r"}, ""},
		{&api.WriteContentRequest{Action: api.WriteAction_WRITE, Ref: "r", Total: 9}, ""},
		{&api.WriteContentRequest{Action: api.WriteAction_WRITE, Data: []byte("wrong")}, "wrong"},
		{&api.WriteContentRequest{Action: api.WriteAction_WRITE}, "wrong"},
		{&api.WriteContentRequest{Action: api.WriteAction_STAT}, "wrong"},
		{&api.WriteContentRequest{Action: api.WriteAction_WRITE, Offset: 5, Data: []byte("er")}, "wronger"},
		{&api.WriteContentRequest{Action: api.WriteAction_WRITE, Data: []byte("ri")}, "ri"},
		{&api.WriteContentRequest{Action: api.WriteAction_COMMIT, Offset: 2, Data: []byte("ght"), Total: 5}, "right"},
	} {
		var err error
		if w == nil {
			w, err = c.open(c.ctx, step.req)
		} else {
			err = w.send(step.req)
		}
		must(t, err)
		written = step.written
		r := w.last
		if r.Action != step.req.Action || r.Offset != int64(len(written)) || r.Digest != digest.FromString(written).String() ||
			r.StartedAt.AsTime().Before(time.Now().Add(-time.Hour)) || r.UpdatedAt.AsTime().Before(r.StartedAt.AsTime()) ||
			(r.Total != 0) != (i > 0) {
			t.Errorf("step %d, %q written: %+v", i, written, r)
		}
	}
	must(t, w.Close())
}
