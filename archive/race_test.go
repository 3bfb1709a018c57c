package archive_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatproject/cleat/archive"
)

// While archives are applied, the root's directories are replaced by links that lead outside, and moved,
// as fast as possible. Applying may fail; nothing outside may change.
func TestApply_UnderRace_ChangesNothingOutside(t *testing.T) {
	var entries []tar.Header
	for i := range 40 {
		at := fmt.Sprintf("d/%d", i)
		entries = append(entries, dir("d"), dir(at), file(at+"/f"), tar.Header{Name: at + "/mode", Mode: 0o4777, Uid: 7, Gid: 7},
			hard(at+"/h", "d/secret"), link(at+"/l", "/secret"), file("d/.wh.secret"), file("d/sub/.wh..wh..opq"), file("e/evil"),
			tar.Header{Name: "d/sub", Typeflag: tar.TypeDir, Mode: 0o777, Uid: 9, Gid: 9})
	}
	packed := pack(t, entries...)
	for mode, whiteouts := range map[string]archive.Whiteouts{"remove": archive.WhiteoutRemove, "overlay": archive.WhiteoutOverlay} {
		for way, set := range waysDown() {
			t.Run(mode+"/"+way, func(t *testing.T) { race(t, packed, set(archive.Options{Whiteouts: whiteouts})) })
		}
	}
}

func race(t *testing.T, packed []byte, opts archive.Options) {
	base := t.TempDir()
	root, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	for _, d := range []string{root, outside, outside + "/sub", root + "/d", root + "/e", root + "/other"} {
		must(t, os.Mkdir(d, 0o755))
	}
	for _, f := range []string{outside + "/secret", outside + "/sub/kept"} {
		must(t, os.WriteFile(f, []byte("secret"), 0o600))
	}
	must(t, os.Symlink(outside, root+"/to"))
	must(t, os.Symlink("../outside", root+"/up"))
	before := stats(t, outside)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { swap(stop, root, [][2]string{{"d", "to"}, {"e", "up"}, {"d", "other"}, {"to", "e"}}) })
	for range 150 {
		// It may well fail.
		_, _ = archive.Apply(t.Context(), root, bytes.NewReader(packed), opts)
	}
	close(stop)
	wg.Wait()
	if after := stats(t, outside); after != before {
		t.Errorf("outside it was\n%s\nand is\n%s", before, after)
	}
}

// swap exchanges pairs of names in a directory until it is stopped.
func swap(stop <-chan struct{}, root string, pairs [][2]string) {
	for {
		for _, p := range pairs {
			select {
			case <-stop:
				return
			default:
				// One of them may be missing at this moment.
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, p[0]), unix.AT_FDCWD, filepath.Join(root, p[1]), unix.RENAME_EXCHANGE)
			}
		}
	}
}

// stats describes everything in a directory, so that any change shows.
func stats(t *testing.T, root string) (text string) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text += fmt.Sprintf("%s mode %o owner %d:%d links %d size %d changed %d.%09d\n", path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
		return nil
	}))
	return text
}
