// Package clients tests the built binary with OAuth clients that know nothing
// of it: golang.org/x/oauth2, and oauth4webapi on Node.
package clients

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"gradegate/api"
)

// server is a running program, and the sign-in of its first administrator.
type server struct {
	url   string
	admin api.Issued
}

var (
	urlRE  = regexp.MustCompile(`on (http://\S+)`)
	codeRE = regexp.MustCompile(`gginv_[0-9A-Za-z]{61}`)
)

func start(t *testing.T) server {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "gradegate")
	if out, err := exec.Command("go", "build", "-o", bin, "gradegate/cmd/gradegate").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(bin, "serve", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = read.Close()
	})
	s, code := server{}, ""
	lines := bufio.NewScanner(read)
	for (s.url == "" || code == "") && lines.Scan() {
		if m := urlRE.FindStringSubmatch(lines.Text()); m != nil {
			s.url = m[1]
		}
		if m := codeRE.FindString(lines.Text()); m != "" {
			code = m
		}
	}
	go func() {
		for lines.Scan() { // so that the server never waits for a reader
		}
	}()
	c, err := api.NewClient(s.url, "")
	if err != nil {
		t.Fatal(err)
	}
	if s.admin, err = c.Redeem(t.Context(), api.Redeem{Code: code, Name: "test"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// signIn makes a person and redeems their invite.
func (s server) signIn(t *testing.T, name string) api.Issued {
	t.Helper()
	admin, err := api.NewClient(s.url, s.admin.Secret)
	if err != nil {
		t.Fatal(err)
	}
	invited, err := admin.InviteUser(t.Context(), name, api.Invite{})
	if err != nil {
		t.Fatal(err)
	}
	made, err := admin.Redeem(t.Context(), api.Redeem{Code: invited.Code, Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// R1.1: golang.org/x/oauth2 refreshes a session by itself.
func TestGoClient(t *testing.T) {
	s := start(t)
	made := s.signIn(t, "ann")
	config := oauth2.Config{ClientID: "anybody", Endpoint: oauth2.Endpoint{TokenURL: s.url + "/oauth2/token", AuthStyle: oauth2.AuthStyleInParams}}
	ended := &oauth2.Token{AccessToken: "ended", TokenType: "Bearer", RefreshToken: made.RefreshToken, Expiry: time.Now().Add(-time.Hour)}
	source := config.TokenSource(t.Context(), ended)
	got, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	if got.RefreshToken == made.RefreshToken || !strings.HasPrefix(got.AccessToken, "ggses_") || time.Until(got.Expiry) < 11*time.Hour {
		t.Errorf("%s… until %v", got.AccessToken[:6], got.Expiry)
	}
	r, err := oauth2.NewClient(t.Context(), source).Get(s.url + "/v1/whoami")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	var me api.Whoami
	if err := json.NewDecoder(r.Body).Decode(&me); err != nil || r.StatusCode != http.StatusOK || me.User.Name != "ann" {
		t.Errorf("%d %+v %v", r.StatusCode, me, err)
	}
	// An answer that was lost: another source with the same refresh token.
	if again, err := config.TokenSource(t.Context(), ended).Token(); err != nil || again.RefreshToken != got.RefreshToken {
		t.Errorf("%v", err)
	}
	bad := &oauth2.Token{RefreshToken: "ggref_nonsense", Expiry: time.Now().Add(-time.Hour)}
	var refused *oauth2.RetrieveError
	if _, err := config.TokenSource(t.Context(), bad).Token(); err == nil || !asRetrieve(err, &refused) || refused.ErrorCode != "invalid_grant" {
		t.Errorf("%v", err)
	}
}

func asRetrieve(err error, to **oauth2.RetrieveError) bool {
	e, ok := err.(*oauth2.RetrieveError) //nolint:errorlint // the package gives it as it is
	*to = e
	return ok
}

// oauth4webapi: discovery, refresh, exchange, introspection, revocation.
func TestNodeClient(t *testing.T) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is missing: sh scripts/deps.sh", tool)
			}
			t.Skipf("%s is missing: sh scripts/deps.sh", tool)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "client.mjs"} {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	s := start(t)
	if out := run("node", "client.mjs", s.url, s.signIn(t, "ann").RefreshToken, s.admin.Secret); !strings.HasSuffix(strings.TrimSpace(out), "ok") {
		t.Error(out)
	}
}
