package metadata

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
)

// encoder appends fields in protobuf's wire format. Empty values are left out.
type encoder struct{ b []byte }

func (e *encoder) str(n protowire.Number, s string) {
	if s != "" {
		e.b = protowire.AppendString(protowire.AppendTag(e.b, n, protowire.BytesType), s)
	}
}

func (e *encoder) uint(n protowire.Number, v uint64) {
	if v != 0 {
		e.b = protowire.AppendVarint(protowire.AppendTag(e.b, n, protowire.VarintType), v)
	}
}

func (e *encoder) int(n protowire.Number, v int64) { e.uint(n, uint64(v)) }

// time writes nanoseconds since 1970; the zero time is left out.
func (e *encoder) time(n protowire.Number, t time.Time) {
	if !t.IsZero() {
		e.b = protowire.AppendFixed64(protowire.AppendTag(e.b, n, protowire.Fixed64Type), uint64(t.UnixNano()))
	}
}

// message writes a nested message, even an empty one.
func (e *encoder) message(n protowire.Number, fill func(*encoder)) {
	var sub encoder
	fill(&sub)
	e.b = protowire.AppendBytes(protowire.AppendTag(e.b, n, protowire.BytesType), sub.b)
}

func (e *encoder) strs(n protowire.Number, list []string) {
	for _, s := range list {
		e.b = protowire.AppendString(protowire.AppendTag(e.b, n, protowire.BytesType), s)
	}
}

// strMap writes a map as protobuf does, in the order of its keys.
func (e *encoder) strMap(n protowire.Number, m map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.message(n, func(e *encoder) {
			e.str(1, k)
			e.str(2, m[k])
		})
	}
}

// labels writes labels; one with an empty value is left out, see isEmpty.
func (e *encoder) labels(n protowire.Number, m map[string]string) {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
	e.strMap(n, m)
}

func (e *encoder) any(n protowire.Number, a *Any) {
	if a == nil {
		return
	}
	e.message(n, func(e *encoder) {
		e.str(1, a.TypeURL)
		e.str(2, string(a.Value))
	})
}

// field is one decoded field: u for numbers, b for what has a length.
type field struct {
	num protowire.Number
	u   uint64
	b   []byte
}

func (f field) str() string     { return string(f.b) }
func (f field) bytes() []byte   { return bytes.Clone(f.b) }
func (f field) time() time.Time { return time.Unix(0, int64(f.u)).UTC() }

// decode calls each with every field of raw. Fields it answers false to are returned, to
// be written back with the record.
func decode(raw []byte, each func(field) (known bool, err error)) (unknown []byte, err error) {
	for len(raw) > 0 {
		f, n, err := next(raw)
		if err != nil {
			return nil, err
		}
		known, err := each(f)
		if err != nil {
			return nil, err
		}
		if !known {
			unknown = append(unknown, raw[:n]...)
		}
		raw = raw[n:]
	}
	return unknown, nil
}

func next(raw []byte) (field, int, error) {
	num, typ, n := protowire.ConsumeTag(raw)
	if n < 0 {
		return field{}, 0, damagedRecord(n)
	}
	f := field{num: num}
	var m int
	switch typ {
	case protowire.VarintType:
		f.u, m = protowire.ConsumeVarint(raw[n:])
	case protowire.Fixed64Type:
		f.u, m = protowire.ConsumeFixed64(raw[n:])
	case protowire.BytesType:
		f.b, m = protowire.ConsumeBytes(raw[n:])
	default:
		m = protowire.ConsumeFieldValue(num, typ, raw[n:])
	}
	if m < 0 {
		return field{}, 0, damagedRecord(m)
	}
	return f, n + m, nil
}

func damagedRecord(code int) error {
	return fmt.Errorf("record is damaged: %w: %w", protowire.ParseError(code), errdefs.ErrDataLoss)
}

func (f field) any() (*Any, error) {
	a := &Any{}
	_, err := decode(f.b, func(f field) (bool, error) {
		switch f.num {
		case 1:
			a.TypeURL = f.str()
		case 2:
			a.Value = f.bytes()
		}
		return true, nil
	})
	return a, err
}

func (f field) addTo(m *map[string]string) error {
	var k, v string
	_, err := decode(f.b, func(f field) (bool, error) {
		switch f.num {
		case 1:
			k = f.str()
		case 2:
			v = f.str()
		}
		return true, nil
	})
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[k] = v
	return err
}
