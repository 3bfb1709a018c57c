package events

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cleatproject/cleat/proto/rpc"
	"github.com/cleatproject/cleat/proto/types"
)

// A record in a segment, integers little-endian:
//
//	4 bytes  length of the body
//	4 bytes  CRC-32C of cursor and body
//	8 bytes  cursor
//	n bytes  body: a containerd.types.Envelope, protobuf; with a field of our own, 1000, a
//	         varint: Event.Sequence, omitted if it is 0
//
// A truncated record, or one with a wrong checksum, ends the segment: it is the rest of a crash.
const headerSize = 16

// maxBody bounds a record: an event is not a document.
const maxBody = 4 << 20

// sequenceField is the number of our field in the body.
const sequenceField = 1000

var errTorn = errors.New("record is torn")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// encode returns the record of e.
func encode(e Event) ([]byte, error) {
	body, err := rpc.Marshal(&types.Envelope{
		Timestamp: types.FromTime(e.Timestamp),
		Namespace: e.Namespace,
		Topic:     e.Topic,
		Event:     &types.Any{TypeUrl: e.TypeURL, Value: e.Value},
	})
	if err != nil {
		return nil, err
	}
	if e.Sequence != 0 {
		body = protowire.AppendVarint(protowire.AppendTag(body, sequenceField, protowire.VarintType), e.Sequence)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("event of %d bytes is over the limit of %d", len(body), maxBody)
	}
	rec := make([]byte, headerSize, headerSize+len(body))
	binary.LittleEndian.PutUint32(rec, uint32(len(body)))
	binary.LittleEndian.PutUint64(rec[8:], e.Cursor)
	rec = append(rec, body...)
	binary.LittleEndian.PutUint32(rec[4:], crc32.Checksum(rec[8:], castagnoli()))
	return rec, nil
}

// bodyLength reads a header's length field.
func bodyLength(header []byte) (int, error) {
	n := binary.LittleEndian.Uint32(header)
	if n > maxBody {
		return 0, errTorn
	}
	return int(n), nil
}

// decode decodes one complete record, header included.
func decode(rec []byte) (Event, error) {
	if len(rec) < headerSize {
		return Event{}, errTorn
	}
	n, err := bodyLength(rec)
	if err != nil {
		return Event{}, err
	}
	if len(rec) != headerSize+n {
		return Event{}, errTorn
	}
	if crc32.Checksum(rec[8:], castagnoli()) != binary.LittleEndian.Uint32(rec[4:]) {
		return Event{}, errTorn
	}
	var env types.Envelope
	if err := env.Unmarshal(rec[headerSize:]); err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	e := Event{
		Cursor:    binary.LittleEndian.Uint64(rec[8:]),
		Timestamp: env.Timestamp.Time(),
		Namespace: env.Namespace,
		Topic:     env.Topic,
	}
	if env.Event != nil {
		e.TypeURL, e.Value = env.Event.TypeUrl, env.Event.Value
	}
	e.Sequence = sequenceOf(rec[headerSize:])
	return e, nil
}

// sequenceOf finds our field in a body that was already decoded.
func sequenceOf(body []byte) (sequence uint64) {
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return sequence
		}
		m := protowire.ConsumeFieldValue(num, typ, body[n:])
		if m < 0 {
			return sequence
		}
		if num == sequenceField && typ == protowire.VarintType {
			sequence, _ = protowire.ConsumeVarint(body[n:])
		}
		body = body[n+m:]
	}
	return sequence
}

// Event is one entry of the log.
type Event struct {
	// Cursor is the position in the log; Append sets it.
	Cursor uint64
	// Sequence is the number that the database gave an event of a change of its own, which
	// identifies an event that is appended again after a crash; 0 for other events.
	Sequence uint64
	// Timestamp is the time of the event.
	Timestamp time.Time
	Namespace string
	// Topic is a path such as /tasks/exit.
	Topic string
	// TypeURL names the message that Value is the serialized form of.
	TypeURL string
	Value   []byte
}
