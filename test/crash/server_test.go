package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gradegate/api"
)

// server is the built binary with its folders, and the people who use it.
type server struct {
	t           *testing.T
	binary, dir string
	listen      string
	cmd         *exec.Cmd
	log         *os.File
	sessions    []string // one for each worker
	predictions []byte
	model       model
}

func newServer(t *testing.T, binary string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, binary: binary, dir: t.TempDir(), listen: l.Addr().String(), model: model{tokens: map[string]*tokenState{}, jobs: map[string]*jobState{}}}
	_ = l.Close()
	if s.predictions, err = os.ReadFile("../../examples/iris/predictions.csv"); err != nil {
		t.Fatal(err)
	}
	if s.log, err = os.Create(filepath.Join(s.dir, "server.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			data, _ := os.ReadFile(s.log.Name())
			t.Logf("the server said:\n%s", data[max(0, len(data)-4000):])
		}
	})
	return s
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// start starts the server, which may kill itself at a named point, and waits
// until it answers; a server that dies while starting is started again.
func (s *server) start(crashAt string) {
	s.t.Helper()
	for try := range 5 {
		if try > 0 {
			crashAt = ""
		}
		s.cmd = exec.Command(s.binary, "serve", "--data", s.data(), "--ledger", filepath.Join(s.dir, "ledger"), "--listen", s.listen)
		s.cmd.Env = append(os.Environ(), "GRADEGATE_POLICY_MAX_PER_USER=100000", "CRASH_AT="+crashAt)
		s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
		if err := s.cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		if s.answers() {
			return
		}
		s.kill()
	}
	s.t.Fatal("the server does not start")
}

func (s *server) answers() bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	c := s.client("")
	for {
		if _, err := c.ServerVersion(context.Background()); err == nil {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
}

func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// client gives a client that never tries twice: every lost answer is told.
func (s *server) client(secret string) *api.Client {
	c, err := api.NewClient("http://"+s.listen, secret)
	if err != nil {
		s.t.Fatal(err)
	}
	c.Retries = 0
	return c
}

// prepare makes the competition and the people.
func (s *server) prepare(n int) {
	s.t.Helper()
	run := func(args ...string) string {
		cmd := exec.Command(s.binary, append(args, "--data", s.data())...)
		cmd.Dir = "../.."
		out, err := cmd.Output()
		if err != nil {
			s.t.Fatalf("%v: %v %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	iris := filepath.Join(s.dir, "iris")
	if err := os.CopyFS(iris, os.DirFS("../../examples/iris")); err != nil {
		s.t.Fatal(err)
	}
	spec := filepath.Join(iris, "competition.yaml")
	text, err := os.ReadFile(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("per_day: 20"), []byte("per_day: 0"), 1)
	text = bytes.Replace(text, []byte("concurrent: 2"), []byte("concurrent: 0"), 1)
	if err := os.WriteFile(spec, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	run("competition", "apply", iris)
	for i := range n {
		code := run("user", "invite", fmt.Sprintf("user%d", i), "-o", "secret")
		made, err := s.client("").Redeem(context.Background(), api.Redeem{Code: code, Name: "crash"})
		if err != nil {
			s.t.Fatal(err)
		}
		s.sessions = append(s.sessions, made.Secret)
	}
}

// load lets everybody work for a while, or until the server dies, and gives
// the time that it lived.
func (s *server) load(d time.Duration) time.Duration {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range s.sessions {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := s.work(ctx, i, n); dead(err) {
					cancel() // the server is gone: so is this round
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// dead reports whether an error means that the server is gone.
func dead(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == 0
}

// refusal reports whether an answer came, and said no.
func refusal(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status != 0 && e.Status != 503
}

// work is one operation of one person.
func (s *server) work(ctx context.Context, who, n int) error {
	c := s.client(s.sessions[who])
	switch rand.IntN(8) {
	case 0, 1, 2:
		made, err := c.CreateToken(ctx, api.CreateToken{Name: fmt.Sprintf("t%d-%d-%d", who, time.Now().UnixNano(), n)})
		if err != nil {
			return err
		}
		s.model.ack(func() { s.model.tokens[made.Secret] = &tokenState{id: made.Token.ID, owner: who} })
	case 3, 4:
		return s.revokeOne(ctx, c, who)
	case 5, 6:
		return s.submitOne(ctx, c, who, n%40 == 0)
	case 7:
		if _, err := c.Whoami(ctx); err != nil {
			return err
		}
		s.model.ack(func() {})
	}
	return nil
}

func (s *server) revokeOne(ctx context.Context, c *api.Client, who int) error {
	s.model.mu.Lock()
	var k *tokenState
	for _, t := range s.model.tokens {
		if t.owner == who && t.revoked == untried {
			k = t
			k.revoked = unknown
			break
		}
	}
	s.model.mu.Unlock()
	if k == nil {
		return nil
	}
	if _, err := c.RevokeToken(ctx, k.id, api.RevokeToken{}); err != nil {
		return err
	}
	s.model.ack(func() { k.revoked = known })
	return nil
}

// program leaves a mark at each start, and takes long enough to be killed over.
const program = "#!/bin/sh\necho the program starts\nsleep 1\nawk -F, 'NR==1{print \"id,label\";next}{print $1 \",setosa\"}' \"$GRADEGATE_DATA/test.csv\" >\"$GRADEGATE_OUTPUT/predictions.csv\"\n"

func (s *server) submitOne(ctx context.Context, c *api.Client, who int, runs bool) error {
	name, data := "predictions.csv", s.predictions
	if runs {
		name, data = "run.sh", []byte(program)
	}
	made, err := c.Submit(ctx, "iris", api.Upload{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }})
	if err != nil {
		return err
	}
	s.model.ack(func() { s.model.jobs[made.Job.ID] = &jobState{owner: who, runs: runs} })
	return nil
}
