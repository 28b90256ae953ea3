package httpapi

import (
	"net/http"
	"strings"
	"testing"

	"gradegate/internal/token"
)

// R2.6, R2.2: rights are taken away and never given back; who would lock himself
// out has to say that he means it.
func TestNarrowToken(t *testing.T) {
	w := build(t)
	s := w.give("ann", func(k *token.Token) { k.Competitions, k.Name = []string{"iris", "cats"}, "ci" }, "jobs:read", "jobs:submit", "tokens:self")
	path := "/v1/tokens/" + string(s.Presented().Public.ID())
	tag := w.ask(t, get, path, s, "").header.Get("ETag")
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{`{"scopes":["admin:*"]}`, 403, "scope_widened"}, {`{"scopes":[]}`, 400, "scopes_empty"}, {`{"competitions":["dogs"]}`, 403, "competition_widened"},
		{`{"competitions":[]}`, 403, "competition_widened"}, {`{"allowed_cidrs":["192.0.2.0/24"]}`, 409, "locks_you_out"}, {`{"allowed_cidrs":["x"]}`, 400, "cidr_invalid"},
		{`{"scopes":["jobs:read","tokens:self"],"competitions":["iris"],"note":"less"}`, 200, ""},
		{`{"scopes":["jobs:submit"]}`, 403, "scope_widened"}, {`{"competitions":["cats"]}`, 403, "competition_widened"},
		{`{"lock_to_last_address":true}`, 200, ""}, {`{"allowed_cidrs":["127.0.0.0/8"]}`, 403, "network_widened"}, {`{"allowed_cidrs":[]}`, 403, "network_widened"},
		{`{}`, 200, ""},
	} {
		if a := w.ask(t, http.MethodPatch, path, s, c.body); a.status != c.status || c.code != "" && a.code() != c.code {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	if a := w.ask(t, http.MethodPatch, path, s, `{"allowed_cidrs":["127.0.0.1/32"],"force":true}`); strings.Contains(a.body, "cidr_normalised") {
		t.Errorf("%s", a.body)
	}
	a := w.ask(t, get, path, s, "")
	if !strings.Contains(a.body, `"scopes":["jobs:read","tokens:self"]`) || !strings.Contains(a.body, `"competitions":["iris"]`) || !strings.Contains(a.body, `"127.0.0.1/32"`) {
		t.Errorf("%s", a.body)
	}
	if a := w.ask(t, http.MethodPatch, path, s, `{"note":"x"}`, "If-Match", tag); a.status != 412 && a.status != 422 {
		t.Errorf("an old ETag: %d %s", a.status, a.body)
	}
	if a := w.ask(t, http.MethodPatch, path, w.bob, `{"note":"x"}`); a.status != 404 {
		t.Errorf("somebody else's: %d %s", a.status, a.body)
	}
	if a := w.ask(t, http.MethodPatch, path, w.root, `{"note":"x"}`); a.status != 404 {
		t.Errorf("an administrator: %d %s", a.status, a.body)
	}
	if a := w.ask(t, http.MethodPatch, path, s, `{"allowed_cidrs":["127.0.0.1/32"]}`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// What was never used has no address to be locked to, and a token locks itself
// to where it is asked from.
func TestLockHere(t *testing.T) {
	w := build(t)
	s := w.give("ann", nil, "tokens:self")
	path := "/v1/tokens/" + string(s.Presented().Public.ID())
	if a := w.ask(t, http.MethodPatch, path, w.ann, `{"lock_to_last_address":true}`); a.code() != "never_used" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, http.MethodPatch, path, s, `{"lock_to_last_address":true}`); a.status != 200 || !strings.Contains(a.body, `"127.0.0.1/32"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// R9.2: a script that runs again and again has one token.
func TestEnsureToken(t *testing.T) {
	w := build(t)
	first := w.ask(t, put, "/v1/tokens/by-name/laptop", w.ann, "")
	if first.status != 200 || first.json["created"] != false || first.json["secret"] != nil {
		t.Fatalf("%d %s", first.status, first.body)
	}
	w.ask(t, del, "/v1/tokens/laptop", w.ann, "")
	root := w.ask(t, put, "/v1/tokens/by-name/ci", w.root, `{"scopes":["jobs:read"]}`)
	if root.status != 409 || root.code() != "token_limit" {
		t.Errorf("%d %s", root.status, root.body)
	}
	session := w.give("ann", func(k *token.Token) { k.Kind = token.Session }, "tokens:self", "jobs:read")
	sk := w.tokens.tokens[session.Presented().Public.ID()]
	other := token.NewSecret(token.Session)
	sk.ID, sk.Digest = other.Presented().Public.ID(), other.Presented().Digest
	w.tokens.mu.Lock()
	w.tokens.tokens[sk.ID] = sk
	w.tokens.mu.Unlock()
	w.table.Apply(changeOfToken(sk))
	a := w.ask(t, put, "/v1/tokens/by-name/ci", other, `{"scopes":["jobs:read"]}`, "Idempotency-Key", "k")
	if a.status != 200 || a.json["created"] != true {
		t.Fatalf("%d %s", a.status, a.body)
	}
	made := secretOf(t, a, "secret")
	if b := w.ask(t, put, "/v1/tokens/by-name/ci", other, `{"scopes":["jobs:read"]}`, "Idempotency-Key", "k"); b.json["created"] != true || secretOf(t, b, "secret").Reveal() != made.Reveal() {
		t.Errorf("the answer that was lost on the way: %d %s", b.status, b.body)
	}
	if b := w.ask(t, put, "/v1/tokens/by-name/ci", other, `{"scopes":["jobs:read"]}`); b.status != 200 || b.json["created"] != false || b.json["secret"] != nil {
		t.Errorf("%d %s", b.status, b.body)
	}
	if a := w.ask(t, get, "/v1/whoami", made, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// R2.2: the networks of a token can be observed first, as those of a policy: a use
// from elsewhere is marked, and refused once that is said; never the other way round.
func TestObservedToken(t *testing.T) {
	w := build(t)
	a := w.ask(t, post, "/v1/tokens", w.ann, `{"name":"o","replace":"laptop","allowed_cidrs":["192.0.2.0/24"],"observe":true}`)
	if a.status != 201 || a.json["token"].(map[string]any)["observe"] != true {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s := secretOf(t, a, "secret")
	w.trail.take()
	if a := w.ask(t, get, "/v1/whoami", s, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if lines, _, _ := w.trail.take(); len(lines) != 1 || lines[0].Detail["outside"] != token.OwnLevel {
		t.Errorf("it is not marked: %+v", lines)
	}
	child := secretOf(t, w.exchange(t, s), "access_token")
	if a := w.ask(t, get, "/v1/whoami", child, ""); a.status != 200 {
		t.Errorf("its child: %d %s", a.status, a.body)
	}
	narrow := func(s token.Secret, body string) answer { return w.ask(t, "PATCH", "/v1/tokens/self", s, body) }
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{`{"allowed_cidrs":["198.51.100.0/24"]}`, 200, ""}, // others are observed instead
		{`{"observe":false}`, 409, "locks_you_out"},
		{`{"allowed_cidrs":["127.0.0.0/8"],"observe":false}`, 200, ""},
		{`{"observe":true}`, 403, "network_widened"},
		{`{"allowed_cidrs":["127.0.0.1"],"observe":true}`, 403, "network_widened"},
	} {
		if a := narrow(s, c.body); a.status != c.status || a.code() != c.code {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	if a := w.ask(t, post, "/v1/tokens", s, `{"name":"x","allowed_cidrs":["127.0.0.1"],"observe":true,"replace":"o"}`); a.status != 403 || a.code() != "network_widened" {
		t.Errorf("made by one that is limited: %d %s", a.status, a.body)
	}
	bob := w.give("bob", nil, "tokens:self")
	if a := narrow(bob, `{"observe":true}`); a.status != 400 || a.code() != "observe_nothing" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := narrow(bob, `{"allowed_cidrs":["192.0.2.0/24"],"observe":true}`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := narrow(bob, `{"observe":false,"force":true}`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", bob, ""); a.status != 403 || a.code() != "ip_denied" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
