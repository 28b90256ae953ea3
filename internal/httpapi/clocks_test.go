package httpapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gradegate/internal/authority"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

const day = 24 * time.Hour

// R1.4: for a day after its end by a clock a token reads and cancels what was
// submitted before, is marked, and is not renewed by that; nothing else.
func TestExpiredRead(t *testing.T) {
	w := build(t)
	var o []Observation
	w.api.Observe = func(x Observation) { o = append(o, x) }
	old := string(w.job("ann", job.Running))
	w.clock.Add(14*day + time.Hour) // never used: its end was an hour ago
	late := string(w.job("ann", job.Running))
	w.jobs.mu.Lock()
	j := w.jobs.jobs[job.ID(late)]
	j.CreatedAt = w.clock.Now()
	w.jobs.jobs[j.ID] = j
	w.jobs.mu.Unlock()
	for range 2 { // the first use is no renewal
		for _, path := range []string{"/v1/jobs/" + old, "/v1/jobs/" + old + "/result", "/v1/jobs"} {
			a := w.ask(t, get, path, w.ann, "")
			if a.status != 200 && a.code() != "job_not_over" || a.header.Get("X-Auth-Mode") != "expired-read" {
				t.Errorf("%s: %d %s %v", path, a.status, a.body, a.header)
			}
			if path == "/v1/jobs" && (!strings.Contains(a.body, old) || strings.Contains(a.body, late)) {
				t.Errorf("listed: %s", a.body)
			}
		}
	}
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{get, "/v1/whoami", 401, "token_idle_expired"}, {get, "/v1/tokens/self", 401, "token_idle_expired"}, {del, "/v1/tokens/self", 401, "token_idle_expired"},
		{post, "/v1/tokens/self/renew", 401, "token_idle_expired"}, {post, "/v1/tokens/self/rotate", 401, "token_idle_expired"},
		{get, "/v1/competitions", 401, "token_idle_expired"}, {get, "/authz/nginx", 401, ""},
		{get, "/v1/jobs/" + late, 404, "job_not_found"}, {post, "/v1/jobs/" + late + "/cancel", 404, "job_not_found"},
		{post, "/v1/jobs/" + old + "/cancel", 200, ""},
	} {
		if a := w.ask(t, c.method, c.path, w.ann, ""); a.status != c.status || a.body != "" && a.code() != c.code {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.status, a.body)
		}
	}
	lines := w.everyLine()
	marked := 0
	for _, l := range lines {
		if l.Mode == "expired-read" && l.Outcome == "allow" {
			marked++
		}
	}
	if marked != 6 { // a change is written down before it is judged
		t.Errorf("%d lines are marked", marked)
	}
	seen := 0
	for _, x := range o {
		if x.Mode == "expired-read" {
			seen++
		}
	}
	if seen < 6 {
		t.Errorf("metrics saw %d of them", seen)
	}
	w.clock.Add(day)
	if a := w.ask(t, get, "/v1/jobs/"+old, w.ann, ""); a.status != 401 || a.code() != "token_idle_expired" {
		t.Errorf("a day later: %d %s", a.status, a.body)
	}
}

// R1.4 is for what a clock has ended: for nothing that somebody has decided.
func TestExpiredReadIsForClocksOnly(t *testing.T) {
	w := build(t)
	id := string(w.job("ann", job.Running))
	for name, change := range map[string]func(*token.Token){
		"revoked":     func(k *token.Token) { *k, _ = k.Revoke(token.ByOwner, token.Keep, t0) },
		"suspended":   func(k *token.Token) { *k, _ = k.Suspend(token.ByOwner) },
		"quarantined": func(k *token.Token) { *k, _ = k.Quarantine() },
		"unproven":    func(k *token.Token) { *k = k.Unprove() },
		"rotated":     func(k *token.Token) { k.Successor, k.GraceUntil = "tok_next", t0.Add(14*day) },
	} {
		s := w.give("ann", change, "jobs:read", "jobs:cancel")
		w.clock.Add(14*day + time.Hour)
		if a := w.ask(t, get, "/v1/jobs/"+id, s, ""); a.status != 401 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		w.clock.Add(-14*day - time.Hour)
	}
}

// R1.1: a renewal says what it did, and why not more.
func TestRenew(t *testing.T) {
	w := build(t)
	w.clock.Add(10 * day)
	for name, c := range map[string]struct {
		change  func(*token.Token)
		renewed bool
		limit   string
	}{
		"sliding": {func(*token.Token) {}, true, ""},
		"fixed":   {func(k *token.Token) { k.Renewal, k.FixedEnd = token.Fixed, t0.Add(12*day) }, false, "fixed"},
		"maximum": {func(k *token.Token) { k.MaxLifetime = 12 * day }, false, "max_lifetime"},
		"session": {func(k *token.Token) {
			k.Kind, k.Renewal, k.FixedEnd, k.Lifetime, k.MaxLifetime = token.Session, token.Fixed, t0.Add(10*day+time.Hour), 12*time.Hour, 10*day+24*time.Hour
			k.Idle, k.Unused, k.RotateAfter = 0, 0, 0
		}, true, ""},
		"session at its maximum": {func(k *token.Token) {
			k.Kind, k.Renewal, k.FixedEnd, k.Lifetime, k.MaxLifetime = token.Session, token.Fixed, t0.Add(10*day+time.Hour), 12*time.Hour, 10*day+2*time.Hour
			k.Idle, k.Unused, k.RotateAfter = 0, 0, 0
		}, true, "max_lifetime"},
	} {
		s := w.give("ann", c.change, "tokens:self")
		k := w.tokens.tokens[s.Presented().Public.ID()]
		if k.Kind != token.Personal { // the secret says the kind as well
			other := token.NewSecret(k.Kind)
			p := other.Presented()
			k.ID, k.Digest = p.Public.ID(), p.Digest
			w.tokens.apply(authority.Decision{Tokens: []authority.TokenChange{{New: k}}})
			s = other
		}
		a := w.ask(t, post, "/v1/tokens/self/renew", s, "")
		limit, _ := a.json["limited_by"].(string)
		if a.status != 200 || a.json["renewed"] != c.renewed || limit != c.limit {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// R1.3: what may be asked for is said in the words in which it is asked for, also
// where a policy allows less than a day.
func TestShortLifetimes(t *testing.T) {
	w := build(t)
	w.ask(t, put, "/v1/policies/platform", w.root, `{"rules":{"max_lifetime":"12h"},"effective_at":"`+t0.Format(time.RFC3339)+`"}`)
	a := w.ask(t, post, "/v1/tokens", w.ann, `{"name":"x","expires_in":"13h","replace":"laptop"}`)
	if a.status != 400 || a.code() != "lifetime_out_of_range" || !strings.Contains(a.body, "between 15 minutes and 12h, says the policy of platform") || !strings.Contains(a.body, "--expires 12h") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// rotate_by warns in the header of every answer and in the token, and ends nothing;
// enforced, it does. What was rotated is not warned of.
func TestRotationDue(t *testing.T) {
	w := build(t)
	aged := func(k *token.Token) { k.IssuedAt, k.BornAt, k.RenewedAt = t0.Add(-91*day), t0.Add(-91*day), t0 }
	s := w.give("ann", aged, "tokens:self")
	due := t0.Add(-day).Format(time.RFC3339)
	a := w.ask(t, get, "/v1/tokens/self", s, "")
	if a.status != 200 || a.header.Get("X-Token-Rotate-By") != due || !strings.Contains(a.body, `"code":"rotation_due"`) {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	if a := w.ask(t, get, "/v1/whoami", w.bob, ""); a.header.Get("X-Token-Rotate-By") != "" {
		t.Errorf("not due: %v", a.header)
	}
	next := secretOf(t, w.ask(t, post, "/v1/tokens/self/rotate", s, ""), "secret")
	for _, x := range []token.Secret{s, next} {
		if a := w.ask(t, get, "/v1/tokens/self", x, ""); a.header.Get("X-Token-Rotate-By") != "" || strings.Contains(a.body, "rotation_due") {
			t.Errorf("after a rotation: %s %v", a.body, a.header)
		}
	}
	enforced := w.give("ann", func(k *token.Token) { aged(k); k.EnforceRotation = true }, "tokens:self")
	if a := w.ask(t, get, "/v1/whoami", enforced, ""); a.status != 401 || a.code() != "token_expired" {
		t.Errorf("enforced: %d %s", a.status, a.body)
	}
}

// R2.1: an ended predecessor that asks for another successor ends its family;
// one that asks again for a lost answer gets it, whatever that answer ended.
func TestReuseAndReplay(t *testing.T) {
	w := build(t)
	s := w.give("ann", func(k *token.Token) { k.Family = "fam_2" }, "tokens:self")
	rotate := func(key, body string) answer {
		return w.ask(t, post, "/v1/tokens/self/rotate", s, body, "Idempotency-Key", key)
	}
	first := rotate("k1", `{"compromised":true}`)
	again := rotate("k1", `{"compromised":true}`)
	if first.status != 201 || again.status != 201 || first.json["secret"] != again.json["secret"] || again.header.Get("X-Auth-Mode") != "replay" {
		t.Fatalf("%d %s\n%d %s", first.status, first.body, again.status, again.body)
	}
	if a := rotate("k1", `{}`); a.status != 422 {
		t.Errorf("another request under the key: %d %s", a.status, a.body)
	}
	if a := rotate("k2", `{"compromised":true}`); a.status != 401 || a.code() != "token_revoked" {
		t.Errorf("another key: %d %s", a.status, a.body)
	}
	w.clock.Add(10 * time.Minute)
	if a := rotate("k1", `{"compromised":true}`); a.status != 401 || a.code() != "token_revoked" {
		t.Errorf("after ten minutes: %d %s", a.status, a.body)
	}

	old := w.give("ann", func(k *token.Token) { k.Family = "fam_3" }, "tokens:self")
	next := secretOf(t, w.ask(t, post, "/v1/tokens/self/rotate", old, `{"grace":"1h"}`), "secret")
	w.clock.Add(time.Minute)
	if a := w.ask(t, get, "/v1/tokens/self", next, ""); strings.Contains(a.body, "predecessor_used") {
		t.Errorf("nobody uses it: %s", a.body)
	}
	w.ask(t, get, "/v1/whoami", old, "", "User-Agent", "cron/1")
	if a := w.ask(t, get, "/v1/tokens/self", next, ""); !strings.Contains(a.body, "predecessor_used") || !strings.Contains(a.body, "from 127.0.0.1 by cron/1") {
		t.Errorf("its owner is not told who uses it: %s", a.body)
	}
	w.clock.Add(time.Hour)
	for range 3 {
		if a := w.ask(t, get, "/v1/whoami", old, ""); a.status != 401 || a.code() != "token_rotated" {
			t.Errorf("elsewhere: %d %s", a.status, a.body)
		}
	}
	if n := strings.Count(w.log.String(), "a rotated token was presented after"); n != 1 {
		t.Errorf("%d alerts of one token in an hour", n)
	}
	if a := w.ask(t, get, "/v1/tokens/self", next, ""); strings.Contains(a.body, "predecessor_used") {
		t.Errorf("it is over: %s", a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", next, ""); a.status != 200 {
		t.Errorf("the successor after that: %d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/tokens/self/rotate", old, ""); a.status != 401 || a.code() != "token_reused" {
		t.Errorf("on rotate: %d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", next, ""); a.status != 401 || a.code() != "token_revoked" {
		t.Errorf("the family lives on: %d %s", a.status, a.body)
	}
}

// R1.3, R5.7: three levels, the strictest wins and is named; lowering one ends
// nobody at once, and shows first whom it will end.
func TestPolicies(t *testing.T) {
	w := build(t)
	w.ask(t, get, "/v1/whoami", w.ann, "") // used: its nearest clock is the idle one
	if a := w.ask(t, "PATCH", "/v1/users/ann", w.root, `{"groups":["interns"]}`); a.status != 200 || !strings.Contains(a.body, `"groups":["interns"]`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	w.ask(t, get, "/v1/whoami", w.bob, "")
	w.clock.Add(10 * day)
	w.ask(t, get, "/v1/whoami", w.ann, "")
	body := `{"rules":{"max_lifetime":"7d","max_per_user":1},"preview":true}`
	a := w.ask(t, put, "/v1/policies/interns", w.root, body)
	if a.status != 200 || a.json["total"] != 1.0 || !strings.Contains(a.body, `"user":"ann"`) || !strings.Contains(a.body, fmt.Sprintf(`"until":%q`, t0.Add(24*day).Format(time.RFC3339))) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/policies", w.eve, ""); a.status != 200 || len(a.json["items"].([]any)) != 0 {
		t.Errorf("a preview changed something: %d %s", a.status, a.body)
	}
	w.ask(t, put, "/v1/policies/interns", w.root, strings.Replace(body, `,"preview":true`, "", 1))
	a = w.ask(t, get, "/v1/tokens/self", w.ann, "")
	if a.json["effective_policy"] != "group:interns" || a.json["effective_reason"] != "max_expires_at" || a.header.Get("X-Token-Expires-Reason") != "max_expires_at" {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.clock.Add(14*day - time.Second)
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.status != 200 {
		t.Errorf("before the date: %d %s", a.status, a.body)
	}
	w.clock.Add(time.Second)
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.status != 401 || a.code() != "token_expired" {
		t.Errorf("at the date: %d %s", a.status, a.body)
	}
	if a := w.ask(t, put, "/v1/policies/platform", w.ann, `{"rules":{}}`); a.status != 401 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, bad := range []string{
		`{"rules":{"idle":"1m"}}`, `{"rules":{"rotation":"enforce"}}`, `{"rules":{"leaks":"ignore"}}`, `{"rules":{"lifetime":"9d","max_lifetime":"8d"}}`,
		`{"rules":{"idle":"soon"}}`, `{"rules":{"allowed_cidrs":["x"]}}`,
	} {
		if a := w.ask(t, put, "/v1/policies/platform", w.root, bad); a.status != 400 || a.json["fix"] == nil {
			t.Errorf("%s: %d %s", bad, a.status, a.body)
		}
	}
	if a := w.ask(t, put, "/v1/policies/No%20Group", w.root, `{"rules":{}}`); a.status != 400 || a.code() != "policy_unknown" {
		t.Errorf("%d %s", a.status, a.body)
	}
	// R2.2: networks of a level, observed first.
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{`{"rules":{"allowed_cidrs":["192.0.2.0/24"],"observe":true}}`, 200, ""},
		{`{"rules":{"allowed_cidrs":["192.0.2.0/24"]}}`, 409, "locks_you_out"},
	} {
		if a := w.ask(t, put, "/v1/policies/platform", w.root, c.body); a.status != c.status || c.code != "" && a.code() != c.code {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	w.everyLine()
	if a := w.ask(t, get, "/v1/whoami", w.bob, ""); a.status != 200 {
		t.Errorf("observed: %d %s", a.status, a.body)
	}
	if l := w.everyLine(); len(l) != 1 || l[0].Detail["outside"] != "platform" {
		t.Errorf("%+v", l)
	}
	w.ask(t, "PATCH", "/v1/users/bob", w.root, `{"groups":["guests"]}`)
	w.ask(t, put, "/v1/policies/guests", w.root, `{"rules":{"allowed_cidrs":["192.0.2.0/24","2001:db8::/32"]}}`)
	if a := w.ask(t, get, "/v1/whoami", w.bob, ""); a.status != 403 || a.code() != "ip_denied" {
		t.Errorf("refused: %d %s", a.status, a.body)
	}

	// R5.8: a group that has sessions only.
	w.ask(t, put, "/v1/policies/guests", w.root, `{"rules":{"sessions_only":true}}`)
	w.clock.Add(14 * day)
	if a := w.ask(t, get, "/v1/whoami", w.bob, ""); a.status != 401 || a.code() != "token_expired" {
		t.Errorf("sessions only: %d %s", a.status, a.body)
	}
}
