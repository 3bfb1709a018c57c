package registry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTrace_ReportsRequestsWithoutSecrets(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "hidden-cookie")
		w.Header().Set("X-Answer", "shown-answer")
		w.WriteHeader(http.StatusTeapot)
	}))
	defer server.Close()
	for name, tc := range map[string]struct {
		trace       Trace
		shown, gone []string
	}{
		"headers": {Trace{Headers: true}, []string{"> GET ", "X-Ask: shown-ask", "418", "X-Answer: shown-answer", "Authorization: [not shown]"}, []string{"first byte"}},
		"steps":   {Trace{Steps: true}, []string{"connection", "first byte"}, []string{"shown-ask", "418"}},
		"both":    {Trace{Headers: true, Steps: true}, []string{"shown-ask", "first byte"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			tc.trace.Log = func(text string) { log.WriteString(text) }
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(server.URL, "//", "//user:hidden-password@", 1), nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Ask", "shown-ask")
			req.Header.Set("Authorization", "hidden-token")
			resp, err := traced(http.DefaultTransport, &tc.trace).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			for _, s := range tc.shown {
				if !strings.Contains(log.String(), s) {
					t.Errorf("%q is not in the report:\n%s", s, &log)
				}
			}
			for _, s := range append(tc.gone, "hidden") {
				if strings.Contains(log.String(), s) {
					t.Errorf("%q is in the report:\n%s", s, &log)
				}
			}
		})
	}
}
