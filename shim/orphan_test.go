package shim

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatproject/cleat/shim/stdio"
)

// ended is a container of s whose init has ended, with a bundle on disk.
func endedContainer(t *testing.T, s *Server, id string) *container {
	t.Helper()
	c := &container{id: id, bundle: t.TempDir(), execs: make(map[string]*process), removal: newRemoval()}
	c.init = newProcess(c, "", stdio.Paths{}, stopped)
	if err := os.WriteFile(c.file("config.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.add(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestShimOrphaned_NoClientCanReachContainers checks each condition.
func TestShimOrphaned_NoClientCanReachContainers(t *testing.T) {
	for name, tc := range map[string]struct {
		running, noBundle, oneBundle, noSocket, connected, pod bool
		orphaned, again                                        bool
	}{
		"bundle and socket are there": {again: true},
		"no bundle":                   {noBundle: true, orphaned: true},
		"no bundle, connected":        {noBundle: true, connected: true, orphaned: true},
		"one of two bundles":          {oneBundle: true, again: true},
		"no socket":                   {noSocket: true, orphaned: true},
		"no socket, connected":        {noSocket: true, connected: true, again: true},
		"running":                     {running: true, noBundle: true, noSocket: true},
		"no bundle, sandbox":          {noBundle: true, pod: true, again: true},
		"no socket, sandbox":          {noSocket: true, pod: true, orphaned: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := idleServer(t)
			t.Cleanup(func() { s.orphan.Stop() })
			s.socket = filepath.Join(t.TempDir(), "socket")
			if !tc.noSocket {
				if err := os.WriteFile(s.socket, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			a, b := endedContainer(t, s, "a"), endedContainer(t, s, "b")
			if tc.noBundle || tc.oneBundle {
				if err := os.RemoveAll(a.bundle); err != nil {
					t.Fatal(err)
				}
			}
			if tc.noBundle {
				if err := os.Remove(b.file("config.json")); err != nil { // rootfs may be left
					t.Fatal(err)
				}
			}
			if tc.running {
				b.init.state = running
			}
			if tc.connected {
				s.connected()
			}
			if tc.pod {
				s.pod = &pod{id: "p", stopped: make(chan struct{})}
			}
			s.mu.Lock()
			ended, again := s.orphanedLocked()
			s.mu.Unlock()
			if (len(ended) == 2) != tc.orphaned || again != tc.again {
				t.Errorf("%d containers are given up, look again %v; want orphaned %v, %v", len(ended), again, tc.orphaned, tc.again)
			}
		})
	}
}

func TestShimOrphaned_NoContainer_False(t *testing.T) {
	s := idleServer(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ended, again := s.orphanedLocked(); len(ended) != 0 || again {
		t.Errorf("orphaned %d, look again %v: that is the idle timer's", len(ended), again)
	}
}
