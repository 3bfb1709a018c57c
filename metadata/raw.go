package metadata

import (
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protowire"
)

// Filters and the collector read single fields of many records, without decoding the records, by the numbers of
// package records. The two numbers below are protobuf's, of the entries of a map.
const (
	mapKeyField   = 1
	mapValueField = 2
)

// field is one field of a message: u for numbers, b for values with a length, which are not copied.
type field struct {
	num protowire.Number
	u   uint64
	b   []byte
}

// next returns the first field of a message and the bytes that it takes.
func next(raw []byte) (field, int, error) {
	num, typ, n := protowire.ConsumeTag(raw)
	if n < 0 {
		return field{}, 0, damagedRecord(protowire.ParseError(n))
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
		return field{}, 0, damagedRecord(protowire.ParseError(m))
	}
	return f, n + m, nil
}

func damagedRecord(err error) error {
	return fmt.Errorf("record is damaged: %w: %w", err, errdefs.ErrDataLoss)
}

// fields calls each with the fields of a message, without copying.
func fields(raw []byte, each func(field) error) error {
	for len(raw) > 0 {
		f, n, err := next(raw)
		if err != nil {
			return err
		}
		if err := each(f); err != nil {
			return err
		}
		raw = raw[n:]
	}
	return nil
}

// entry returns the key and the value of an entry of a map of strings, without copying.
func entry(raw []byte) (key, value []byte, err error) {
	err = fields(raw, func(f field) error {
		switch f.num {
		case mapKeyField:
			key = f.b
		case mapValueField:
			value = f.b
		}
		return nil
	})
	return key, value, err
}
