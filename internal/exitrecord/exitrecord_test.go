package exitrecord

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWriteAndRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, want := range []Record{
		{ID: "a", Pid: 1, Status: 0, ExitedAt: at},
		{ID: "b", Pid: 4711, Status: 137, ExitedAt: at, OOM: true},
	} {
		if err := Write(dir, want); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(dir); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestDamagedRecord(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "{", "{}", "null", `{"id":"a","status":1}`, `{"id":"a","status":999,"exited_at":"2026-01-02T03:04:05Z"}`} {
		if err := os.WriteFile(filepath.Join(dir, FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Read(dir); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %+v, %v, want ErrInvalid", text, r, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"id":"web","pid":4711,"status":137,"exited_at":"2026-01-02T03:04:05.000000006Z","oom":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err == nil && (r.ID == "" || r.Status < 0 || r.Status > 255) {
			t.Errorf("accepted %+v", r)
		}
	})
}
