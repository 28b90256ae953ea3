package httpapi

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

// check gives the result of one check of an explanation.
func (a answer) check(name string) string {
	list, _ := a.json["checks"].([]any)
	for _, c := range list {
		if m := c.(map[string]any); m["name"] == name {
			return m["result"].(string)
		}
	}
	return ""
}

func (a answer) has(t *testing.T, want map[string]any) {
	t.Helper()
	for name, v := range want {
		got := a.json[name]
		if list, ok := got.([]any); ok && len(list) == 1 {
			got = list[0]
		}
		if got != v {
			t.Errorf("%s is %v, want %v: %s", name, got, v, a.body)
		}
	}
}

// B16: a refusal is explained to who holds the secret that was refused, be it
// dead: which check failed, why, and a way on. No check behind it was reached.
func TestExplain(t *testing.T) {
	end := t0.Add(2 * time.Hour).Format(time.RFC3339)
	for name, c := range map[string]struct {
		change       func(*token.Token)
		scopes       string
		method, path string
		after        time.Duration
		failed       string
		want         map[string]any
	}{
		"allowed":   {nil, "jobs:read", get, "/v1/jobs", 0, "", map[string]any{"decision": "allow", "reason": "ok"}},
		"revoked":   {func(k *token.Token) { *k, _ = k.Revoke(token.Leaked, token.Keep, t0) }, "jobs:read", get, "/v1/jobs", 0, "standing", map[string]any{"reason": "token_revoked"}},
		"suspended": {func(k *token.Token) { *k, _ = k.Suspend(token.ByOwner) }, "jobs:read", get, "/v1/jobs", 0, "standing", map[string]any{"reason": "token_suspended"}},
		"expired": {func(k *token.Token) { k.Renewal, k.FixedEnd = token.Fixed, t0.Add(2*time.Hour) }, "jobs:read", get, "/v1/whoami", 3 * time.Hour, "clock",
			map[string]any{"reason": "token_expired", "clock": "expires_at", "ended": end, "policy": "token"}},
		"long expired": {func(k *token.Token) { k.Renewal, k.FixedEnd = token.Fixed, t0.Add(2*time.Hour) }, "jobs:read", get, "/v1/jobs", 30 * time.Hour, "clock",
			map[string]any{"reason": "token_expired", "clock": "expires_at", "ended": end}},
		"elsewhere": {func(k *token.Token) { k.CIDRs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }, "jobs:read", get, "/v1/jobs", 0, "network",
			map[string]any{"reason": "ip_denied", "ip": "127.0.0.1", "policy": "token", "ignored_header": "X-Forwarded-For"}},
		"no scope":  {nil, "jobs:read", post, "/v1/competitions/iris/jobs", 0, "right", map[string]any{"reason": "scope_missing", "required": "jobs:submit", "granted": "jobs:read", "missing": "jobs:submit"}},
		"not there": {nil, "jobs:read", get, "/v1/jobs/job_00000000000000000000000000", 0, "right", map[string]any{"reason": "job_not_found"}},
		"bad body":  {nil, "tokens:self", post, "/v1/tokens", 0, "request", map[string]any{"reason": "body_missing", "summary": "It was refused: The request needs a JSON body.", "fix": "See /openapi.json for its members."}},
	} {
		w := build(t)
		s := w.give("ann", c.change, c.scopes)
		w.clock.Add(c.after)
		a := w.ask(t, c.method, c.path, s, "", "X-Forwarded-For", "192.0.2.9")
		x := w.ask(t, get, "/v1/explain/"+a.header.Get("X-Request-Id"), s, "")
		if x.status != 200 || x.json["token_id"] != string(s.Presented().Public.ID()) || x.json["username"] != "ann" {
			t.Errorf("%s: %d %s", name, x.status, x.body)
			continue
		}
		want := "passed"
		for _, k := range x.json["checks"].([]any) {
			m := k.(map[string]any)
			switch {
			case m["name"] == c.failed:
				want = "not_reached"
				if m["result"] != "failed" || m["detail"] == "" {
					t.Errorf("%s: %v", name, m)
				}
			case m["result"] != want:
				t.Errorf("%s: %v, want %s", name, m, want)
			}
		}
		if c.failed != "" && (want != "not_reached" && c.failed != "outcome" || x.json["fix"] == nil) {
			t.Errorf("%s: %s", name, x.body)
		}
		x.has(t, c.want)
	}
}

// B16, disclosure: who holds the secret, who owns it, and who reads the trail;
// nobody else learns even that there was such a request.
func TestExplainIsForFew(t *testing.T) {
	w := build(t)
	mine := w.give("ann", nil, "jobs:read")
	request := w.ask(t, post, "/v1/competitions/iris/jobs", mine, "").header.Get("X-Request-Id")
	dead := w.give("ann", func(k *token.Token) { *k, _ = k.Revoke(token.ByOwner, token.Keep, t0) }, "jobs:read")
	quarantined := w.give("ann", func(k *token.Token) { *k, _ = k.Quarantine() }, "jobs:read")
	nobody := w.ask(t, get, "/v1/explain/req_00000000000000000000000000", w.bob, "")
	for name, c := range map[string]struct {
		s      token.Secret
		status int
	}{
		"itself": {mine, 200}, "its owner": {w.ann, 200}, "an auditor": {w.eve, 200}, "an administrator": {w.root, 200},
		"somebody": {w.bob, 404}, "another token of the owner's, dead": {dead, 404}, "quarantined": {quarantined, 404},
		"an administrator's token without the scope": {w.give("root", nil, "jobs:read"), 404},
	} {
		a := w.ask(t, get, "/v1/explain/"+request, c.s, "")
		if a.status != c.status || a.status == 404 && (a.code() != "request_not_found" || a.json["detail"] != nobody.json["detail"] || a.json["fix"] != nobody.json["fix"]) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := w.ask(t, get, "/v1/explain/"+request, token.NewSecret(token.Personal), ""); a.status != 401 || a.code() != "token_unknown" {
		t.Errorf("a wrong secret: %d %s", a.status, a.body)
	}
	for _, id := range []string{"x", "req_", "evt_" + request[4:], "req_" + strings.Repeat("z", 26), request[:29] + "!"} {
		if a := w.ask(t, get, "/v1/explain/"+id, w.eve, ""); a.status != 404 {
			t.Errorf("%s: %d %s", id, a.status, a.body)
		}
	}
	// A dead token opens this one door, and no other.
	if a := w.ask(t, get, "/v1/whoami", dead, ""); a.status != 401 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if u := w.table.LastUse(dead.Presented().Public.ID()); u.Count != 0 {
		t.Errorf("to ask why counts as a use: %+v", u)
	}
}

// A handle explains the requests of its own job's handle.
func TestExplainHandle(t *testing.T) {
	w := build(t)
	id, other := w.job("ann", job.Running), w.job("ann", job.Running)
	give := func(id job.ID) token.Secret {
		s := token.NewSecret(token.JobKind)
		p := s.Presented()
		w.table.ApplyHandle(authn.Handle{Handle: token.Handle{Public: p.Public, Digest: p.Digest}, Kind: token.JobKind, Job: string(id), Owner: "usr_ann"})
		return s
	}
	s, o := give(id), give(other)
	request := w.ask(t, get, "/v1/tokens", s, "").header.Get("X-Request-Id")
	if a := w.ask(t, get, "/v1/explain/"+request, s, ""); a.status != 200 || a.json["job"] != string(id) || a.check("right") != "failed" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/explain/"+request, o, ""); a.status != 404 {
		t.Errorf("another job's: %d %s", a.status, a.body)
	}
}

// A policy's networks are named by level, and the proxy by its header.
func TestExplainNetworks(t *testing.T) {
	w := build(t, func(d *Deps) { d.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	w.ask(t, put, "/v1/policies/guests", w.root, `{"rules":{"allowed_cidrs":["192.0.2.0/24"]}}`, "X-Forwarded-For", "192.0.2.1")
	w.ask(t, http.MethodPatch, "/v1/users/bob", w.root, `{"groups":["guests"]}`, "X-Forwarded-For", "192.0.2.1")
	request := w.ask(t, get, "/v1/whoami", w.bob, "", "X-Forwarded-For", "198.51.100.7").header.Get("X-Request-Id")
	a := w.ask(t, get, "/v1/explain/"+request, w.bob, "", "X-Forwarded-For", "198.51.100.7")
	a.has(t, map[string]any{"policy": "group:guests", "ip": "198.51.100.7", "proxy": "127.0.0.1", "proxy_header": "X-Forwarded-For"})
	if a.check("network") != "failed" || a.check("clock") != "passed" || a.check("limit") != "not_reached" {
		t.Errorf("%s", a.body)
	}
}

// Who reads the trail is told that refusals of that minute were counted.
func TestExplainCounted(t *testing.T) {
	w := build(t)
	request := w.ask(t, get, "/v1/whoami", token.NewSecret(token.Personal), "").header.Get("X-Request-Id")
	_ = w.trail.Record(t.Context(), audit.Event{ID: "evt_x", At: t0.Add(time.Minute), Action: audit.Aggregate, Outcome: audit.Deny, Reason: "token_unknown", Addr: "192.0.2.0/24", Count: 57}, false)
	if a := w.ask(t, get, "/v1/explain/"+request, w.eve, ""); a.status != 404 || !strings.Contains(a.body, "57 token_unknown 192.0.2.0/24") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/explain/"+request, w.ann, ""); a.status != 404 || strings.Contains(a.body, "57 token_unknown") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// B16: the last refusals of the token that asks, and of no other.
func TestExplainRefusals(t *testing.T) {
	w := build(t)
	s := w.give("ann", func(k *token.Token) { *k, _ = k.Suspend(token.ByOwner) }, "jobs:read")
	w.ask(t, get, "/v1/users", w.ann, "")
	var last []string
	for range 8 {
		w.clock.Add(10 * time.Minute)
		last = append(last, w.ask(t, get, "/v1/jobs", s, "").header.Get("X-Request-Id"))
	}
	a := w.ask(t, get, "/v1/explain", s, "")
	items, _ := a.json["items"].([]any)
	if a.status != 200 || len(items) != 5 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for i, x := range items {
		if m := x.(map[string]any); m["request_id"] != last[3+i] || m["reason"] != "token_suspended" {
			t.Errorf("%d: %v", i, m)
		}
	}
	if a := w.ask(t, get, "/v1/explain", w.bob, ""); a.status != 200 || !strings.Contains(a.body, `"items":[]`) {
		t.Errorf("%d %s", a.status, a.body)
	}

	// What has worked since is left out: here the same, and not something else.
	s = w.give("ann", nil, "jobs:read", "tokens:self")
	w.ask(t, get, "/v1/tokens/phone", s, "")
	w.ask(t, get, "/v1/jobs", s, "")
	if a := w.ask(t, get, "/v1/explain", s, ""); strings.Count(a.body, `"token_not_found"`) != 1 {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.put(token.Personal, "usr_ann", func(k *token.Token) { k.Name = "phone" })
	if a := w.ask(t, get, "/v1/tokens/phone", s, ""); a.status != 200 {
		t.Fatal(a.body)
	}
	if a := w.ask(t, get, "/v1/explain", s, ""); !strings.Contains(a.body, `"items":[]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}
