package httpapi

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// form posts a form as OAuth clients do.
func (w *world) form(t testing.TB, path string, s token.Secret, members ...string) answer {
	t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(members); i += 2 {
		v.Add(members[i], members[i+1])
	}
	r, err := http.NewRequestWithContext(t.Context(), post, w.public.URL+path, strings.NewReader(v.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !s.IsZero() {
		r.SetBasicAuth("gradegate", s.Reveal())
	}
	return send(t, r)
}

func (w *world) exchange(t testing.TB, s token.Secret, more ...string) answer {
	t.Helper()
	return w.form(t, "/oauth2/token", token.Secret{}, append([]string{
		"grant_type", grantExchange, "subject_token", s.Reveal(), "subject_token_type", typeAccess,
	}, more...)...)
}

// R1.5, RFC 8693: a child can do no more than its parent, lives no longer, and
// dies with it; what the parent loses later, it loses.
func TestExchange(t *testing.T) {
	w := build(t)
	parent := w.give("ann", func(k *token.Token) { k.Competitions = []string{"iris", "cats"} }, "jobs:read", "jobs:submit", "tokens:self")
	a := w.exchange(t, parent, "scope", "jobs:read", "expires_in", "600")
	if a.status != 200 || a.json["token_type"] != "Bearer" || a.json["issued_token_type"] != typeAccess || a.json["expires_in"] != 600.0 || a.json["scope"] != "jobs:read" ||
		a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s %v", a.status, a.body, a.header)
	}
	child := secretOf(t, a, "access_token")
	me := w.ask(t, get, "/v1/whoami", child, "")
	if me.status != 200 || !strings.Contains(me.body, `"scopes":["jobs:read"]`) || !strings.Contains(me.body, `"kind":"ses"`) {
		t.Errorf("%d %s", me.status, me.body)
	}
	if a := w.exchange(t, child, "scope", "jobs:submit"); a.status != 400 || a.json["error"] != "invalid_scope" {
		t.Errorf("a grandchild has more: %d %s", a.status, a.body)
	}
	deep := child
	for range 2 {
		deep = secretOf(t, w.exchange(t, deep), "access_token")
	}
	if a := w.exchange(t, deep); a.status != 400 || a.json["error"] != "invalid_request" || a.json["code"] != "exchange_too_deep" {
		t.Errorf("%d %s", a.status, a.body)
	}
	// What the parent loses.
	k := w.tokens.tokens[parent.Presented().Public.ID()]
	k.Scopes, k.Competitions, k.Version = []string{"jobs:submit"}, []string{"cats"}, k.Version+1
	w.table.Apply(changeOfToken(k))
	if a := w.ask(t, get, "/v1/jobs", child, ""); a.status != 403 || a.code() != "scope_missing" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for name, change := range map[string]func(token.Token) token.Token{
		"suspended": func(k token.Token) token.Token { k, _ = k.Suspend(token.ByOwner); return k },
		"revoked":   func(k token.Token) token.Token { k, _ = k.Revoke(token.ByOwner, token.Keep, t0); return k },
	} {
		k.Version += 10
		is := change(k)
		w.table.Apply(changeOfToken(is))
		for _, s := range []token.Secret{child, deep} {
			if a := w.ask(t, get, "/v1/whoami", s, ""); a.status != 401 || a.code() != "token_parent_ended" {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
	}

	// It ends with its parent's clock, and is no sign-in.
	short := w.give("ann", func(k *token.Token) { k.Renewal, k.FixedEnd = token.Fixed, t0.Add(10*time.Minute) }, policy.UserScopes...)
	a = w.exchange(t, short)
	if a.json["expires_in"] != 600.0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	child = secretOf(t, a, "access_token")
	id := string(w.job("ann", job.Running))
	w.clock.Add(10 * time.Minute)
	if a := w.ask(t, get, "/v1/jobs/"+id, child, ""); a.status != 401 {
		t.Errorf("after its parent's end: %d %s", a.status, a.body)
	}
	for _, c := range []struct {
		more []string
		want string
	}{
		{[]string{"grant_type", "password"}, "invalid_request"}, // twice
		{[]string{"expires_in", "90000"}, "invalid_request"}, {[]string{"expires_in", "soon"}, "invalid_request"}, {[]string{"scope", "fly"}, "invalid_scope"},
		{[]string{"audience", "https://else.example"}, "invalid_target"}, {[]string{"requested_token_type", "urn:x"}, "invalid_request"},
		{[]string{"actor_token", "x"}, "invalid_request"}, {[]string{"actor_token_type", typeAccess}, "invalid_request"},
	} {
		if a := w.exchange(t, w.ann, c.more...); a.status != 400 || a.json["error"] != c.want || a.json["error_description"] == "" {
			t.Errorf("%v: %d %s", c.more, a.status, a.body)
		}
	}
	if a := w.form(t, "/oauth2/token", token.Secret{}, "grant_type", "client_credentials"); a.status != 400 || a.json["error"] != "unsupported_grant_type" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for form, want := range map[string]string{
		"": "invalid_request", "grant_type=": "invalid_request", "grant_type=refresh_token": "invalid_request",
		"grant_type=refresh_token&refresh_token=x": "invalid_grant", "grant_type=a&grant_type=a": "invalid_request",
	} { // RFC 6749, section 5.2: what is missing is no invalid grant
		members := strings.FieldsFunc(form, func(r rune) bool { return r == '=' || r == '&' })
		if a := w.form(t, "/oauth2/token", token.Secret{}, members...); a.status != 400 || a.json["error"] != want || a.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%q: %d %s", form, a.status, a.body)
		}
	}
	outside := w.give("ann", func(k *token.Token) { k.CIDRs, _ = networks([]string{"192.0.2.0/24"}) }, "jobs:read")
	for _, s := range []token.Secret{token.NewSecret(token.Personal), parent, short, outside} { // RFC 8693, section 2.2.2
		if a := w.exchange(t, s); a.status != 400 || a.json["error"] != "invalid_request" || strings.Contains(a.body, s.Reveal()) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

// RFC 7009: possession revokes, in any state; what is unknown is revoked already.
func TestOAuthRevoke(t *testing.T) {
	w := build(t)
	for name, s := range map[string]token.Secret{
		"active": w.give("ann", nil, "jobs:read"), "suspended": w.give("ann", func(k *token.Token) { *k, _ = k.Suspend(token.ByOwner) }, "jobs:read"),
		"from elsewhere": w.give("ann", func(k *token.Token) { k.CIDRs, _ = networks([]string{"192.0.2.0/24"}) }, "jobs:read"),
	} {
		for range 2 {
			if a := w.form(t, "/oauth2/revoke", token.Secret{}, "token", s.Reveal(), "token_type_hint", "refresh_token"); a.status != 200 || a.body != "" {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
		}
		if a := w.ask(t, get, "/v1/whoami", s, ""); a.status != 401 || a.code() != "token_revoked" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := w.form(t, "/oauth2/revoke", token.Secret{}, "token", token.NewSecret(token.Personal).Reveal()); a.status != 200 {
		t.Errorf("unknown: %d %s", a.status, a.body)
	}
	if a := w.form(t, "/oauth2/revoke", token.Secret{}, "token", "junk"); a.status != 200 {
		t.Errorf("junk: %d %s", a.status, a.body)
	}
	if a := w.form(t, "/oauth2/revoke", token.Secret{}); a.status != 400 || a.json["error"] != "invalid_request" {
		t.Errorf("none: %d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/oauth2/revoke", token.Secret{}, `{"token":"x"}`); a.status != 400 || a.json["error"] != "invalid_request" {
		t.Errorf("JSON: %d %s", a.status, a.body)
	}
}

// RFC 7662: the caller is authenticated, and whatever is not active is exactly
// {"active": false}.
func TestIntrospect(t *testing.T) {
	w := build(t)
	good := w.give("ann", nil, "jobs:read", "jobs:submit")
	a := w.form(t, "/oauth2/introspect", w.root, "token", good.Reveal())
	if a.status != 200 || a.json["active"] != true || a.json["scope"] != "jobs:read jobs:submit" || a.json["username"] != "ann" || a.json["sub"] != "usr_ann" ||
		a.json["exp"] == nil || a.json["iss"] != w.public.URL {
		t.Errorf("%d %s", a.status, a.body)
	}
	bad := map[string]token.Secret{
		"unknown": token.NewSecret(token.Personal), "revoked": w.give("ann", func(k *token.Token) { *k, _ = k.Revoke(token.ByOwner, token.Keep, t0) }),
		"quarantined": w.give("ann", func(k *token.Token) { *k, _ = k.Quarantine() }, "jobs:read"),
		"just ended":  w.give("ann", func(k *token.Token) { k.Renewal, k.FixedEnd = token.Fixed, t0.Add(-time.Minute) }, "jobs:read"),
		"an invite":   token.NewSecret(token.Invite),
	}
	for name, s := range bad {
		if a := w.form(t, "/oauth2/introspect", w.root, "token", s.Reveal()); a.status != 200 || strings.TrimSpace(a.body) != `{"active":false}` {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := w.form(t, "/oauth2/introspect", w.root, "token", "junk"); strings.TrimSpace(a.body) != `{"active":false}` {
		t.Errorf("junk: %d %s", a.status, a.body)
	}
	if a := w.form(t, "/oauth2/introspect", token.Secret{}, "token", good.Reveal()); a.status != 401 || a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("nobody asks: %d %s", a.status, a.body)
	}
	if a := w.form(t, "/oauth2/introspect", w.bob, "token", good.Reveal()); a.status != 403 || a.json["error"] != "insufficient_scope" || !strings.Contains(a.header.Get("WWW-Authenticate"), `scope="tokens:verify"`) {
		t.Errorf("somebody asks about another's: %d %s", a.status, a.body)
	}
	if a := w.form(t, "/oauth2/introspect", good, "token", good.Reveal()); a.json["active"] != true {
		t.Errorf("a token asks about itself: %d %s", a.status, a.body)
	}
	// One that is for some networks only is good where it is used from there.
	near := w.give("ann", func(k *token.Token) { k.CIDRs, _ = networks([]string{"127.0.0.0/8", "2001:db8::/32"}) }, "jobs:read")
	for ip, active := range map[string]bool{"127.9.9.9": true, "::ffff:127.0.0.1": true, "2001:db8::1%eth0": true, "192.0.2.1": false, "": false} {
		if a := w.form(t, "/oauth2/introspect", w.root, "token", near.Reveal(), "ip", ip); a.status != 200 || a.json["active"] != active {
			t.Errorf("used from %q: %d %s", ip, a.status, a.body)
		}
	}
	if a := w.form(t, "/oauth2/introspect", near, "token", near.Reveal()); a.json["active"] != true {
		t.Errorf("asked about itself from there: %d %s", a.status, a.body)
	}
	if a := w.form(t, "/oauth2/introspect", w.root, "token", near.Reveal(), "ip", "127.0.0.1:80"); a.status != 400 || a.json["error"] != "invalid_request" {
		t.Errorf("no address: %d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/oauth2/introspect", w.root, ""); a.status != 405 {
		t.Errorf("GET: %d", a.status)
	}
}

// RFC 8414, RFC 9728: the documents name where they came from, and challenges
// lead to them.
func TestOAuthMetadata(t *testing.T) {
	w := build(t)
	a := w.ask(t, get, "/.well-known/oauth-authorization-server", token.Secret{}, "")
	if a.json["issuer"] != w.public.URL || a.json["token_endpoint"] != w.public.URL+"/oauth2/token" {
		t.Errorf("%d %s", a.status, a.body)
	}
	a = w.ask(t, get, "/v1/whoami", token.Secret{}, "")
	_, where, _ := strings.Cut(a.header.Get("WWW-Authenticate"), `resource_metadata="`+w.public.URL)
	a = w.ask(t, get, strings.TrimSuffix(where, `"`), token.Secret{}, "")
	if a.json["resource"] != w.public.URL || a.json["authorization_servers"].([]any)[0] != w.public.URL {
		t.Errorf("%q %d %s", where, a.status, a.body)
	}
	w = build(t, func(d *Deps) { d.PublicURL = "https://grade.example.org/" })
	if a := w.ask(t, get, "/.well-known/oauth-protected-resource", token.Secret{}, ""); a.json["resource"] != "https://grade.example.org" {
		t.Errorf("%d %s", a.status, a.body)
	}
	// An address with a path has it behind the well-known part.
	w = build(t, func(d *Deps) { d.PublicURL = "https://example.org/ml/grade/" })
	const there = "/.well-known/oauth-protected-resource/ml/grade"
	if a := w.ask(t, get, "/v1/whoami", token.Secret{}, ""); !strings.HasSuffix(a.header.Get("WWW-Authenticate"), `resource_metadata="https://example.org`+there+`"`) {
		t.Errorf("%v", a.header)
	}
	for path, status := range map[string]int{
		there: 200, there + "/": 200, "/.well-known/oauth-authorization-server/ml/grade": 200, "/.well-known/oauth-authorization-server": 200,
		"/.well-known/oauth-authorization-server/ml": 404, there + "/x": 404,
	} {
		a := w.ask(t, get, path, token.Secret{}, "")
		if a.status != status || status == 200 && a.json["issuer"] != "https://example.org/ml/grade" && a.json["resource"] != "https://example.org/ml/grade" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
