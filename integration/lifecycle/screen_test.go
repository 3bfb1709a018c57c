package lifecycle

import (
	"strings"
	"testing"

	"github.com/cleatproject/cleat/integration/harness"
)

// expect waits until the screen shows text, after the previously expected text.
func expect(s *harness.Screen, t *testing.T, text string) {
	t.Helper()
	s.Mu.Lock()
	defer s.Mu.Unlock()
	for {
		if i := strings.Index(s.Shown[s.Seen:], text); i >= 0 {
			s.Seen += i + len(text)
			return
		}
		if s.Ended {
			t.Fatalf("the terminal closed before it showed %q:\n%s", text, s.Shown)
		}
		s.Grown.Wait()
	}
}
