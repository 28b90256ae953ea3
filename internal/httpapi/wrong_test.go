package httpapi

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// TestCredentials: every way to present a token wrongly, and what is said.
func TestCredentials(t *testing.T) {
	w := build(t)
	ann := w.ann.Reveal()
	swapped := ann[:20] + string(ann[21]) + string(ann[20]) + ann[22:]
	if ann[20] == ann[21] {
		swapped = ann[:20] + "-" + ann[21:]
	}
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, c := range []struct {
		header string
		status int
		code   string
		says   string
	}{
		{"Bearer " + ann, 200, "", ""},
		{"bearer  " + ann + " ", 200, "", ""},
		{basic("anybody:" + ann), 200, "", ""},
		{"Bearer " + ann[:41], 401, "token_malformed", "has 41 characters, a token has 67"},
		{"Bearer " + ann + ann, 401, "token_malformed", "has 134 characters"},
		{"Bearer " + swapped, 401, "token_malformed", ""},
		{"Bearer hunter2", 401, "token_malformed", "starts with ggpat_"},
		{"Bearer", 401, "scheme_unknown", ""},
		{"Bearer ", 401, "scheme_unknown", ""},
		{ann, 401, "scheme_unknown", ""},
		{"Token " + ann, 401, "scheme_unknown", ""},
		{"Basic %%%", 401, "scheme_unknown", ""},
		{basic(ann), 401, "scheme_unknown", ""},
		{basic("x:"), 401, "token_malformed", ""},
		{"Bearer " + token.NewSecret(token.Personal).Reveal(), 401, "token_unknown", "not valid"},
		{"Bearer " + token.NewSecret(token.Invite).Reveal(), 401, "token_unknown", "not valid"},
		{"Bearer " + token.NewSecret(token.JobKind).Reveal(), 401, "token_unknown", "not valid"},
	} {
		a := w.ask(t, get, "/v1/whoami", token.Secret{}, "", "Authorization", c.header)
		if a.status != c.status || a.code() != c.code || !strings.Contains(a.body, c.says) {
			t.Errorf("%.20s: %d %s", c.header, a.status, a.body)
		}
		want := `Bearer realm="gradegate", error="invalid_token", error_description="`
		if c.code == "scheme_unknown" { // as without a credential (RFC 6750, section 3.1)
			want = `Bearer realm="gradegate", resource_metadata="`
		}
		if c.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), want) {
			t.Errorf("%.20s: %q", c.header, a.header.Get("WWW-Authenticate"))
		}
	}
	r, _ := http.NewRequestWithContext(t.Context(), get, w.public.URL+"/v1/whoami", nil)
	r.Header["Authorization"] = []string{"Bearer " + ann, "Bearer " + ann}
	if a := send(t, r); a.status != 400 || a.code() != "credential_twice" || !strings.Contains(a.header.Get("WWW-Authenticate"), `error="invalid_request"`) {
		t.Errorf("two credentials: %d %s", a.status, a.body)
	}
}

// TestDisclosure: the holder of a secret is told why it ended; everybody else
// gets one answer.
func TestDisclosure(t *testing.T) {
	w := build(t)
	for code, change := range map[string]func(*token.Token){
		"token_revoked":      func(k *token.Token) { k.Standing, k.Reason = token.Revoked, token.ByOwner },
		"token_suspended":    func(k *token.Token) { k.Standing = token.Suspended },
		"token_unproven":     func(k *token.Token) { k.Standing = token.Unproven },
		"token_expired":      func(k *token.Token) { k.Renewal, k.FixedEnd = token.Fixed, t0 },
		"token_idle_expired": func(k *token.Token) { k.IssuedAt, k.Unused = t0.Add(-time.Hour), time.Minute },
		"token_rotated":      func(k *token.Token) { k.GraceUntil, k.Successor = t0, "tok_x" },
	} {
		s := w.give("ann", change)
		a := w.ask(t, get, "/v1/whoami", s, "")
		if a.status != 401 || a.code() != code || a.json["fix"] == "" {
			t.Errorf("%s: %d %s", code, a.status, a.body)
		}
	}
	lines, _, refused := w.trail.take()
	if len(lines) != 6 || len(refused) != 0 {
		t.Errorf("a proven holder has a line of its own: %d and %d", len(lines), len(refused))
	}
	for _, l := range lines {
		if l.Token == "" || l.Actor != "usr_ann" {
			t.Errorf("it does not name the holder: %+v", l)
		}
	}
	var first map[string]any
	for range 3 {
		a := w.ask(t, get, "/v1/whoami", token.NewSecret(token.Personal), "")
		delete(a.json, "request_id")
		if first != nil && fmt.Sprint(first) != fmt.Sprint(a.json) {
			t.Errorf("two unknown tokens: %v and %v", first, a.json)
		}
		first = a.json
	}
}

// TestStates: quarantine leaves little, an inactive owner nothing, and an
// address rule is a 403.
func TestStates(t *testing.T) {
	w := build(t)
	q := w.give("ann", func(k *token.Token) { k.Standing = token.Quarantined }, "jobs:read", "tokens:self")
	if a := w.ask(t, get, "/v1/whoami", q, ""); a.status != 200 || a.header.Get("X-Auth-Mode") != "quarantined" || a.json["mode"] != "quarantined" {
		t.Errorf("%d %v", a.status, a.json)
	}
	if a := w.ask(t, post, "/v1/tokens", q, `{"name":"x"}`); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
	p, err := networks([]string{"10.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	if a := w.ask(t, get, "/v1/whoami", w.give("ann", func(k *token.Token) { k.CIDRs = p }), ""); a.status != 403 || a.code() != "ip_denied" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/jobs", w.give("ann", nil, "jobs:submit"), ""); a.status != 403 || a.code() != "scope_missing" ||
		a.header.Get("WWW-Authenticate") != `Bearer realm="gradegate", error="insufficient_scope", scope="jobs:read", resource_metadata="`+w.public.URL+`/.well-known/oauth-protected-resource"` {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	gone := w.tokens.people["usr_ann"]
	gone.Status, gone.Version = principal.Suspended, 2
	w.tokens.people["usr_ann"] = gone
	w.table.Apply(changeOf(gone))
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.status != 401 || a.code() != "owner_inactive" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestBodies: JSON that is wrong in every way that programs have been fooled
// by (A06), and nothing of it comes back.
func TestBodies(t *testing.T) {
	w := build(t)
	const canary = "CANARY-7f3a"
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for _, c := range []struct {
		body, kind string
		status     int
		code       string
	}{
		{`{"name":"a","nmae":"` + canary + `"}`, "", 400, "request_invalid"},
		{`{"name":"a","note":"` + canary + `","note":"b"}`, "", 400, "json_duplicate_key"},
		{`{"Name":"` + canary + `"}`, "", 400, "request_invalid"},
		{`{"name":"a","scopes":"` + canary + `"}`, "", 400, "request_invalid"},
		{`{"name":["` + canary + `"]}`, "", 400, "request_invalid"},
		{`{"name":"a","expires_in":"` + canary + `"}`, "", 400, "duration_invalid"},
		{`{"name":"a","expires_at":"` + canary + `"}`, "", 400, "request_invalid"},
		{`{"name":"a","allowed_cidrs":["` + canary + `"]}`, "", 400, "cidr_invalid"},
		{`{"name":"a","scopes":["` + canary + `"]}`, "", 400, "scope_unknown"},
		{`{"name":"a"}{"name":"` + canary + `"}`, "", 400, "json_trailing"},
		{`{"name":"a"} ` + canary, "", 400, "json_trailing"},
		{`{"name":"` + canary, "", 400, "json_malformed"},
		{canary, "", 400, "json_malformed"},
		{`{"name":"a",}`, "", 400, "json_malformed"},
		{`["` + canary + `"]`, "", 400, "request_invalid"},
		{`"` + canary + `"`, "", 400, "request_invalid"},
		{`null`, "", 400, "request_invalid"},
		{`{"name":"a","note":null}`, "", 400, "request_invalid"},
		{`{"name":"a","allowed_cidrs":[null]}`, "", 400, "request_invalid"},
		{`{"name":"a","expires_at":null}`, "", 400, "request_invalid"},
		{"{\"name\":\"\xff" + canary + "\"}", "", 400, "json_malformed"},
		{deep, "", 400, "json_too_complex"},
		{`{"name":"a","scopes":[` + strings.TrimSuffix(strings.Repeat(`"x",`, 1200), ",") + `]}`, "", 400, "json_too_complex"},
		{`{"name":"` + strings.Repeat("x", 70<<10) + `"}`, "", 413, "body_too_large"},
		{`{"name":"a"}`, "text/plain", 415, "content_type"},
		{`name=` + canary, "application/x-www-form-urlencoded", 415, "content_type"},
		{``, "", 400, "body_missing"},
		{`{"name":"` + strings.Repeat("x", 64) + `"}`, "", 400, "token_name_invalid"},
		{`{"name":"a","expires_in":"1m"}`, "", 400, "lifetime_out_of_range"},
		{`{"name":"a","expires_in":"90d","expires_at":"2027-01-01T00:00:00Z"}`, "", 400, "expiry_twice"},
		{`{}`, "", 400, "request_invalid"},
	} {
		headers := []string{}
		if c.kind != "" {
			headers = []string{"Content-Type", c.kind}
		}
		a := w.ask(t, post, "/v1/tokens", w.ann, c.body, headers...)
		if a.status != c.status || a.code() != c.code || a.header.Get("Content-Type") != problemType {
			t.Errorf("%.60s: %d %s", c.body, a.status, a.body)
		}
		if strings.Contains(a.body, canary) {
			t.Errorf("%.60s: the value came back: %s", c.body, a.body)
		}
	}
	if n := len(w.tokens.events); n > 0 {
		t.Errorf("%d changes", n)
	}
	if strings.Contains(w.log.String(), canary) {
		t.Error("a rejected value was logged")
	}
	a := w.ask(t, post, "/v1/tokens", w.ann, `{"name":"a","nmae":"b"}`)
	if !strings.Contains(a.body, `"body.nmae"`) {
		t.Errorf("the unknown member is not named: %s", a.body)
	}
}

// TestNoMembers: a request that takes no body does not pass over what one asks
// for, such as a rehearsal.
func TestNoMembers(t *testing.T) {
	w := build(t)
	tried := 0
	for _, r := range w.api.routes {
		if !r.has(bodiless) || r.method == get {
			continue
		}
		tried++
		for _, body := range []string{`{"dry_run":true}`, `[]`, `"x"`, `null`} {
			if a := w.ask(t, r.method, pathOf(*r, "x"), w.root, body); a.status != 400 || a.code() != "request_invalid" || a.json["fix"] == "" {
				t.Errorf("%s with %s: %d %s", r.id, body, a.status, a.body)
			}
		}
	}
	if n := len(w.tokens.events); n > 0 || tried < 10 {
		t.Errorf("%d changes by %d routes", n, tried)
	}
	for _, body := range []string{"", "{}", " { }\n"} {
		if a := w.ask(t, post, "/v1/tokens/self/renew", w.root, body); a.status != 200 {
			t.Errorf("%q: %d %s", body, a.status, a.body)
		}
	}
}

// TestQueries: unknown and malformed members of a query.
func TestQueries(t *testing.T) {
	w := build(t)
	for path, code := range map[string]string{
		"/v1/tokens?limit=0": "request_invalid", "/v1/tokens?limit=zzz9": "request_invalid", "/v1/tokens?limti=3": "request_invalid",
		"/v1/tokens?cursor=zzz9": "cursor_invalid", "/v1/jobs?cursor=zzz9": "cursor_invalid", "/v1/jobs?state=zzz9": "request_invalid",
		"/v1/quota?competiton=iris": "request_invalid", "/v1/quota/entries?cursor=zzz9": "cursor_invalid", "/v1/jobs/x/logs?offset=-1": "query_invalid", "/v1/jobs/x/logs?follow=zzz9": "query_invalid",
	} {
		a := w.ask(t, get, path, w.ann, "")
		if a.status != 400 || a.code() != code || strings.Contains(a.body, "zzz9") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, key := range []string{"", "a b", "é", strings.Repeat("k", 256)} {
		a := w.ask(t, post, "/v1/tokens", w.ann, `{"name":"x"}`, "Idempotency-Key", key)
		if a.status != 400 || a.code() != "idempotency_key_invalid" {
			t.Errorf("key %.5q: %d %s", key, a.status, a.body)
		}
	}
}

// TestTokenInURL: a token in a URL is refused and dead at once (A20).
func TestTokenInURL(t *testing.T) {
	w := build(t)
	for _, form := range []string{
		"/v1/whoami?token=%s", "/v1/whoami?access_token=%s", "/v1/whoami?x=%s", "/v1/tokens/%s", "/v1/tokens/%s/rotate", "/livez?secret=%s", "/nowhere?a=1&b=%s",
		"/authz/nginx?token=%s", "/authz/forward?scope=%s", "/v1/whoami?%s=1",
		"/v1/whoami?a;token=%s", "/v1/whoami?next=https%%3A%%2F%%2Fh%%2F%%3Ftoken%%3D%s", "/v1/whoami?authorization=Bearer+%s", "/v1/jobs/%s.json",
		"/v1//jobs/%s",
	} {
		s := w.give("ann", nil)
		id := s.Presented().Public.ID()
		a := w.ask(t, get, fmt.Sprintf(form, s.Reveal()), w.bob, "")
		if a.status != 400 || a.code() != "token_in_url" || strings.Contains(a.body, s.Reveal()) {
			t.Errorf("%s: %d %s", form, a.status, a.body)
		}
		if k := w.tokens.tokens[id]; k.Standing != token.Revoked || k.Reason != token.Leaked {
			t.Errorf("%s: the token is %s", form, k.Standing)
		}
	}
	for name, write := range spellings {
		for _, path := range []string{"/v1/jobs/", "/authz/nginx?access_token=", "/authz/forward?scope="} {
			for _, by := range []token.Secret{w.bob, {}} {
				s := w.give("ann", nil)
				status := rawStatus(t, w, "GET "+path+write(s.Reveal())+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+by.Reveal()+"\r\n\r\n")
				if k := w.tokens.tokens[s.Presented().Public.ID()]; status != "400" || k.Reason != token.Leaked {
					// net/http itself refuses a broken escape in a path, before anybody sees it
					if !(name == "beside a broken one" && path == "/v1/jobs/" && status == "400") {
						t.Errorf("%s, %s: %s, and the token is %s", path, name, status, k.Standing)
					}
				}
			}
		}
	}
	if a := w.ask(t, get, "/v1/whoami?access_token=other", w.ann, ""); a.code() != "token_in_url" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/audit/events?token="+string(w.annToken.ID), w.eve, ""); a.code() == "token_in_url" {
		t.Error("a public id is no token")
	}
}

// rawStatus sends bytes as they are and reads the status.
func rawStatus(t *testing.T, w *world, text string) string {
	t.Helper()
	status, _, _ := strings.Cut(strings.TrimPrefix(raw(t, w, text), "HTTP/1.1 "), " ")
	return status
}

// raw sends bytes as they are and reads until the server hangs up.
func raw(t *testing.T, w *world, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.public.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = c.Write([]byte(text)) // a server that hangs up early needs no more of it
	data, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("%v after %q", err, data)
	}
	return string(data)
}

// TestOrdinaryURLs: looking for secrets costs nothing where there are none, and
// takes nothing else for one.
func TestOrdinaryURLs(t *testing.T) {
	secret := token.NewSecret(token.Personal).Reveal()
	for _, uri := range []string{"/v1/jobs/job_1?limit=3", "/authz/nginx?scope=jobs:read", "/grade/1?egg=ggpat_", "/x?y=" + secret[:66], ""} {
		if n := testing.AllocsPerRun(10, func() {
			if tokensIn(uri) != nil {
				t.Errorf("%s", uri)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", uri, n)
		}
	}
	if s := tokensIn("/a?b=" + secret + secret + "&c=" + secret); len(s) != 1 || s[0] != secret {
		t.Errorf("%d secrets", len(s))
	}
}

// TestTwoLengths: a request that could be read as two is one, and the last one
// of its connection (RFC 9112, 6.3).
func TestTwoLengths(t *testing.T) {
	w := build(t)
	second := "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, path := range []string{"GET /version", "GET /authz/nginx", "POST /v1/tokens", "GET /nowhere"} {
		got := raw(t, w, path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+second)
		if strings.Count(got, "HTTP/1.1 ") != 1 || !strings.Contains(got, "\r\nConnection: close\r\n") {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestFailureBudget: failures are limited by address; a valid token never is (R8.2).
func TestFailureBudget(t *testing.T) {
	w := build(t)
	junk := token.NewSecret(token.Personal)
	last := answer{}
	for range 101 {
		last = w.ask(t, get, "/v1/whoami", junk, "")
	}
	if last.status != 429 || last.code() != "too_many_failures" || last.header.Get("Retry-After") == "" || last.header.Get("WWW-Authenticate") != "" {
		t.Errorf("%d %s %v", last.status, last.body, last.header)
	}
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.status != 200 {
		t.Errorf("a valid token was held up: %d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", token.Secret{}, ""); a.status != 401 {
		t.Errorf("no token is no failure: %d", a.status)
	}
	w.clock.Add(time.Minute)
	if a := w.ask(t, get, "/v1/whoami", junk, ""); a.status != 401 {
		t.Errorf("after a minute: %d", a.status)
	}
}

// TestRateLimit: each class has a budget of its own, and a cancel is never
// held up by anything else (R2.4).
func TestRateLimit(t *testing.T) {
	rates := DefaultRates()
	rates[Reading].Burst, rates[Reading].Events = 3, 60
	w := build(t, func(d *Deps) { d.Limits = NewLimits(rates, 1000) })
	for range 3 {
		if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.status != 200 {
			t.Fatal(a.status)
		}
	}
	a := w.ask(t, get, "/v1/whoami", w.ann, "")
	if a.status != 429 || a.code() != "rate_limited" || a.header.Get("Retry-After") != "1" || a.header.Get("Ratelimit") != `"token-read";r=0;t=3` {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	id := w.job("ann", "running")
	if a := w.ask(t, post, "/v1/jobs/"+string(id)+"/cancel", w.ann, ""); a.status != 200 || a.json["job"].(map[string]any)["state"] != "canceling" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", w.bob, ""); a.status != 200 {
		t.Errorf("somebody else: %d", a.status)
	}
}
