package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/token"
)

// fake is a server that answers with fixed objects and remembers what it was
// asked. Every test has its own.
type fake struct {
	t   *testing.T
	url string

	mu    sync.Mutex
	asked []asked
	mux   map[string]http.HandlerFunc
}

// asked is one request.
type asked struct {
	route, token, body string
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, mux: map[string]http.HandlerFunc{}}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	route := r.Method + " " + r.URL.RequestURI()
	f.mu.Lock()
	f.asked = append(f.asked, asked{route, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), string(body)})
	h := f.mux[route]
	if h == nil {
		h = f.mux[r.Method+" "+r.URL.Path]
	}
	f.mu.Unlock()
	if h == nil {
		f.refuse(w, 404, "not_found", "There is no such thing, or it is not yours.", "")
		return
	}
	h(w, r)
}

func (f *fake) refuse(w http.ResponseWriter, status int, code, detail, fix string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "code": code, "detail": detail, "fix": fix, "request_id": "req_1"})
}

// on answers a route ("GET /v1/whoami", with or without its query) with an object.
func (f *fake) on(route string, answer any) *fake {
	return f.handle(route, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(answer) })
}

func (f *fake) handle(route string, h http.HandlerFunc) *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mux[route] = h
	return f
}

func (f *fake) requests() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]asked(nil), f.asked...)
}

func (f *fake) last() asked {
	all := f.requests()
	if len(all) == 0 {
		f.t.Helper()
		f.t.Fatal("nothing was asked of the server")
	}
	return all[len(all)-1]
}

// machine is where commands run: a home folder and an environment of its own.
type machine struct {
	t    *testing.T
	home string
	env  []string
}

func newMachine(t *testing.T, env ...string) *machine {
	t.Helper()
	home := t.TempDir()
	return &machine{t: t, home: home, env: append([]string{"HOME=" + home}, env...)}
}

func (m *machine) hosts() string { return filepath.Join(m.home, ".config", "gradegate", "hosts.yaml") }

func (m *machine) write(path, text string, mode os.FileMode) string {
	m.t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(m.home, path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// done is what a command left behind.
type done struct {
	code        int
	out, errout string
}

func (m *machine) run(stdin string, args ...string) done {
	m.t.Helper()
	var out, errout strings.Builder
	code := Run(m.t.Context(), args, m.env, strings.NewReader(stdin), &out, &errout)
	return done{code, out.String(), errout.String()}
}

// want fails the test unless the command ended with the code, and stdout and
// stderr hold the texts.
func (d done) want(t *testing.T, code int, out, errout string) {
	t.Helper()
	if d.code != code || !strings.Contains(d.out, out) || !strings.Contains(d.errout, errout) {
		t.Errorf("exit %d, want %d\nstdout: %s\n  want: %s\nstderr: %s\n  want: %s", d.code, code, d.out, out, d.errout, errout)
	}
}

func secretOf(k token.Kind) string { return token.NewSecret(k).Reveal() }

func idOf(t *testing.T, secret string) string {
	t.Helper()
	p, err := token.Parse(secret)
	if err != nil {
		t.Fatal(err)
	}
	return string(p.Public.ID())
}

var birth = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// laptop is a token as the API shows it.
func laptop() api.Token {
	return api.Token{
		ID: "tok_000000000001", Kind: "pat", Name: "laptop", UserID: "usr_1", State: "active", Scopes: []string{"jobs:read", "jobs:submit"},
		Competitions: []string{"*"}, AllowedCIDRs: []string{}, CreatedAt: birth, CreatedBy: "usr_1", Renewal: "sliding",
		Ends: "ends after 30 days unused, at the latest on 24 Nov 2027", Family: api.Family{ID: "fam_1", Generation: 1}, ETag: `"1"`,
	}
}

func ann() api.User {
	return api.User{ID: "usr_1", Name: "ann", Kind: "human", Role: "user", Status: "active", CreatedAt: birth, ETag: `"1"`}
}
