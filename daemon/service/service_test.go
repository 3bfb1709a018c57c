package service

import (
	"slices"
	"testing"
)

func TestRecoveries_HaveOneOrder(t *testing.T) {
	for range 10 {
		var got []string
		for _, r := range new(Service).recoveries() {
			got = append(got, r.what)
		}
		want := []string{"resume frozen containers", "resume containers", "restore storage limits", "clean up snapshots"}
		if !slices.Equal(got, want) {
			t.Fatalf("order %q, want %q", got, want)
		}
	}
}
