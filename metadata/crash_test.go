package metadata

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// crashEnv names the database to a copy of the test binary that is going to be killed.
const crashEnv = "CLEAT_TEST_CRASH_DB"

// TestAcknowledgedUpdatesSurviveKill kills a process that writes from several goroutines,
// and looks for every update it had acknowledged.
func TestAcknowledgedUpdatesSurviveKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	for round := range 3 {
		acked := killedWriter(t, path, 100)
		db, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		view(t, db, func(tx *Tx) error {
			for _, name := range acked {
				if _, err := tx.Images("ns").Get(name); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			}
			return nil
		})
		update(t, db, func(tx *Tx) error {
			list, err := tx.Images("ns").List()
			for _, i := range list {
				if err := tx.Images("ns").Delete(i.Name); err != nil {
					return err
				}
			}
			return err
		})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killedWriter runs crashChild until it has acknowledged n updates, kills it, and returns
// all it acknowledged.
func killedWriter(t *testing.T, path string, n int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
			acked = append(acked, name)
		}
		if len(acked) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(acked) < n {
		t.Fatalf("the writer ended by itself after %d updates: %v", len(acked), err)
	}
	return acked
}

// TestCrashChild is the process that is killed; run otherwise it does nothing.
func TestCrashChild(t *testing.T) {
	path := os.Getenv(crashEnv)
	if path == "" {
		return
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	_ = db.Update(ctx, func(tx *Tx) error { return tx.Namespaces().Create("ns", nil) }) // may exist
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 1_000_000 {
				name := fmt.Sprintf("image-%d-%d", g, i)
				err := db.Update(ctx, func(tx *Tx) error {
					_, err := tx.Images("ns").Create(Image{Name: name, Target: target(name)})
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Println("acked " + name)
			}
		})
	}
	wg.Wait()
}
