package content

import (
	"bytes"
	"crypto/sha256"
	"reflect"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
)

// Every accepted meta file is one that this package could have written.
func FuzzParseMeta(f *testing.F) {
	good, err := encodeMeta(ingestMeta{Ref: "ns/layer", Expected: digest.FromString("x"), Total: 7, StartedAt: time.Unix(1, 2).UTC(), Boot: "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(append(bytes.Clone(good), good...))
	f.Add([]byte(`{"version":1,"ref":"r","total":-1}`))
	f.Add([]byte(`{"version":1,"ref":"r","expected":"sha256:../../x"}`))
	f.Add([]byte(`{"version":2,"ref":"r"}`))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseMeta(raw)
		if err != nil {
			if m != (ingestMeta{}) {
				t.Errorf("%+v with %v", m, err)
			}
			return
		}
		if validateRef(m.Ref) != nil || m.Total < 0 || m.Expected != "" && validateDigest(m.Expected) != nil {
			t.Errorf("accepted: %+v", m)
		}
		again, err := encodeMeta(m)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseMeta(again); err != nil || back.Ref != m.Ref || back.Total != m.Total || !back.StartedAt.Equal(m.StartedAt) {
			t.Errorf("%+v came back as %+v, %v", m, back, err)
		}
	})
}

// Every accepted checkpoint has a hash that can continue, and is encoded to the same bytes. The
// checksum is corrected, so that the code after its check is reached.
func FuzzParseCheckpoint(f *testing.F) {
	for _, a := range algorithms() {
		h := a.Hash()
		h.Write([]byte("hello"))
		c, err := takeCheckpoint(bytes.NewReader([]byte("hello")), h, a, 5, "b")
		if err != nil {
			f.Fatal(err)
		}
		raw, err := encodeCheckpoint(c)
		if err != nil {
			f.Fatal(err)
		}
		line, _, _ := bytes.Cut(raw, []byte("\n"))
		f.Add(line, true)
		f.Add(raw, false)
		f.Add(line[:len(line)/2], true)
	}
	f.Add([]byte(`{"algorithm":"md5","offset":1}`), true)
	f.Add([]byte(`{"algorithm":"sha256","offset":-1,"hash":"c2hhAw=="}`), true)
	f.Fuzz(func(t *testing.T, raw []byte, sum bool) {
		if sum {
			line, _, _ := bytes.Cut(raw, []byte("\n"))
			raw = append(append(bytes.Clone(line), '\n'), checksum(line)...)
		}
		c, err := parseCheckpoint(raw)
		if err != nil {
			return
		}
		if c.Offset <= 0 || len(c.Tail) != sha256.Size {
			t.Errorf("accepted: %+v", c)
		}
		h, err := c.restore(c.Algorithm)
		if err != nil {
			t.Fatal(err)
		}
		h.Write([]byte("more"))
		again, err := encodeCheckpoint(c)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseCheckpoint(again); err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("%+v came back as %+v, %v", c, back, err)
		}
	})
}
