package metadata

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cleatproject/cleat/events"
)

// The process that is killed writes from several goroutines, each to a namespace of its own.
const (
	writers = 4
	// crashDir names its directory, crashStep the step at which it kills itself: "<step>:<number of
	// earlier passes>"; empty: it is killed from outside.
	crashDir  = "CLEAT_TEST_CRASH_DIR"
	crashStep = "CLEAT_TEST_CRASH_STEP"
)

// TestKilledWriters kills a process that writes and publishes, from outside at any time and from
// inside at every step of an update. What it acknowledged is present, what it did not is present
// with all its parts or not at all, and what is present was published exactly once and in order.
func TestKilledWriters(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	dir := t.TempDir()
	for _, step := range []string{"", stepCommit, stepDeliver, stepAnswer} {
		for range 4 {
			passed := rnd.IntN(60)
			var acked []string
			if step == "" {
				acked = killedWriter(t, dir, "", 1+passed*2)
			} else {
				acked = killedWriter(t, dir, fmt.Sprint(step, ":", passed), 0)
			}
			checkCrashed(t, dir, fmt.Sprint(step, ":", passed), acked)
		}
	}
}

// checkCrashed opens what a killed writer left.
func checkCrashed(t *testing.T, dir, what string, acked []string) {
	t.Helper()
	db, log := logged(t, dir, nil)
	published := topics(t, log)
	recorded := make(map[string]bool)
	view(t, db, func(tx *Tx) error {
		for g := range writers {
			images, err := tx.Images(fmt.Sprint("ns", g)).List()
			containers, err2 := tx.Containers(fmt.Sprint("ns", g)).List()
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			if len(images) != len(containers) {
				t.Errorf("%s: %d images, %d containers: an update is there in part", what, len(images), len(containers))
			}
			for _, i := range images {
				recorded[i.Name] = true
			}
		}
		return nil
	})
	closeBoth(t, db, log)
	last := make(map[string]string)
	for _, name := range acked {
		if !recorded[name] {
			t.Errorf("%s: %s was acknowledged and is lost", what, name)
		}
	}
	for _, topic := range published {
		if !recorded[topic] {
			t.Errorf("%s: %s was published twice, or never committed", what, topic)
		}
		delete(recorded, topic)
		ns, _, _ := strings.Cut(topic, "-")
		if topic <= last[ns] {
			t.Errorf("%s: %s comes after %s", what, topic, last[ns])
		}
		last[ns] = topic
	}
	for name := range recorded {
		t.Errorf("%s: %s was committed and not published", what, name)
	}
}

// killedWriter runs TestCrashChild until it has killed itself or acknowledged n updates, and
// returns all it acknowledged.
func killedWriter(t *testing.T, dir, step string, n int) (acked []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashStep+"="+step)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
			acked = append(acked, name)
		}
		if n > 0 && len(acked) == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the writer was not killed: %v after %d updates", err, len(acked))
	}
	return acked
}

// dieAt returns a function for Options.Step that kills the process at a step.
func dieAt(spec string) func(string) {
	name, count, _ := strings.Cut(spec, ":")
	left, _ := strconv.Atoi(count)
	var passed atomic.Int64
	return func(step string) {
		if step == name && passed.Add(1) > int64(left) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		}
	}
}

// TestCrashChild is the process that is killed; run otherwise it does nothing.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		return
	}
	db, _ := logged(t, dir, dieAt(os.Getenv(crashStep)))
	start := time.Now().UnixNano() // increases from round to round
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			ns := fmt.Sprint("ns", g)
			_ = db.Update(context.Background(), func(tx *Tx) error { return tx.Namespaces().Create(ns, nil) }) // may exist
			for i := range 1_000_000 {
				name := fmt.Sprintf("%s-%020d-%08d", ns, start, i)
				err := db.Update(context.Background(), func(tx *Tx) error {
					if _, err := tx.Images(ns).Create(Image{Name: name, Target: target(name)}); err != nil {
						return err
					}
					if err := tx.Publish(ns, name, Any{TypeURL: "type"}); err != nil {
						return err
					}
					_, err := tx.Containers(ns).Create(Container{ID: name, Runtime: Runtime{Name: "r"}})
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

// logged opens an event log and a database that publishes to it.
func logged(t *testing.T, dir string, step func(string)) (*DB, *events.Log) {
	t.Helper()
	log, err := events.Open(filepath.Join(dir, "events"), events.Options{})
	if err != nil {
		t.Fatal(err)
	}
	db, err := OpenWith(filepath.Join(dir, "meta.db"), Options{Outlet: log, Step: step})
	if err != nil {
		t.Fatal(err)
	}
	return db, log
}

// TestPowerLoss_BeforeMetaPage puts any of the pages that a commit wrote on disk, but not the meta
// page that it writes last: the previous state is whole.
func TestPowerLoss_BeforeMetaPage(t *testing.T) {
	const pageSize = 4096
	raw, _ := filled(t)
	path := filepath.Join(t.TempDir(), "meta.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	for round := range 12 {
		before, held := readHeld(t, path)
		db, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		update(t, db, func(tx *Tx) error {
			if err := tx.Containers("ns").Delete(fmt.Sprintf("n0-%d", round)); err != nil {
				return err
			}
			return fillOne(tx, fmt.Sprint("later", round), uint64(1000+round))
		})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			torn := append(slices.Clone(before), make([]byte, max(0, len(after)-len(before)))...)
			for at := 2 * pageSize; at+pageSize <= len(after); at += pageSize {
				if rnd.IntN(2) == 0 {
					copy(torn[at:at+pageSize], after[at:])
				}
			}
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, got := readHeld(t, path); !reflect.DeepEqual(got, held) {
				t.Fatal("the state before the commit is not there")
			}
		}
		if err := os.WriteFile(path, after, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// readHeld returns a database's bytes and what it holds.
func readHeld(t *testing.T, path string) ([]byte, holdings) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	held := holdingsOf(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return raw, held
}
