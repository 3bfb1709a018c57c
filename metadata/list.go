package metadata

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cleatproject/cleat/internal/filters"
)

// column is the location in a record of the value of a filter's field, so that records can be
// skipped without being decoded. The zero column is a field that no record has.
type column struct {
	in     protowire.Number // the message inside the record that holds it; 0 for the record
	num    protowire.Number
	always bool   // present even if it is empty
	isMap  bool   // the value is that of key
	key    string // the rest of the path
	number func(uint64) string
}

// mapColumn is the value under the rest of the path in the map num.
func mapColumn(path []string, num protowire.Number) column {
	if len(path) < 2 {
		return column{}
	}
	return column{num: num, isMap: true, key: strings.Join(path[1:], ".")}
}

// labelColumn returns the column of "labels.<key>", the key with its dots.
func labelColumn(path []string, num protowire.Number) column {
	if path[0] != "labels" {
		return column{}
	}
	return mapColumn(path, num)
}

// rawRecord evaluates a filter on a record's bytes.
type rawRecord struct {
	raw     []byte
	columns func(path []string) column
	// err reports that the bytes could not be read, which makes the results meaningless.
	err error
}

var _ filters.Adaptor = (*rawRecord)(nil)

// Field implements filters.Adaptor.
func (r *rawRecord) Field(path []string) (string, bool) {
	c := r.columns(path)
	if c.num == 0 {
		return "", false
	}
	raw := r.raw
	if c.in != 0 {
		raw = r.last(raw, c.in).b
	}
	if c.isMap {
		return r.entry(raw, c)
	}
	f := r.last(raw, c.num)
	if c.number != nil {
		return c.number(f.u), true
	}
	return string(f.b), c.always || len(f.b) > 0
}

// last returns the last field of a number, which is the valid one.
func (r *rawRecord) last(raw []byte, num protowire.Number) (found field) {
	r.scan(raw, func(f field) {
		if f.num == num {
			found = f
		}
	})
	return found
}

// entry returns the value of the column's key in its map.
func (r *rawRecord) entry(raw []byte, c column) (value string, present bool) {
	r.scan(raw, func(f field) {
		if f.num != c.num {
			return
		}
		k, v, err := entry(f.b)
		if err != nil {
			r.err = err
		} else if string(k) == c.key {
			value, present = string(v), true
		}
	})
	return value, present
}

func (r *rawRecord) scan(raw []byte, each func(field)) {
	for len(raw) > 0 {
		f, n, err := next(raw)
		if err != nil {
			r.err = err
			return
		}
		each(f)
		raw = raw[n:]
	}
}

// each calls fn with the records that match one of the filters, in the order of the keys. Only
// those are decoded, and if the filters name the keys, only those are read.
func (t *table[T]) each(fn func(T) error, texts ...string) error {
	match, err := filters.ParseAll(texts...)
	if err != nil {
		return fmt.Errorf("list %ss: %w", t.noun, err)
	}
	b := t.tx.read(t.ns, t.path...)
	if b == nil {
		return nil
	}
	names := t.scope()
	visit := func(k, raw []byte) error {
		if raw == nil {
			return nil // a bucket
		}
		return t.visit(names, string(k), raw, match, fn)
	}
	keys, ok := filters.Exact(match, t.keyField)
	if !ok {
		return b.ForEach(visit)
	}
	slices.Sort(keys)
	for _, k := range slices.Compact(keys) {
		if k == "" {
			continue
		}
		if err := visit([]byte(k), b.Get([]byte(k))); err != nil {
			return err
		}
	}
	return nil
}

// visit calls fn with one record if it matches, and returns fn's result. The seal of a record that
// does not match is not checked: Open did.
func (t *table[T]) visit(names scope, key string, raw []byte, match filters.Filter, fn func(T) error) error {
	rec := rawRecord{raw: raw[:max(0, len(raw)-sealSize)], columns: t.columns}
	if !match.Match(&rec) && rec.err == nil {
		return nil
	}
	raw, err := names.open(key, raw)
	if err != nil {
		return t.errorf(key, err)
	}
	var v T
	if err := errors.Join(rec.err, t.decode(raw, &v)); err != nil {
		return t.errorf(key, err)
	}
	return fn(v)
}

// list collects what each visits.
func (t *table[T]) list(texts ...string) (out []T, err error) {
	err = t.each(func(v T) error {
		out = append(out, v)
		return nil
	}, texts...)
	return out, err
}
