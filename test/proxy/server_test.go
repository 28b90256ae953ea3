// Package proxy tests whom the built binary takes its clients for: directly,
// behind a real nginx and behind a real HAProxy, with the configurations of
// docs/operator/proxies.md. Its clients are loopback addresses of their own.
package proxy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gradegate/api"
)

// binary is the program, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gradegate-proxy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "gradegate")
	build := exec.Command("go", "build", "-o", binary, "gradegate/cmd/gradegate")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// text collects what a process says while a test looks at it.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

// until polls until something holds.
func until(t *testing.T, what string, holds func() bool, log fmt.Stringer) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s\n%s", what, log)
		}
	}
}

// grader is a running gradegate.
type grader struct {
	url     string
	address string // host and port of it
	data    string // its folder
	log     *text
	ann     *api.Client // somebody's session
	free    string      // its secret
	bound   string      // a token of hers for friend's address only
	cmd     *exec.Cmd
}

var (
	urlRE    = regexp.MustCompile(`(?m)^gradegate +\S+ on (https?://(\S+))$`)
	inviteRE = regexp.MustCompile(`--invite (gginv_\S+)`)
)

// start starts a server with a configuration and up to files open files (0: as
// many as there may be), and lets ann in.
func start(t *testing.T, config string, files int) *grader {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "gradegate.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	limit := ""
	if files > 0 {
		limit = fmt.Sprintf("ulimit -n %d && ", files)
	}
	g := &grader{log: new(text), data: filepath.Join(dir, "data")}
	stdout := new(text)
	g.cmd = exec.Command("sh", "-c", limit+`exec "$@"`, "sh", binary, "serve", "--config", file, "--data", g.data, "--listen", "127.0.0.1:0")
	g.cmd.Env = append(os.Environ(), "GRADEGATE_PUBLIC_URL=", // the greeting names the real address instead
		"GRADEGATE_LIMITS_READS=100000") // one token tells hundreds of lies
	g.cmd.Stdout, g.cmd.Stderr = stdout, g.log
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.stop)
	until(t, "the server serves", func() bool {
		return inviteRE.MatchString(g.log.String()) && urlRE.MatchString(stdout.String())
	}, g.log)
	at := urlRE.FindStringSubmatch(stdout.String())
	g.url, g.address = at[1], at[2]
	g.enrol(t)
	return g
}

// stop stops the server; a second time it does nothing.
func (g *grader) stop() {
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	_ = g.cmd.Wait()
}

func (g *grader) enrol(t *testing.T) {
	t.Helper()
	var err error
	client := func(secret string) *api.Client {
		c, err := api.NewClient(g.url, secret)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ctx := context.Background()
	admin, err := client("").Redeem(ctx, api.Redeem{Code: inviteRE.FindStringSubmatch(g.log.String())[1], Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	invited, err := client(admin.Secret).InviteUser(ctx, "ann", api.Invite{})
	if err != nil {
		t.Fatal(err)
	}
	session, err := client("").Redeem(ctx, api.Redeem{Code: invited.Code, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	g.ann, g.free = client(session.Secret), session.Secret
	made, err := g.ann.CreateToken(ctx, api.CreateToken{Name: "bound", AllowedCIDRs: []string{friend + "/32"}})
	if err != nil {
		t.Fatal(err)
	}
	g.bound = made.Secret
}

// block takes a block of code out of the documentation, so that what is tested
// is what is documented.
func block(t *testing.T, heading, language string) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/operator/proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut("\n"+string(doc), "\n"+heading+"\n")
	_, after, ok2 := strings.Cut(after, "\n```"+language+"\n")
	code, _, ok3 := strings.Cut(after, "\n```\n")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("no block of %s under %q", language, heading)
	}
	return code + "\n"
}

// swap puts what this machine has for what the documentation says. Everything
// that it is to replace has to be there.
func swap(t *testing.T, code string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(code, pairs[i]) {
			t.Fatalf("the documentation does not say %q any more", pairs[i])
		}
	}
	return strings.NewReplacer(pairs...).Replace(code)
}
