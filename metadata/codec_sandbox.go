package metadata

import "github.com/cleatproject/cleat/events"

// The numbers below are the format on disk: never reuse one.

func encodeSandbox(v *Sandbox) []byte {
	var e encoder
	e.str(1, v.ID)
	e.str(2, v.Runtime.Name)
	e.any(3, v.Runtime.Options)
	e.any(4, v.Spec)
	e.labels(5, v.Labels)
	e.time(6, v.CreatedAt)
	e.time(7, v.UpdatedAt)
	e.anyMap(8, v.Extensions)
	e.str(9, v.Sandboxer)
	return append(e.b, v.unknown...)
}

func decodeSandbox(raw []byte, v *Sandbox) (err error) {
	v.unknown, err = decode(raw, func(f field) (_ bool, err error) {
		switch f.num {
		case 1:
			v.ID = f.str()
		case 2:
			v.Runtime.Name = f.str()
		case 3:
			v.Runtime.Options, err = f.any()
		case 4:
			v.Spec, err = f.any()
		case 5:
			err = f.addTo(&v.Labels)
		case 6:
			v.CreatedAt = f.time()
		case 7:
			v.UpdatedAt = f.time()
		case 8:
			err = f.addAnyTo(&v.Extensions)
		case 9:
			v.Sandboxer = f.str()
		default:
			return false, nil
		}
		return true, err
	})
	return err
}

// encodeEvent is an event in the outbox; its key is its number.
func encodeEvent(v *events.Event) []byte {
	var e encoder
	e.time(1, v.Timestamp)
	e.str(2, v.Namespace)
	e.str(3, v.Topic)
	e.str(4, v.TypeURL)
	e.str(5, string(v.Value))
	return e.b
}

func decodeEvent(raw []byte, v *events.Event) error {
	_, err := decode(raw, func(f field) (bool, error) {
		switch f.num {
		case 1:
			v.Timestamp = f.time()
		case 2:
			v.Namespace = f.str()
		case 3:
			v.Topic = f.str()
		case 4:
			v.TypeURL = f.str()
		case 5:
			v.Value = f.bytes()
		}
		return true, nil
	})
	return err
}
