package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

// TestNoTrail: without a record nothing is granted, but what takes rights away
// goes on (R2.3, R2.7).
func TestNoTrail(t *testing.T) {
	w := build(t)
	w.trail.breaks(errDisk)
	for _, c := range []struct{ method, path, body string }{
		{get, "/v1/whoami", ""}, {post, "/v1/tokens", `{"name":"x","replace":"laptop"}`}, {get, "/v1/tokens", ""},
		{get, "/authz/forward", ""}, {get, "/authz/nginx", ""}, {post, "/v1/tokens/self/resume", ""}, {get, "/v1/users", ""},
	} {
		a := w.ask(t, c.method, c.path, w.ann, c.body)
		if a.status != 503 || a.header.Get("Retry-After") != "2" {
			t.Errorf("%s: %d %s", c.path, a.status, a.body)
		}
	}
	if len(w.tokens.events) > 0 || w.table.LastUse(w.annToken.ID).Count > 0 {
		t.Error("something was carried out")
	}
	id := w.job("ann", job.Running)
	if a := w.ask(t, post, "/v1/jobs/"+string(id)+"/cancel", w.ann, ""); a.status != 200 {
		t.Errorf("cancel: %d %s", a.status, a.body)
	}
	if a := w.ask(t, del, "/v1/tokens/self", w.ann, ""); a.status != 200 || a.json["token"].(map[string]any)["state"] != "revoked" {
		t.Errorf("revoke: %d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/leaks", token.Secret{}, fmt.Sprintf(`{"tokens":[%q]}`, w.bob.Reveal())); a.status != 202 {
		t.Errorf("leak: %d %s", a.status, a.body)
	}
}

// TestTrouble: a broken database is 503 and never 401; a bug of ours is 500
// without a word about it.
func TestTrouble(t *testing.T) {
	w := build(t)
	w.tokens.dead = fault.Wrap(fault.Unavailable, "store_unavailable", "The database does not answer.", errors.New("file is gone")).WithRetry(time.Second)
	a := w.ask(t, get, "/v1/tokens", w.ann, "")
	if a.status != 503 || a.header.Get("Retry-After") != "1" || strings.Contains(a.body, "file is gone") || a.header.Get("RateLimit") != "" || a.header.Get("RateLimit-Policy") != "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.tokens.dead = errors.New("secret detail")
	a = w.ask(t, get, "/v1/tokens", w.ann, "")
	if a.status != 500 || a.code() != "internal" || strings.Contains(a.body, "secret detail") || a.json["request_id"] == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestPanic: a handler that gives up is a 500 like any other.
func TestPanic(t *testing.T) {
	w := build(t, func(d *Deps) { d.Health = func(context.Context) api.Health { panic("CANARY-PANIC") } })
	a := w.ask(t, get, "/healthz", w.ann, "")
	if a.status != 500 || a.code() != "internal" || strings.Contains(a.body, "CANARY") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if log := w.log.String(); !strings.Contains(log, "a handler panicked") || strings.Contains(log, w.ann.Reveal()) {
		t.Error("the panic was not logged, or too much of it")
	}
}

// TestLocal: the socket's peer is the local administrator, by its uid.
func TestLocal(t *testing.T) {
	w := build(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := w.api.Server(w.api.Local())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	ask := func(method, path, body string) answer {
		r, _ := http.NewRequestWithContext(t.Context(), method, "http://local"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		data, _ := io.ReadAll(resp.Body)
		return answer{status: resp.StatusCode, body: string(data)}
	}
	if a := ask(get, "/v1/whoami", ""); a.status != 200 || !strings.Contains(a.body, `"kind":"local"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := ask(post, "/v1/users", `{"name":"carol"}`); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := ask(post, "/v1/tokens", `{"name":"mine"}`); a.status != 403 {
		t.Errorf("the local administrator made itself a token: %d %s", a.status, a.body)
	}
	if a := ask(get, "/metrics", ""); a.status != 200 || a.body != "metrics 1\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	lines, _, _ := w.trail.take()
	if want := fmt.Sprintf("local:%d", os.Geteuid()); lines[0].Actor != want {
		t.Errorf("actor %q, want %q", lines[0].Actor, want)
	}
}

// TestAuditPages: pages go back in time and lose nothing, also where many
// lines share an instant.
func TestAuditPages(t *testing.T) {
	var all []api.AuditEvent
	for i := range 50 {
		all = append(all, api.AuditEvent{ID: fmt.Sprintf("evt_%02d", i), At: t0.Add(time.Duration(i/10) * time.Microsecond)})
	}
	w := build(t, func(d *Deps) {
		d.Search = func(_ context.Context, q AuditQuery) ([]api.AuditEvent, error) {
			var out []api.AuditEvent
			for _, e := range all {
				if q.Until.IsZero() || e.At.Before(q.Until) {
					out = append(out, e)
				}
			}
			return out[max(0, len(out)-q.Limit):], nil
		}
	})
	var got []string
	for cursor := ""; ; {
		a := w.ask(t, get, "/v1/audit/events?limit=7&cursor="+cursor, w.eve, "")
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		var page []string
		for _, e := range a.json["items"].([]any) {
			page = append(page, e.(map[string]any)["id"].(string))
		}
		got = append(page, got...)
		if cursor, _ = a.json["next_cursor"].(string); cursor == "" {
			break
		}
	}
	if len(got) != 50 || !slices.IsSorted(got) {
		t.Errorf("%d: %v", len(got), got)
	}
	if a := w.ask(t, get, "/v1/audit/events?actor=nobody", w.eve, ""); a.status != 404 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestServerPages: what anybody may ask.
func TestServerPages(t *testing.T) {
	status := "degraded"
	w := build(t, func(d *Deps) {
		d.Health = func(context.Context) api.Health {
			return api.Health{Status: status, Checks: map[string]api.Check{"database": {Status: "degraded", Detail: "/var/lib/x is gone"}}}
		}
	})
	for path, want := range map[string]string{
		"/livez": "ok\n", "/readyz": "ok\n", "/.well-known/gradegate-trail-key": "gradegate-trail+key\n",
	} {
		if a := w.ask(t, get, path, token.Secret{}, ""); a.status != 200 || a.body != want {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
	if a := w.ask(t, get, "/version", token.Secret{}, ""); a.json["version"] != "test" {
		t.Errorf("%s", a.body)
	}
	if a := w.ask(t, get, "/healthz", token.Secret{}, ""); a.status != 200 || !strings.Contains(a.body, "database") {
		t.Errorf("%d %s", a.status, a.body)
	}
	status = "down"
	if a := w.ask(t, get, "/readyz", token.Secret{}, ""); a.status != 503 {
		t.Errorf("%d", a.status)
	}
	if lines, _, refused := w.trail.take(); len(lines)+len(refused) > 0 {
		t.Error("health checks fill the trail")
	}
}
