package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// cluster is the PostgreSQL server of one test binary. It is started when the
// first test asks for it, and stopped by Main.
type cluster struct {
	dir  string
	stop func()
	err  error
	mu   sync.Mutex
	n    int
}

var server struct {
	once sync.Once
	cluster
}

// errNoPostgres is why there is no server: its programs are not installed.
var errNoPostgres = errors.New("the programs of PostgreSQL are missing: apt-get install postgresql")

// Main runs the tests and then stops the server, if one was started. Use it in
// TestMain of every package that calls PostgresURL.
func Main(m *testing.M) {
	code := m.Run()
	if server.stop != nil {
		server.stop()
	}
	os.Exit(code)
}

// PostgresURL makes an empty database for one test. Without PostgreSQL on the
// machine the test is skipped, and fails if CI is "true".
func PostgresURL(t testing.TB) string {
	t.Helper()
	server.once.Do(func() { server.err = server.start() })
	switch err := server.err; {
	case errors.Is(err, errNoPostgres) && os.Getenv("CI") != "true":
		t.Skip("SKIP:", err)
	case err != nil:
		t.Fatal(err)
	}
	name, err := server.create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return server.url(name)
}

func (c *cluster) url(database string) string {
	q := url.Values{"host": {c.dir}, "user": {"postgres"}, "sslmode": {"disable"}}
	return "postgres:///" + database + "?" + q.Encode()
}

func (c *cluster) create(ctx context.Context) (string, error) {
	c.mu.Lock() // CREATE DATABASE does not like company
	defer c.mu.Unlock()
	conn, err := pgx.Connect(ctx, c.url("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.Background()) //nolint:errcheck // a test's connection
	c.n++
	name := "t" + strconv.Itoa(c.n)
	_, err = conn.Exec(ctx, "CREATE DATABASE "+name)
	return name, err
}

// programs finds initdb and postgres: the newest version that Debian has, or
// what the PATH leads to.
func programs() (initdb, postgres string, err error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			found = append(found, path)
		}
	}
	slices.Sort(found)
	slices.Reverse(found)
	for _, initdb := range found {
		postgres := filepath.Join(filepath.Dir(initdb), "postgres")
		if _, err := os.Stat(postgres); err == nil {
			return initdb, postgres, nil
		}
	}
	return "", "", errNoPostgres
}

// start makes a cluster with a socket in a private folder. It forgets
// everything in a crash of the machine, which tests can afford.
func (c *cluster) start() error {
	initdb, postgres, err := programs()
	if err != nil {
		return err
	}
	if c.dir, err = os.MkdirTemp("/tmp", "ggpg"); err != nil { // a short path: sockets allow 107 bytes
		return err
	}
	attr, err := asPostgres(c.dir)
	if err != nil {
		return err
	}
	data := filepath.Join(c.dir, "data")
	make := exec.Command(initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	make.SysProcAttr, make.Dir = attr, c.dir
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	run := exec.Command(postgres, "-D", data, "-k", c.dir, "-c", "listen_addresses=", "-c", "fsync=off",
		"-c", "max_connections=200", "-c", "shared_buffers=32MB")
	run.SysProcAttr, run.Dir = attr, c.dir
	return c.supervise(run)
}

// asPostgres gives the folder to the user postgres when we are root, since the
// server refuses to run as root. The server dies with us.
func asPostgres(dir string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errNoPostgres, err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(dir, int(uid), int(gid))
}

func (c *cluster) supervise(run *exec.Cmd) error {
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		return err
	}
	run.Stderr = log
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// The kernel sends the death signal when this thread ends, so that the
		// thread has to last as long as the process.
		runtime.LockOSThread()
		started <- run.Start()
		_ = run.Wait()
		close(ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	c.stop = func() {
		_ = run.Process.Signal(syscall.SIGINT) // fast shutdown
		<-ended
		_ = os.RemoveAll(c.dir)
	}
	return c.await(ended)
}

// await asks until the server answers.
func (c *cluster) await(ended <-chan struct{}) error {
	deadline := time.After(60 * time.Second)
	for {
		conn, err := pgx.Connect(context.Background(), c.url("postgres"))
		if err == nil {
			return conn.Close(context.Background())
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("postgres ended at once:\n%s", text)
		case <-deadline:
			return fmt.Errorf("postgres does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
