package proxy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gradegate/api"
)

// certify writes a certificate for loopback that vouches for itself.
func certify(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	public, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: public}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestStreams: one user with a few connections, each of which carries as many
// requests as the server allows, cannot take the files of the process: the
// server, its socket and other users go on (A05).
func TestStreams(t *testing.T) {
	const files, asked, most = 512, 600, 16 // open files that the server may have; followers
	cert, key := certify(t)
	t.Setenv("GRADEGATE_CA_FILE", cert)
	g := start(t, fmt.Sprintf("policy: {max_per_user: 10}\ntls: {cert: %s, key: %s}", cert, key), files)
	id := g.longJob(t)

	got := make(chan int, asked)
	all, leave := context.WithCancel(t.Context())
	var followers sync.WaitGroup
	defer func() { leave(); followers.Wait() }()
	client := &http.Client{Transport: trusting(t, cert)}
	for range asked {
		followers.Go(func() {
			r, err := http.NewRequestWithContext(all, http.MethodGet, g.url+"/v1/jobs/"+id+"/logs?follow=true", nil)
			if err != nil {
				got <- 0
				return
			}
			r.Header.Set("Authorization", "Bearer "+g.free)
			resp, err := client.Do(r)
			if err != nil {
				got <- 0
				return
			}
			defer func() { _ = resp.Body.Close() }()
			if resp.ProtoMajor != 2 {
				t.Error("not over HTTP/2")
			}
			got <- resp.StatusCode
			_, _ = io.Copy(io.Discard, resp.Body) // until the test is over
		})
	}
	count := map[int]int{}
	for range asked {
		select {
		case status := <-got:
			count[status]++
		case <-time.After(time.Minute):
			t.Fatalf("no answer\n%s", g.log)
		}
	}
	if count[http.StatusOK] != most || count[http.StatusTooManyRequests] == 0 {
		t.Errorf("answers: %v", count)
	}
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid)); err != nil || len(open) > files/2 {
		t.Errorf("%d files are open, %v", len(open), err)
	}
	if out, err := g.local("user", "list"); err != nil {
		t.Errorf("the local socket: %v\n%s", err, out)
	}
	if _, err := g.ann.CreateToken(t.Context(), api.CreateToken{Name: "meanwhile"}); err != nil {
		t.Errorf("meanwhile: %v", err)
	}
	if bytes.Contains([]byte(g.log.String()), []byte("too many open files")) {
		t.Errorf("the server ran out of files:\n%s", g.log)
	}
}

func trusting(t *testing.T, cert string) *http.Transport {
	t.Helper()
	text, err := os.ReadFile(cert)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal("no certificate: ", err)
	}
	return &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
}

// local runs the program as the local administrator.
func (g *grader) local(args ...string) (string, error) {
	out, err := exec.Command(binary, append(args, "--data", g.data)...).CombinedOutput()
	return string(out), err
}

// longJob has ann submit a job that is not over soon.
func (g *grader) longJob(t *testing.T) string {
	t.Helper()
	if out, err := g.local("competition", "apply", "../../examples/iris"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made, err := g.ann.Submit(t.Context(), "iris", api.Upload{Name: "run.sh", Open: func() (io.ReadCloser, error) {
		return os.Open("../../examples/iris/slow/run.sh")
	}})
	if err != nil {
		t.Fatal(err)
	}
	id := made.Job.ID
	t.Cleanup(func() { // or it would outlive the server
		_, err := g.ann.CancelJob(context.Background(), id)
		until(t, "the job has ended", func() bool {
			j, e := g.ann.JobByID(context.Background(), id)
			return err != nil || e != nil || j.EndedAt != nil
		}, g.log)
	})
	return id
}
