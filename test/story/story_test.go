// Package story tests the built binary as people use it: the demo, everything
// by hand, races and crashes. Nothing here reaches into the program.
package story

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/store/storetest"
)

// binary is the program, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gradegate-story-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "gradegate")
	build := exec.Command("go", "build", "-o", binary, "gradegate/cmd/gradegate")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
		os.Exit(1)
	}
	storetest.Main(m)
}

// world is one server with its folders, and a home for each person.
type world struct {
	t            *testing.T
	dir, url     string
	code         string   // the first administrator's invite
	env          []string // settings of the server
	cmd          *exec.Cmd
	stdout, errs *lockedBuffer
}

func start(t *testing.T, env ...string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), env: env}
	w.run("127.0.0.1:0")
	t.Cleanup(func() { w.end(syscall.SIGTERM) })
	return w
}

var (
	urlRE    = regexp.MustCompile(`(?m)^gradegate +\S+ on (http\S+)$`)
	inviteRE = regexp.MustCompile(`--invite (gginv_\S+)`)
)

// run starts the server and waits until it says where it is.
func (w *world) run(listen string) {
	w.t.Helper()
	w.stdout = &lockedBuffer{}
	w.errs = &lockedBuffer{}
	w.cmd = exec.Command(binary, "serve", "--data", filepath.Join(w.dir, "data"), "--ledger", filepath.Join(w.dir, "ledger"), "--listen", listen)
	w.cmd.Env = append(os.Environ(), w.env...)
	w.cmd.Stdout, w.cmd.Stderr = w.stdout, w.errs
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.until("the server serves", func() bool {
		m := urlRE.FindStringSubmatch(w.stdout.String())
		if m == nil || !strings.Contains(w.stdout.String(), "manage") {
			return false
		}
		w.url = m[1]
		if w.code == "" {
			if m := inviteRE.FindStringSubmatch(w.errs.String()); m != nil {
				w.code = m[1]
			}
		}
		return w.code != ""
	}, w.errs)
}

func (w *world) stderrText() string { return w.errs.String() }

// end ends the server and waits for it.
func (w *world) end(sig syscall.Signal) {
	if w.cmd == nil {
		return
	}
	_ = w.cmd.Process.Signal(sig)
	_ = w.cmd.Wait()
	w.cmd = nil
}

// until polls until something holds.
func (w *world) until(what string, holds func() bool, log fmt.Stringer) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			text := ""
			if log != nil {
				text = log.String()
			}
			w.t.Fatalf("never: %s\n%s", what, text)
		}
	}
}

// cli runs the program as a person with a home of their own.
func (w *world) cli(who string, args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	home := filepath.Join(w.dir, "home", who)
	if err := os.MkdirAll(home, 0o700); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir = "../.."
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "GRADEGATE_URL=" + w.url}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !asExit(err, &exit) {
		w.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError) //nolint:errorlint // exec returns it bare
	*to = e
	return ok
}

// must is cli for what has to work.
func (w *world) must(who string, args ...string) string {
	w.t.Helper()
	out, errs, code := w.cli(who, args...)
	if code != 0 {
		w.t.Fatalf("gradegate %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSpace(out)
}

// file keeps a secret for a command to read.
func (w *world) file(name, text string) string {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	if err := os.WriteFile(p, []byte(text+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// local runs a command as the local administrator.
func (w *world) local(args ...string) string {
	w.t.Helper()
	return w.must("root", append(args, "--data", filepath.Join(w.dir, "data"))...)
}

// person invites somebody and gives a client with their session.
func (w *world) person(name string) *api.Client {
	w.t.Helper()
	code := w.local("user", "invite", name, "-o", "secret")
	anybody := w.client("")
	made, err := anybody.Redeem(context.Background(), api.Redeem{Code: code, Name: "test"})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.client(made.Secret)
}

func (w *world) client(secret string) *api.Client {
	w.t.Helper()
	c, err := api.NewClient(w.url, secret)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func object[T any](t *testing.T, text string) (out T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return out
}
