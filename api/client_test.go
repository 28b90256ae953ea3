package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// secret has the form of a token and a wrong checksum: an example.
const secret = "ggpat_000000000000000000000000000000000000000000000000000000000000x"

// serve starts a server and a client that never waits, but notes how long it would have.
func serve(t *testing.T, h http.HandlerFunc) (*Client, *[]time.Duration) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := NewClient(s.URL+"/", secret)
	if err != nil {
		t.Fatal(err)
	}
	var waits []time.Duration
	c.Wait = func(ctx context.Context, d time.Duration) error {
		waits = append(waits, d)
		return ctx.Err()
	}
	return c, &waits
}

func TestTokenStaysHome(t *testing.T) {
	t.Parallel()
	for base, ok := range map[string]bool{
		"https://grade.example.org":         true,
		"https://grade.example.org:8443/gg": true,
		"http://127.0.0.1:8080":             true,
		"http://[::1]:8080":                 true,
		"http://localhost":                  true,
		"unix:///run/gradegate/admin.sock":  true,
		"http://grade.example.org":          false,
		"http://127.0.0.1.example.org":      false,
		"http://10.0.0.1":                   false,
		"https://user:pw@grade.example.org": false,
		"https://grade.example.org?x=1":     false,
		"https://:443":                      false,
		"grade.example.org":                 false,
		"ftp://grade.example.org":           false,
		"":                                  false,
	} {
		_, err := NewClient(base, secret)
		if (err == nil) != ok {
			t.Errorf("%s: %v", base, err)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "pw")) {
			t.Errorf("%s: the message holds a secret: %v", base, err)
		}
	}
	if _, err := NewClient("http://grade.example.org", ""); err != nil {
		t.Errorf("without a token plain HTTP is nobody's harm: %v", err)
	}
	if _, err := NewClient("https://grade.example.org", "ggpat_x\r\nX: y"); err == nil || strings.Contains(err.Error(), "ggpat") {
		t.Errorf("a token with a line break: %v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	followed := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer other.Close()
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	_, err := c.Whoami(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusTemporaryRedirect || e.Fix == "" || followed {
		t.Errorf("%v, followed %v", err, followed)
	}
}

func TestRefusalCarriesTheProblem(t *testing.T) {
	t.Parallel()
	c, waits := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"status":200,"code":"rate_limited","detail":"Too many.","fix":"Wait.","request_id":"req_1","limit":5}`)
	})
	_, err := c.Tokens(t.Context())
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if e.Status != 429 || e.Code != "rate_limited" || e.Fix != "Wait." || e.RequestID != "req_1" || e.RetryAfter != 30*time.Second || e.More["limit"] != 5.0 {
		t.Errorf("%+v", e)
	}
	if len(*waits) != 0 {
		t.Errorf("a limit is told, not waited for: %v", *waits)
	}
}

func TestForeignPageIsStillARefusal(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request-Id", "req_2")
		http.Error(w, "<html>nginx</html>", http.StatusBadGateway)
	})
	_, err := c.Whoami(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Status != 502 || e.Code != "http_502" || e.RequestID != "req_2" || strings.Contains(e.Detail, "nginx") {
		t.Errorf("%+v", err)
	}
}

// A creating request is sent again under the same key: when the server was
// unavailable, when the connection broke, and when the answer was cut off.
func TestLostAnswersAreAskedForAgain(t *testing.T) {
	t.Parallel()
	var keys []string
	c, waits := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != `{"name":"laptop"}` {
			t.Errorf("try %d sent %s", len(keys)+1, body)
		}
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		switch len(keys) {
		case 1:
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"secret":`)
		default:
			fmt.Fprintf(w, `{"secret":%q}`, secret)
		}
	})
	made, err := c.CreateToken(t.Context(), CreateToken{Name: "laptop"})
	if err != nil || made.Secret != secret {
		t.Fatalf("%v", err)
	}
	if len(keys) != 4 || keys[0] == "" || len(slices.Compact(keys)) != 1 {
		t.Errorf("keys %q", keys)
	}
	// The transport itself repeats what broke off on a kept connection, without
	// a pause: the second wait may be missing.
	w := *waits
	if len(w) < 2 || w[0] != 2*time.Second || w[1] < 200*time.Millisecond || w[len(w)-1] >= 800*time.Millisecond {
		t.Errorf("waits %v", w)
	}
}

func TestRetriesEnd(t *testing.T) {
	t.Parallel()
	n := 0
	c, waits := serve(t, func(w http.ResponseWriter, _ *http.Request) { n++; w.WriteHeader(http.StatusServiceUnavailable) })
	if _, err := c.Whoami(t.Context()); err == nil || n != 5 || len(*waits) != 4 {
		t.Errorf("%v after %d tries, %v", err, n, *waits)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.Wait = func(context.Context, time.Duration) error { cancel(); return ctx.Err() }
	n = 0
	if _, err := c.Whoami(ctx); err == nil || n != 1 {
		t.Errorf("cancelled: %v after %d tries", err, n)
	}
}

func TestLongRetryAfterIsToldAtOnce(t *testing.T) {
	t.Parallel()
	n := 0
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	var e *Error
	if _, err := c.Whoami(t.Context()); !errors.As(err, &e) || e.RetryAfter != time.Hour || n != 1 {
		t.Errorf("%v after %d tries", err, n)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	c, err := NewClient("unix://"+socket, "")
	if err != nil {
		t.Fatal(err)
	}
	c.Retries = 0
	var e *Error
	if _, err := c.Health(t.Context()); !errors.As(err, &e) || e.Status != 0 || !strings.Contains(e.Fix, "serve --data "+filepath.Dir(socket)) {
		t.Errorf("without a server: %+v", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a credential where none is")
		}
		fmt.Fprint(w, `{"status":"ok"}`)
	})}
	go func() { _ = s.Serve(l) }()
	defer func() { _ = s.Close() }()
	if h, err := c.Health(t.Context()); err != nil || h.Status != "ok" {
		t.Error(h, err)
	}
}

// TestBadAuthorityFile: the variable is named, and what to do about it.
func TestBadAuthorityFile(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, "/nowhere.pem"} {
		t.Setenv("GRADEGATE_CA_FILE", file)
		_, err := NewClient("https://grade.example.org", "")
		if e := new(Error); !errors.As(err, &e) || e.Code != "ca_file" || !strings.Contains(e.Detail, file) || e.Fix == "" {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestPagesAreReadToTheEnd(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		next := map[string]string{"": "a", "a": "b", "b": ""}[r.URL.Query().Get("cursor")]
		if r.URL.Path == "/v1/users" {
			next = "stuck"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"items": []map[string]string{{"id": r.URL.Query().Get("cursor")}}, "next_cursor": next})
	})
	tokens, err := c.Tokens(t.Context())
	if err != nil || len(tokens) != 3 || tokens[2].ID != "b" {
		t.Errorf("%v %v", tokens, err)
	}
	if users, err := c.Users(t.Context()); err != nil || len(users) != 2 {
		t.Errorf("a cursor that stands still: %d, %v", len(users), err)
	}
	var ids []string
	for j, err := range c.AllJobs(t.Context(), url.Values{"state": {"running"}}) {
		if err != nil {
			t.Fatal(err)
		}
		if ids = append(ids, j.ID); len(ids) == 2 {
			break
		}
	}
	if !slices.Equal(ids, []string{"", "a"}) {
		t.Error(ids)
	}
}

func TestSubmitStreams(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var keys []string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		n := len(keys)
		mu.Unlock()
		if n == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if err := r.ParseMultipartForm(1 << 20); err != nil {
			t.Error(err)
			return
		}
		f := r.MultipartForm
		file, head, err := r.FormFile("bundle")
		if err != nil {
			t.Error(err)
			return
		}
		data, _ := io.ReadAll(file)
		if string(data) != "print(1)" || head.Filename != "run.py" {
			t.Errorf("%q %q", data, head.Filename)
		}
		if !slices.Equal(f.Value["label"], []string{"a=1", "b=2=3"}) || !slices.Equal(f.Value["arg"], []string{"--fast", ""}) ||
			!slices.Equal(f.Value["entry"], []string{"run.py"}) || f.Value["submitted_by"] != nil {
			t.Errorf("%v", f.Value)
		}
		fmt.Fprint(w, `{"job":{"id":"job_1"},"handle":"h","warnings":[{"code":"x","detail":"y"}]}`)
	})
	var told []int64
	s, err := c.Submit(t.Context(), "iris", Upload{
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("print(1)")), nil },
		Name: "run.py", Labels: map[string]string{"b": "2=3", "a": "1"}, Entry: "run.py", Args: []string{"--fast", ""},
		Progress: func(n int64) { mu.Lock(); told = append(told, n); mu.Unlock() },
	})
	if err != nil || s.Job.ID != "job_1" || s.Handle != "h" || len(s.Warnings) != 1 {
		t.Fatalf("%+v %v", s, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(keys) != 2 || keys[0] == "" || keys[0] != keys[1] || len(told) == 0 || told[len(told)-1] != 8 {
		t.Errorf("keys %q, told %v", keys, told)
	}
}

// brokenFile fails after some bytes, as a file on a lost network disk does.
type brokenFile struct{ io.Reader }

func (b brokenFile) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errors.New("input/output error")
	}
	return n, err
}

func TestUnreadableUploadIsNotTheServersFault(t *testing.T) {
	t.Parallel()
	c, waits := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	_, err := c.Submit(t.Context(), "iris", Upload{Name: "a", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(brokenFile{strings.NewReader("abc")}), nil
	}})
	var e *Error
	if err == nil || errors.As(err, &e) || !strings.Contains(err.Error(), "input/output error") || len(*waits) != 0 {
		t.Errorf("%v after %v", err, *waits)
	}
}

func TestApplyCompetition(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseMultipartForm(1 << 20)
		var spec Competition
		if err := json.Unmarshal([]byte(r.FormValue("spec")), &spec); err != nil || spec.Name != "iris" {
			t.Errorf("%v %v", spec, err)
		}
		if r.Header.Get("If-Match") != `"3"` || r.Method != http.MethodPut || r.MultipartForm.File["files"] != nil {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		_ = json.NewEncoder(w).Encode(spec)
	})
	if got, err := c.ApplyCompetition(t.Context(), Competition{Name: "iris", ETag: `"3"`}, nil); err != nil || got.Name != "iris" {
		t.Error(got, err)
	}
}

// TestRoutes keeps every method at its place in the API, and every creating
// one with a key.
func TestRoutes(t *testing.T) {
	t.Parallel()
	var got, key string
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got, key = r.Method+" "+r.URL.RequestURI(), r.Header.Get("Idempotency-Key")
		fmt.Fprint(w, "{}")
	})
	ctx := t.Context()
	for want, do := range map[string]func() error{
		"GET /v1/tokens/self":                   func() error { _, err := c.TokenByID(ctx, "self"); return err },
		"POST /v1/tokens/my%20laptop/rotate":    func() error { _, err := c.RotateToken(ctx, "my laptop", RotateToken{}); return err },
		"DELETE /v1/tokens/a%2Fb":               func() error { _, err := c.RevokeToken(ctx, "a/b", RevokeToken{}); return err },
		"POST /v1/tokens/x/suspend":             func() error { _, err := c.SuspendToken(ctx, "x"); return err },
		"POST /v1/tokens/x/resume":              func() error { _, err := c.ResumeToken(ctx, "x"); return err },
		"POST /v1/tokens/revoke-all":            func() error { _, err := c.RevokeAllTokens(ctx, RevokeAll{}); return err },
		"POST /v1/leaks":                        func() error { _, err := c.ReportLeaks(ctx, nil); return err },
		"POST /v1/verify":                       func() error { _, err := c.VerifyToken(ctx, Verify{}); return err },
		"POST /v1/users":                        func() error { _, err := c.CreateUser(ctx, CreateUser{}); return err },
		"GET /v1/users/ann":                     func() error { _, err := c.UserByID(ctx, "ann"); return err },
		"POST /v1/users/ann/invite":             func() error { _, err := c.InviteUser(ctx, "ann", Invite{}); return err },
		"POST /v1/users/ann/suspend":            func() error { _, err := c.SuspendUser(ctx, "ann"); return err },
		"POST /v1/users/ann/resume":             func() error { _, err := c.ResumeUser(ctx, "ann"); return err },
		"POST /v1/users/ann/offboard":           func() error { _, err := c.OffboardUser(ctx, "ann", Offboard{}); return err },
		"POST /v1/users/ann/revoke-all":         func() error { _, err := c.RevokeAllOfUser(ctx, "ann"); return err },
		"GET /v1/users/ann/tokens":              func() error { _, err := c.UserTokens(ctx, "ann"); return err },
		"POST /v1/invites/redeem":               func() error { _, err := c.Redeem(ctx, Redeem{}); return err },
		"GET /v1/competitions":                  func() error { _, err := c.Competitions(ctx); return err },
		"GET /v1/competitions/iris":             func() error { _, err := c.CompetitionByName(ctx, "iris"); return err },
		"GET /v1/competitions/iris/leaderboard": func() error { _, err := c.Leaderboard(ctx, "iris"); return err },
		"POST /v1/jobs/job_1/cancel":            func() error { _, err := c.CancelJob(ctx, "job_1"); return err },
		"GET /v1/jobs/job_1":                    func() error { _, err := c.JobByID(ctx, "job_1"); return err },
		"GET /v1/jobs/job_1/result":             func() error { _, err := c.JobResult(ctx, "job_1"); return err },
		"GET /v1/quota?competition=iris":        func() error { _, err := c.Quota(ctx, url.Values{"competition": {"iris"}}); return err },
		"GET /v1/quota/entries?token_id=self":   func() error { _, err := c.QuotaEntries(ctx, url.Values{"token_id": {"self"}}); return err },
		"POST /v1/users/ann/grants":             func() error { _, err := c.GrantQuota(ctx, "ann", GrantQuota{}); return err },
		"DELETE /v1/users/ann/grants/grt_1":     func() error { _, err := c.EndGrant(ctx, "ann", "grt_1"); return err },
		"GET /v1/audit/events?actor=usr_1":      func() error { _, err := c.AuditEvents(ctx, url.Values{"actor": {"usr_1"}}); return err },
		"GET /v1/audit/checkpoint?stream=act":   func() error { _, err := c.AuditCheckpoint(ctx, "act"); return err },
		"GET /v1/audit/trims":                   func() error { _, err := c.AuditTrims(ctx); return err },
		"GET /v1/audit/trim":                    func() error { _, err := c.AuditTrimPreview(ctx); return err },
		"POST /v1/audit/trim":                   func() error { _, err := c.TrimAudit(ctx); return err },
		"GET /.well-known/gradegate-trail-key":  func() error { _, err := c.TrailKey(ctx); return err },
		"GET /healthz":                          func() error { _, err := c.Health(ctx); return err },
		"GET /version":                          func() error { _, err := c.ServerVersion(ctx); return err },
		"GET /v1/jobs/job_1/logs?follow=true&offset=7": func() error {
			r, err := c.JobLogs(ctx, "job_1", 7, true)
			if err == nil {
				err = r.Close()
			}
			return err
		},
		"GET /v1/competitions/iris/files/train.csv": func() error {
			r, err := c.CompetitionFile(ctx, "iris", "train.csv")
			if err == nil {
				err = r.Close()
			}
			return err
		},
	} {
		if err := do(); err != nil || got != want {
			t.Errorf("%s, want %s (%v)", got, want, err)
		}
		if (key != "") != strings.HasPrefix(want, "POST") {
			t.Errorf("%s: Idempotency-Key %q", want, key)
		}
	}
}
