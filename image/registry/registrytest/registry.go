// Package registrytest is a registry in memory whose responses a test can change.
//
// A Registry stores blobs and documents and answers as OCI's distribution specification describes. Each response is
// an Exchange, which the function given to New may change before it is sent: status, headers, body, and
// whether the connection breaks. Quirks lists ways in which registries in use differ.
//
// It checks the client's requests: a wrong digest, a chunk at the wrong offset or a request without the
// required credential is refused.
package registrytest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	digest "github.com/opencontainers/go-digest"
)

// Op is the operation of a request.
type Op string

// The requests of the protocol.
const (
	Root         Op = "root"
	Token        Op = "token"
	HeadManifest Op = "head manifest"
	GetManifest  Op = "get manifest"
	PutManifest  Op = "put manifest"
	HeadBlob     Op = "head blob"
	GetBlob      Op = "get blob"
	Begin        Op = "begin upload"
	Mount        Op = "mount"
	Chunk        Op = "chunk"
	Finish       Op = "finish upload"
	Status       Op = "upload status"
	Other        Op = "other"
)

// Exchange is a request and the response to it, as it will be sent.
type Exchange struct {
	Op      Op
	Request *http.Request
	Status  int
	Header  http.Header
	Body    []byte
	// NoLength sends the body without its length, and Break only half of it.
	NoLength, Break bool
}

// Document is a manifest or an index with the type that it was uploaded with.
type Document struct {
	MediaType string
	Raw       []byte
}

// Registry is a running registry. It has to be closed. Its methods may be called concurrently.
type Registry struct {
	// Host is its address, HOST:PORT on loopback.
	Host   string
	quirk  Quirk
	server *http.Server
	ended  sync.WaitGroup

	mu       sync.Mutex
	blobs    map[string][]byte   // by repository and digest
	docs     map[string]Document // by repository and digest
	tags     map[string]digest.Digest
	uploads  map[string][]byte
	begun    int
	requests []string
}

// New starts a registry with a quirk; the zero one has none.
func New(q Quirk) (*Registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Registry{
		Host: l.Addr().String(), quirk: q,
		blobs: make(map[string][]byte), docs: make(map[string]Document), tags: make(map[string]digest.Digest), uploads: make(map[string][]byte),
	}
	r.server = &http.Server{Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: 0} // for tests on loopback
	if q.TLS != nil {
		l = &peeking{Listener: l, onTLS: q.TLS, conns: make(chan net.Conn), done: make(chan struct{}), held: make(map[net.Conn]bool)}
		l.(*peeking).start()
	}
	r.ended.Go(func() { _ = r.server.Serve(l) }) // ends by Close
	return r, nil
}

// Close stops the registry and its connections.
func (r *Registry) Close() {
	_ = r.server.Close()
	r.ended.Wait()
}

// AddBlob adds a blob to a repository.
func (r *Registry) AddBlob(repository string, data []byte) digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digest.FromBytes(data)
	r.blobs[repository+"@"+d.String()] = data
	return d
}

// AddDocument adds a manifest or index to a repository, under a tag unless that is "".
func (r *Registry) AddDocument(repository, tag, mediaType string, raw []byte) digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addLocked(repository, tag, Document{mediaType, raw})
}

func (r *Registry) addLocked(repository, tag string, doc Document) digest.Digest {
	d := digest.FromBytes(doc.Raw)
	r.docs[repository+"@"+d.String()] = doc
	if tag != "" {
		r.tags[repository+":"+tag] = d
	}
	return d
}

// Blob returns a blob of a repository.
func (r *Registry) Blob(repository string, d digest.Digest) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.blobs[repository+"@"+d.String()]
	return data, ok
}

// Tagged returns the document under a tag.
func (r *Registry) Tagged(repository, tag string) (Document, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	doc, ok := r.docs[repository+"@"+r.tags[repository+":"+tag].String()]
	return doc, ok
}

// Requests returns the requests so far, as METHOD URI.
func (r *Registry) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.requests...)
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		cut(w)
		return
	}
	x := r.answer(req, body)
	if r.quirk.Change != nil {
		r.quirk.Change(x)
	}
	send(w, x)
}

func send(w http.ResponseWriter, x *Exchange) {
	for name, values := range x.Header {
		w.Header()[name] = values
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header()["Content-Type"] = nil // none: net/http would guess one
	}
	if w.Header().Get("Content-Length") == "" && !x.NoLength {
		w.Header().Set("Content-Length", fmt.Sprint(len(x.Body)))
	}
	w.WriteHeader(x.Status)
	if x.Request.Method == http.MethodHead {
		return
	}
	if x.NoLength {
		_ = http.NewResponseController(w).Flush() // now the length cannot be known
	}
	if x.Break {
		_, _ = w.Write(x.Body[:len(x.Body)/2])
		_ = http.NewResponseController(w).Flush()
		cut(w)
		return
	}
	_, _ = w.Write(x.Body) // the client may be gone
}

// cut closes the connection without ending the response.
func cut(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close() // losing data is intended
	}
}

// answer writes the response of a registry without quirks.
func (r *Registry) answer(req *http.Request, body []byte) *Exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, req.Method+" "+req.URL.RequestURI())
	x := &Exchange{Op: Other, Request: req, Status: http.StatusOK, Header: make(http.Header)}
	path, ok := strings.CutPrefix(req.URL.Path, "/v2")
	switch {
	case req.URL.Path == "/token":
		r.token(x)
	case !ok:
		x.Status = http.StatusNotFound
	case r.quirk.Challenges != nil && !authorized(req):
		x.Op, x.Status = opOf(req, path), http.StatusUnauthorized
		for _, c := range r.quirk.Challenges {
			x.Header.Add("WWW-Authenticate", strings.ReplaceAll(c, "HOST", r.Host))
		}
	default:
		if x.Op = opOf(req, path); r.quirk.Instead == nil || !r.quirk.Instead(x) {
			r.serveLocked(x, path, body)
		}
	}
	return x
}

// The required credential, and the token that it is exchanged for.
const (
	User     = "user"
	Password = "s3cret-pw"
	token    = "T0ken"
)

func authorized(req *http.Request) bool {
	user, pw, basic := req.BasicAuth()
	return req.Header.Get("Authorization") == "Bearer "+token || basic && user == User && pw == Password
}

func (r *Registry) token(x *Exchange) {
	x.Op = Token
	user, pw, _ := x.Request.BasicAuth()
	if user != User || pw != Password {
		x.Status = http.StatusUnauthorized
		return
	}
	x.Header.Set("Content-Type", "application/json")
	x.Body = []byte(`{"token":"` + token + `"}`)
}

// opOf returns the operation of a request.
func opOf(req *http.Request, path string) Op {
	upload := strings.Contains(path, "/blobs/uploads/")
	switch m := req.Method; {
	case path == "/" || path == "":
		return Root
	case strings.Contains(path, "/manifests/"):
		return map[string]Op{http.MethodHead: HeadManifest, http.MethodGet: GetManifest, http.MethodPut: PutManifest}[m]
	case upload && m == http.MethodPost && req.URL.Query().Get("mount") != "":
		return Mount
	case upload:
		return map[string]Op{http.MethodPost: Begin, http.MethodPatch: Chunk, http.MethodPut: Finish, http.MethodGet: Status}[m]
	case strings.Contains(path, "/blobs/"):
		return map[string]Op{http.MethodHead: HeadBlob, http.MethodGet: GetBlob}[m]
	}
	return Other
}

func (r *Registry) serveLocked(x *Exchange, path string, body []byte) {
	switch x.Op {
	case Root:
	case HeadManifest, GetManifest, PutManifest:
		r.manifestLocked(x, path, body)
	case HeadBlob, GetBlob:
		r.blobLocked(x, path)
	case Begin, Mount, Chunk, Finish, Status:
		r.uploadLocked(x, path, body)
	default:
		x.Status = http.StatusNotFound
	}
}

func (r *Registry) manifestLocked(x *Exchange, path string, body []byte) {
	repository, target, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/manifests/")
	d := digest.Digest(target)
	if d.Validate() != nil {
		d = r.tags[repository+":"+target]
	}
	if x.Op == PutManifest {
		tag := target
		if digest.Digest(target).Validate() == nil {
			tag = ""
		}
		d = r.addLocked(repository, tag, Document{x.Request.Header.Get("Content-Type"), body})
		x.Status = http.StatusCreated
		x.Header.Set("Docker-Content-Digest", d.String())
		x.Header.Set("Location", "/v2/"+repository+"/manifests/"+d.String())
		return
	}
	doc, ok := r.docs[repository+"@"+d.String()]
	if !ok {
		x.Status = http.StatusNotFound
		return
	}
	x.Header.Set("Content-Type", doc.MediaType)
	x.Header.Set("Docker-Content-Digest", d.String())
	x.Body = doc.Raw
}

func (r *Registry) blobLocked(x *Exchange, path string) {
	repository, d, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/blobs/")
	data, ok := r.blobs[repository+"@"+d]
	if !ok {
		x.Status = http.StatusNotFound
		return
	}
	x.Header.Set("Content-Type", "application/octet-stream")
	x.Header.Set("Docker-Content-Digest", d)
	x.Body = data
	var from, to int
	n, _ := fmt.Sscanf(x.Request.Header.Get("Range"), "bytes=%d-%d", &from, &to)
	if n == 0 {
		return
	}
	if n == 1 || to >= len(data) {
		to = len(data) - 1
	}
	if from > to {
		x.Status, x.Body = http.StatusRequestedRangeNotSatisfiable, nil
		return
	}
	x.Status, x.Body = http.StatusPartialContent, data[from:to+1]
	x.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(data)))
}

func (r *Registry) uploadLocked(x *Exchange, path string, body []byte) {
	repository, id, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/blobs/uploads/")
	q := x.Request.URL.Query()
	if x.Op == Mount {
		if data, ok := r.blobs[q.Get("from")+"@"+q.Get("mount")]; ok {
			r.blobs[repository+"@"+q.Get("mount")] = data
			x.Status = http.StatusCreated
			x.Header.Set("Location", "/v2/"+repository+"/blobs/"+q.Get("mount"))
			return
		}
		x.Op = Begin
	}
	if x.Op == Begin {
		r.begun++
		id = fmt.Sprintf("upload-%d", r.begun)
		r.uploads[id] = []byte{}
		r.standsLocked(x, repository, id)
		x.Status = http.StatusAccepted
		return
	}
	has, ok := r.uploads[id]
	if !ok {
		x.Status = http.StatusNotFound
		return
	}
	switch x.Op {
	case Status:
		r.standsLocked(x, repository, id)
		x.Status = http.StatusNoContent
	case Chunk:
		if cr := x.Request.Header.Get("Content-Range"); cr != "" && !strings.HasPrefix(cr, fmt.Sprintf("%d-", len(has))) {
			x.Status = http.StatusRequestedRangeNotSatisfiable
			return
		}
		r.uploads[id] = append(bytes.Clone(has), body...)
		r.standsLocked(x, repository, id)
		x.Status = http.StatusAccepted
	case Finish:
		all := append(bytes.Clone(has), body...)
		if digest.FromBytes(all).String() != q.Get("digest") {
			x.Status = http.StatusBadRequest
			return
		}
		delete(r.uploads, id)
		r.blobs[repository+"@"+q.Get("digest")] = all
		x.Status = http.StatusCreated
		x.Header.Set("Location", "/v2/"+repository+"/blobs/"+q.Get("digest"))
		x.Header.Set("Docker-Content-Digest", q.Get("digest"))
	}
}

func (r *Registry) standsLocked(x *Exchange, repository, id string) {
	at := url.URL{Path: "/v2/" + repository + "/blobs/uploads/" + id}
	x.Header.Set("Location", at.String())
	x.Header.Set("Docker-Upload-UUID", id)
	x.Header.Set("Range", fmt.Sprintf("0-%d", max(0, len(r.uploads[id])-1)))
}
