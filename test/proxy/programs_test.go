package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// front is what clients connect to: gradegate itself or a proxy.
type front struct {
	address string
	roots   *x509.CertPool // nil: plain HTTP
	host    string
}

// program finds a program. Without it the test is skipped, and fails if CI is "true".
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		if path := filepath.Join(dir, name); isFile(path) {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: apt-get install %s", name, name)
	}
	t.Skipf("SKIP: %s is missing: apt-get install %s", name, name)
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// nobody is whom proxies run as when we are root.
const nobody = 65534

// own gives a folder, and what is in it, to the proxy.
func own(t *testing.T, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// folder is one that the user nobody can reach; t.TempDir lies in a closed one.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gradegate-proxy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// launch runs a proxy in the foreground, without rights, until the test ends.
func launch(t *testing.T, dir, address string, argv ...string) {
	t.Helper()
	own(t, dir)
	log := new(text)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel sends the death signal when this thread ends, so that the
		// thread has to last as long as the process.
		runtime.LockOSThread()
		started <- cmd.Start()
		_ = cmd.Wait()
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	until(t, argv[0]+" listens", func() bool {
		select {
		case <-ended:
			t.Fatalf("%s ended at once:\n%s", argv[0], log)
		default:
		}
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, log)
}

// freeAddress is one that nobody listens on right now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// nginx starts one with the given blocks of the documentation.
func nginx(t *testing.T, dir, address, blocks string) {
	t.Helper()
	path := program(t, "nginx")
	// What the distribution's nginx.conf has around, as far as nobody may.
	config := fmt.Sprintf("daemon off;\nworker_processes 1;\nworker_shutdown_timeout 1s;\npid %[1]s/pid;\nerror_log stderr;\nevents { worker_connections 512; }\nhttp {\naccess_log off;\n", dir)
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		config += fmt.Sprintf("%s_temp_path %s/%s;\n", name, dir, name)
	}
	write(t, filepath.Join(dir, "nginx.conf"), config+blocks+"}\n")
	launch(t, dir, address, path, "-e", "stderr", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
}

// behindNginx is a front with the documented server in it, but for some words.
func behindNginx(t *testing.T, g *grader, changed ...string) front {
	t.Helper()
	program(t, "nginx")
	dir := folder(t)
	f := front{address: freeAddress(t), roots: certificate(t, dir, "grade.example.org"), host: "grade.example.org"}
	nginx(t, dir, f.address, swap(t, block(t, "## nginx", "nginx"), append(places(g, f, dir), changed...)...))
	return f
}

func places(g *grader, f front, dir string) []string {
	return []string{
		"127.0.0.1:8080", g.address, "listen 443 ssl;", "listen " + f.address + " ssl;",
		"/etc/ssl/grade.example.org.pem", dir + "/cert.pem", "/etc/ssl/grade.example.org.key", dir + "/key.pem",
	}
}

// behindHAProxy is a front with the documented configuration, but for some words.
func behindHAProxy(t *testing.T, g *grader, changed ...string) front {
	t.Helper()
	path := program(t, "haproxy")
	dir := folder(t)
	f := front{address: freeAddress(t), roots: certificate(t, dir, "grade.example.org"), host: "grade.example.org"}
	places := []string{"127.0.0.1:8080", g.address, "bind :443 ", "bind " + f.address + " ", "/etc/haproxy/grade.example.org.pem", dir + "/both.pem"}
	write(t, filepath.Join(dir, "haproxy.cfg"), swap(t, block(t, "## HAProxy", "haproxy"), append(places, changed...)...))
	launch(t, dir, f.address, path, "-db", "-q", "-f", filepath.Join(dir, "haproxy.cfg"))
	return f
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificate makes cert.pem, key.pem and both.pem for some names, and gives
// who vouches for them.
func certificate(t *testing.T, dir string, names ...string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	for name, content := range map[string]string{"cert.pem": cert, "key.pem": private, "both.pem": cert + private} {
		write(t, filepath.Join(dir, name), content)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(cert)) || strings.Count(cert, "BEGIN") != 1 {
		t.Fatal("no certificate")
	}
	return pool
}
