// Package types holds the messages that several services use, and their conversions.
package types

import "time"

// FromTime returns t on the wire; the zero time is nil.
func FromTime(t time.Time) *Timestamp {
	if t.IsZero() {
		return nil
	}
	return &Timestamp{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())}
}

// Time returns the time in UTC; nil is the zero time.
func (m *Timestamp) Time() time.Time {
	if m == nil {
		return time.Time{}
	}
	return time.Unix(m.Seconds, int64(m.Nanos)).UTC()
}
