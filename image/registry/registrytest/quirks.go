package registrytest

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Quirk is a way in which a registry differs from the specification, or uses a freedom of it.
// Images must be pulled from and pushed to each of them.
type Quirk struct {
	// Group names its topic; quirks of different groups can be combined.
	Group, Name string
	// Instead writes the response in place of the registry, which does nothing then; nil writes none. It reports
	// whether it did. It is not called for a request without the required credential.
	Instead func(*Exchange) bool
	// Change changes a response before it is sent; nil changes none.
	Change func(*Exchange)
	// Challenges are the headers WWW-Authenticate of requests without a credential, in which HOST is replaced by
	// the registry; nil requires no credential.
	Challenges []string
	// TLS gets connections that begin with TLS, and returns to close them; nil treats them as HTTP.
	TLS func(net.Conn)
	// Silent marks that a client with TLS gets no response, and has to give up.
	Silent bool
}

// And combines two quirks: q is applied first.
func (q Quirk) And(o Quirk) Quirk {
	out := Quirk{
		Group: q.Group + "+" + o.Group, Name: q.Group + ": " + q.Name + "; " + o.Group + ": " + o.Name,
		Challenges: append(append([]string(nil), q.Challenges...), o.Challenges...),
		TLS:        q.TLS, Silent: q.Silent || o.Silent,
		Instead: func(x *Exchange) bool {
			return q.Instead != nil && q.Instead(x) || o.Instead != nil && o.Instead(x)
		},
		Change: func(x *Exchange) {
			for _, c := range []func(*Exchange){q.Change, o.Change} {
				if c != nil {
					c(x)
				}
			}
		},
	}
	if o.TLS != nil {
		out.TLS = o.TLS
	}
	return out
}

// Quirks returns all of them.
func Quirks() []Quirk {
	var out []Quirk
	for _, group := range [][]Quirk{statuses(), challenges(), headers(), redirects(), mounts(), plain()} {
		out = append(out, group...)
	}
	return out
}

// on applies a change to the successful answers of some operations.
func on(change func(*Exchange), ops ...Op) func(*Exchange) {
	return func(x *Exchange) {
		if x.Status >= http.StatusMultipleChoices {
			return
		}
		if slices.Contains(ops, x.Op) {
			change(x)
		}
	}
}

func status(code int, ops ...Op) func(*Exchange) {
	return on(func(x *Exchange) { x.Status = code }, ops...)
}

// refuse answers some operations with an error.
func refuse(code int, ops ...Op) func(*Exchange) bool {
	return func(x *Exchange) bool {
		if !slices.Contains(ops, x.Op) {
			return false
		}
		x.Status, x.Header = code, http.Header{"Content-Type": {"application/json"}}
		x.Body = []byte(`{"errors":[{"code":"DENIED","message":"refused by a quirk"}]}`)
		return true
	}
}

func without(header string, ops ...Op) func(*Exchange) {
	return on(func(x *Exchange) { x.Header.Del(header) }, ops...)
}

func statuses() []Quirk {
	writes := []Op{PutManifest, Begin, Chunk, Finish}
	return []Quirk{
		{Group: "status", Name: "200 for all writes", Change: status(200, writes...)},
		{Group: "status", Name: "201 for all writes", Change: status(201, writes...)},
		{Group: "status", Name: "202 for all writes", Change: status(202, writes...)},
		{Group: "status", Name: "204 for all writes", Change: status(204, writes...)},
		{Group: "status", Name: "200 for the state of an upload", Change: status(200, Status)},
		{Group: "status", Name: "203 for reads", Change: status(203, HeadManifest, GetManifest, HeadBlob)},
		{Group: "status", Name: "401 for the root alone", Instead: refuse(401, Root)},
		{Group: "status", Name: "404 for the root", Instead: refuse(404, Root)},
		{Group: "status", Name: "HEAD of blobs 403", Instead: refuse(403, HeadBlob)},
		{Group: "status", Name: "HEAD of blobs 405", Instead: refuse(405, HeadBlob)},
		{Group: "status", Name: "HEAD of manifests 400", Instead: refuse(400, HeadManifest)},
		{Group: "status", Name: "HEAD of manifests 403", Instead: refuse(403, HeadManifest)},
		{Group: "status", Name: "HEAD of manifests 405", Instead: refuse(405, HeadManifest)},
		{Group: "status", Name: "HEAD of manifests 501", Instead: refuse(501, HeadManifest)},
		{Group: "status", Name: "no chunks 405", Instead: refuse(405, Chunk)},
		{Group: "status", Name: "no chunks 501", Instead: refuse(501, Chunk)},
		{Group: "status", Name: "no chunks 416", Instead: refuse(416, Chunk)},
	}
}

func challenges() []Quirk {
	const bearer = `Bearer realm="http://HOST/token",service="reg",scope="repository:a/b:pull"`
	quirk := func(name string, c ...string) Quirk { return Quirk{Group: "challenge", Name: name, Challenges: c} }
	return []Quirk{
		quirk("bearer", bearer),
		quirk("basic", `Basic realm="registry"`),
		quirk("basic without a realm", `Basic`),
		quirk("words in another case", `bEaReR REALM="http://HOST/token",Service=reg`),
		quirk("two headers, basic first", `Basic realm="r"`, bearer),
		quirk("two headers, bearer first", bearer, `Basic realm="r"`),
		quirk("one header, basic first", `Basic realm="a, b=c", `+bearer),
		quirk("one header, bearer first", bearer+`, Basic realm="r"`),
		quirk("unknown schemes before", `Negotiate`, `NTLM TlRMTVNTUAAC==`, `Digest realm="x", qop="auth,auth-int", nonce="n"`, bearer),
		quirk("unknown schemes before in one header", `Negotiate, NTLM TlRMTVNTUAAC==, Digest realm="x", qop="auth,auth-int", nonce="n", `+bearer),
		quirk("unknown schemes before basic", `Negotiate`, `Basic realm="r"`),
		quirk("a bearer without a realm next to basic", `Bearer service="x"`, `Basic realm="r"`),
		quirk("spaces", `  Bearer   realm = "http://HOST/token" ,  service = "reg" `),
		quirk("an unquoted realm", `Bearer realm=http://HOST/token,service=reg`),
		quirk("a relative realm", `Bearer realm="/token",service="reg"`),
		quirk("no service", `Bearer realm="http://HOST/token"`),
		quirk("escapes", `Bearer realm="http://HOST/\token",service="a \"quoted\" name"`),
	}
}

func headers() []Quirk {
	quirk := func(name string, c func(*Exchange)) Quirk { return Quirk{Group: "header", Name: name, Change: c} }
	docs := []Op{HeadManifest, GetManifest}
	typed := func(mediaType string) func(*Exchange) {
		return on(func(x *Exchange) { x.Header.Set("Content-Type", mediaType) }, docs...)
	}
	return []Quirk{
		quirk("no Content-Type", without("Content-Type", HeadManifest, GetManifest, GetBlob, HeadBlob)),
		quirk("no Content-Type of HEAD", without("Content-Type", HeadManifest)),
		quirk("JSON", typed("application/json")),
		quirk("plain text", typed("text/plain; charset=utf-8")),
		quirk("bytes", typed("application/octet-stream")),
		quirk("a malformed Content-Type", typed(";;;")),
		quirk("a type with parameters", on(func(x *Exchange) { x.Header.Set("Content-Type", x.Header.Get("Content-Type")+"; charset=utf-8") }, docs...)),
		quirk("no Docker-Content-Digest", without("Docker-Content-Digest", HeadManifest, GetManifest, HeadBlob, GetBlob, PutManifest, Finish)),
		quirk("a malformed Docker-Content-Digest", on(func(x *Exchange) { x.Header.Set("Docker-Content-Digest", "none") }, docs...)),
		quirk("no Content-Length", on(func(x *Exchange) { x.NoLength = true }, HeadManifest, GetManifest, HeadBlob, GetBlob)),
		quirk("a Content-Length of 0 for HEAD", on(func(x *Exchange) { x.Header.Set("Content-Length", "0") }, HeadManifest)),
		quirk("no Location of writes", without("Location", Chunk, Finish, PutManifest)),
		quirk("no Location at all", without("Location", Begin, Chunk, Finish, PutManifest)),
		quirk("no Range", without("Range", Begin, Chunk, Status)),
		quirk("a malformed Range", on(func(x *Exchange) { x.Header.Set("Range", "all") }, Begin, Chunk)),
		quirk("an absolute Location", on(func(x *Exchange) {
			x.Header.Set("Location", "http://"+x.Request.Host+x.Header.Get("Location"))
		}, Begin, Chunk, Finish)),
		quirk("a Location with a query", on(func(x *Exchange) {
			x.Header.Set("Location", x.Header.Get("Location")+"?state=a%2Fb&digest_hint=1")
		}, Begin, Chunk)),
		quirk("no Content-Range", without("Content-Range", GetBlob)),
		{Group: "header", Name: "no ranges", Instead: func(x *Exchange) bool {
			x.Request.Header.Del("Range") // as if it had not been sent
			return false
		}},
		quirk("416 for ranges", on(func(x *Exchange) {
			if x.Status == http.StatusPartialContent {
				x.Status, x.Body = http.StatusRequestedRangeNotSatisfiable, nil
				x.Header.Del("Content-Range")
			}
		}, GetBlob)),
		quirk("bodies that break off", breaking()),
	}
}

// breaking breaks every second body of a blob.
func breaking() func(*Exchange) {
	var mu sync.Mutex
	n := 0
	return on(func(x *Exchange) {
		mu.Lock()
		defer mu.Unlock()
		n++
		x.Break = n%2 == 1 && len(x.Body) > 1
	}, GetBlob)
}

func redirects() []Quirk {
	quirk := func(name string, code int, ops ...Op) Quirk {
		return Quirk{Group: "redirect", Name: name, Instead: redirect(code, ops...)}
	}
	reads := []Op{HeadManifest, GetManifest, HeadBlob, GetBlob}
	writes := []Op{Begin, Chunk, Finish, PutManifest}
	return []Quirk{
		quirk("301 of reads", 301, reads...), quirk("302 of reads", 302, reads...), quirk("307 of reads", 307, reads...), quirk("308 of reads", 308, reads...),
		quirk("301 of writes", 301, writes...), quirk("302 of writes", 302, writes...), quirk("307 of writes", 307, writes...), quirk("308 of writes", 308, writes...),
	}
}

// redirect redirects operations once each, marked by a query.
func redirect(code int, ops ...Op) func(*Exchange) bool {
	return func(x *Exchange) bool {
		q := x.Request.URL.Query()
		if q.Has("redirected") || !slices.Contains(ops, x.Op) {
			return false
		}
		u := *x.Request.URL
		q.Set("redirected", "1")
		u.RawQuery = q.Encode()
		x.Status, x.Header = code, http.Header{"Location": {u.RequestURI()}}
		return true
	}
}

func mounts() []Quirk {
	var out []Quirk
	for _, code := range []string{"400", "401", "403", "404", "405", "409", "422", "500", "501"} {
		n := 0
		for _, c := range code {
			n = n*10 + int(c-'0')
		}
		out = append(out, Quirk{Group: "mount", Name: "refused with " + code, Instead: refuse(n, Mount)})
	}
	return append(out,
		Quirk{Group: "mount", Name: "200", Change: status(200, Mount)},
		Quirk{Group: "mount", Name: "201 without a Location", Change: without("Location", Mount)},
		Quirk{Group: "mount", Name: "ignored, 202 without a Location", Instead: func(x *Exchange) bool {
			x.Status = http.StatusAccepted
			return x.Op == Mount
		}},
	)
}

func plain() []Quirk {
	quirk := func(name string, f func(net.Conn)) Quirk { return Quirk{Group: "plain", Name: name, TLS: f} }
	return []Quirk{
		quirk("reset", func(c net.Conn) {
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
		}),
		quirk("closed", func(net.Conn) {}),
		quirk("400", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\nno TLS\n") }),
		quirk("400 of HTTP/1.1", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request")
		}),
		quirk("words", func(c net.Conn) { _, _ = io.WriteString(c, "what is this?\r\n") }),
		quirk("garbage", func(c net.Conn) { _, _ = c.Write([]byte(strings.Repeat("\x00\xff\x16", 99))) }),
		quirk("one byte", func(c net.Conn) { _, _ = c.Write([]byte{0x15}) }),
		{Group: "plain", Name: "silence", Silent: true, TLS: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
	}
}
