package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatproject/cleat/proto/reason"
)

// clientCert writes a certificate with its key to dir and returns it.
func clientCert(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "c.cert"), "CERTIFICATE", raw)
	writePEM(t, filepath.Join(dir, "c.key"), "EC PRIVATE KEY", der)
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t *testing.T, path, kind string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTLS(t *testing.T) {
	data := []byte("content")
	var proto atomic.Value
	dir := t.TempDir()
	pool := x509.NewCertPool()
	pool.AddCert(clientCert(t, dir))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write(data)
	}))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	srv.StartTLS()
	defer srv.Close()
	host := srv.Listener.Addr().String()
	writePEM(t, filepath.Join(dir, "ca.crt"), "CERTIFICATE", srv.Certificate().Raw)
	client := fmt.Sprintf("client = [[%q, %q]]\n", filepath.Join(dir, "c.cert"), filepath.Join(dir, "c.key"))
	for name, c := range map[string]struct {
		config string
		is     func(error) bool
	}{
		"all right":                {fmt.Sprintf("ca = %q\n", filepath.Join(dir, "ca.crt")) + client, nil},
		"not verified":             {"skip_verify = true\n" + client, nil},
		"no client certificate":    {"skip_verify = true\n", errdefs.IsPermissionDenied},
		"an authority not trusted": {client, errdefs.IsUnavailable},
	} {
		r := open(t, host, configured(t, host, fmt.Sprintf("server = \"https://%s\"\n", host)+c.config), Credential{})
		rc, err := r.Fetch(t.Context(), describe("application/x", data), 0)
		if c.is != nil {
			checkError(t, err, c.is, host)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(rc); err != nil || string(got) != string(data) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		_ = rc.Close()
		if proto.Load() != "HTTP/2.0" {
			t.Errorf("%s: it speaks %v", name, proto.Load())
		}
	}
	// The same in a folder in Docker's layout.
	folder := filepath.Join(t.TempDir(), host)
	if err := os.CopyFS(folder, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	rc, err := open(t, host, filepath.Dir(folder), Credential{}).Fetch(t.Context(), describe("application/x", data), 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Close()
	_, err = open(t, host, "", Credential{}).Resolve(t.Context())
	checkError(t, err, isTLS, host)
	strict := httptest.NewUnstartedServer(http.NotFoundHandler())
	strict.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	strict.Config.ErrorLog = log.New(io.Discard, "", 0)
	strict.StartTLS()
	defer strict.Close()
	host = strict.Listener.Addr().String()
	_, err = open(t, host, configured(t, host, "skip_verify = true\n"), Credential{}).Resolve(t.Context())
	checkError(t, err, isTLS, host)
	plain := newLiar(t, func(http.ResponseWriter, *http.Request) {})
	config := configured(t, plain.host(), fmt.Sprintf("server = \"https://%s\"\n", plain.host()))
	_, err = open(t, plain.host(), config, Credential{}).Resolve(t.Context())
	checkError(t, err, isTLS, plain.host())
}

func isTLS(err error) bool { return errdefs.IsUnavailable(err) && reason.Of(err) == reason.RegistryTLS }

func TestFetch_ForeignLayer_SendsNoCredential(t *testing.T) {
	data := []byte("a layer that registries do not keep")
	tlsServer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		_, _ = w.Write(data)
	}))
	defer tlsServer.Close()
	l := newLiar(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	config := configured(t, tlsServer.Listener.Addr().String(), "skip_verify = true\n")
	desc := describe("application/vnd.docker.image.rootfs.foreign.diff.tar", data)
	r := open(t, l.host(), config, Credential{Username: "u", Password: password})
	for _, bad := range [][]string{nil, {"http://plain.example/x"}, {"file:///etc/passwd"}, {"https://u:p@x.example/"}} {
		desc.URLs = bad
		if _, err := r.Fetch(t.Context(), desc, 0); !errdefs.IsNotFound(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	desc.URLs = []string{"http://plain.example/x", tlsServer.URL + "/layer"}
	rc, err := r.Fetch(t.Context(), desc, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(rc); err != nil || string(got) != string(data[2:]) {
		t.Errorf("%q, %v", got, err)
	}
	_ = rc.Close()
	// A remote registry cannot cause a request to this machine.
	far := Reference{Host: "far.example", Repository: "x", Tag: "1"}
	_, err = (&Repository{ref: far, client: r.client}).openURL(t.Context(), tlsServer.URL, desc, 0)
	if err == nil || !strings.Contains(err.Error(), "this machine") {
		t.Error(err)
	}
}
