package metadata

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
)

func TestUpdate_Failed_ChangesNothing(t *testing.T) {
	db := openTest(t)
	boom := errors.New("boom")
	err := db.Update(context.Background(), func(tx *Tx) error {
		if _, err := tx.Images("ns").Create(Image{Name: "i", Target: target("x")}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	refused(t, db, errdefs.IsNotFound, func(tx *Tx) error { _, err := tx.Images("ns").Get("i"); return err })
}

func TestUpdate_ConcurrentFailuresAreIndependent(t *testing.T) {
	db := openTest(t)
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			err := db.Update(context.Background(), func(tx *Tx) error {
				if _, err := tx.Images("ns").Create(Image{Name: fmt.Sprint("i", i%100), Target: target("x")}); err != nil {
					return err
				}
				if i%100%10 == 0 {
					return boom
				}
				return nil
			})
			switch {
			case i%100%10 == 0 && !errors.Is(err, boom):
				t.Errorf("update %d: got %v, want boom", i, err)
			case i%100%10 != 0 && err != nil && !errdefs.IsAlreadyExists(err):
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	view(t, db, func(tx *Tx) error {
		list, err := tx.Images("ns").List()
		if len(list) != 90 {
			t.Errorf("%d images, want 90", len(list))
		}
		return err
	})
}

func TestUpdate_Cancelled_DoesNotRun(t *testing.T) {
	db := openTest(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := db.Update(ctx, func(*Tx) error { t.Error("ran"); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
