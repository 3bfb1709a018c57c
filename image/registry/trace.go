package registry

import (
	"fmt"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"time"
)

// Trace reports the requests of one Repository to the user who requested it.
type Trace struct {
	// Log receives a report of several lines. It may be called concurrently.
	Log func(text string)
	// Headers reports requests and responses with their headers, Steps the events of the connection.
	Headers, Steps bool
}

// secretHeaders are never reported.
func secretHeaders() []string {
	return []string{"Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie"}
}

// tracing reports the requests that its RoundTripper makes.
type tracing struct {
	http.RoundTripper
	trace Trace
}

// traced returns a RoundTripper that reports to trace; nil for no reports.
func traced(under http.RoundTripper, trace *Trace) http.RoundTripper {
	if trace == nil || trace.Log == nil {
		return under
	}
	return tracing{under, *trace}
}

// RoundTrip implements http.RoundTripper.
func (t tracing) RoundTrip(req *http.Request) (*http.Response, error) {
	name := req.Method + " " + req.URL.Redacted()
	began := time.Now()
	if t.trace.Headers {
		t.trace.Log("> " + name + "\n" + headerText("> ", req.Header))
	}
	if t.trace.Steps {
		step := func(what string) { t.trace.Log(fmt.Sprintf("* %s: %s after %v\n", name, what, time.Since(began))) }
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			GotConn:              func(i httptrace.GotConnInfo) { step(fmt.Sprintf("connection (reused: %v)", i.Reused)) },
			WroteRequest:         func(httptrace.WroteRequestInfo) { step("request sent") },
			GotFirstResponseByte: func() { step("first byte of the answer") },
		}))
	}
	resp, err := t.RoundTripper.RoundTrip(req)
	switch {
	case !t.trace.Headers:
	case err != nil:
		t.trace.Log("< " + name + ": " + err.Error() + "\n")
	default:
		t.trace.Log("< " + name + ": " + resp.Status + "\n" + headerText("< ", resp.Header))
	}
	return resp, err
}

// headerText returns a header, one line per value, without secrets.
func headerText(prefix string, h http.Header) string {
	var lines []string
	for name, values := range h {
		for _, v := range values {
			if slices.Contains(secretHeaders(), name) {
				v = "[not shown]"
			}
			lines = append(lines, prefix+name+": "+v+"\n")
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
