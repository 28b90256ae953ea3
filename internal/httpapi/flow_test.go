package httpapi

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/token"
)

func secretOf(t testing.TB, a answer, member string) token.Secret {
	t.Helper()
	text, _ := a.json[member].(string)
	s, err := token.ReadSecret(text)
	if err != nil {
		t.Fatalf("%d %s: no %s", a.status, a.body, member)
	}
	return s
}

// TestLifeOfAToken: make, use, rotate with a lost answer, revoke itself.
func TestLifeOfAToken(t *testing.T) {
	w := build(t)
	boss := w.give("bob", func(k *token.Token) { k.Kind, k.Name = token.Personal, "old" }, "tokens:self", "jobs:read")
	if a := w.ask(t, post, "/v1/tokens", boss, `{"name":"new"}`); a.status != 409 || a.code() != "token_limit" || a.json["choices"] == nil {
		t.Fatalf("%d %s", a.status, a.body)
	}
	body := `{"name":"new","scopes":["jobs:read","tokens:self"],"expires_in":"30d","allowed_cidrs":["::ffff:127.0.0.1","127.0.0.0/8"],"replace":"old"}`
	w.trail.take()
	w.tokens.tokens = map[token.ID]token.Token{boss.Presented().Public.ID(): w.tokens.tokens[boss.Presented().Public.ID()]}
	a := w.ask(t, post, "/v1/tokens", boss, body, "Idempotency-Key", "k1")
	if a.status != 201 || !strings.Contains(a.body, `"127.0.0.1/32","127.0.0.0/8"`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s := secretOf(t, a, "secret")
	lines, durable, _ := w.trail.take()
	if len(lines) != 1 || !durable[0] || lines[0].Status != 0 || lines[0].Outcome != audit.Allow {
		t.Errorf("%+v %v", lines, durable)
	}
	if a := w.ask(t, get, "/v1/whoami", s, ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	// The answer to a rotation was lost: the same key gives the same secret again.
	first := w.ask(t, post, "/v1/tokens/self/rotate", s, `{"grace":"1h"}`, "Idempotency-Key", "k2")
	again := w.ask(t, post, "/v1/tokens/self/rotate", s, `{"grace":"1h"}`, "Idempotency-Key", "k2")
	if first.status != 201 || again.json["replayed"] != true || first.json["secret"] != again.json["secret"] || first.json["predecessor"] == nil {
		t.Errorf("%d %s\n%d %s", first.status, first.body, again.status, again.body)
	}
	if a := w.ask(t, post, "/v1/tokens/self/rotate", s, `{"grace":"2h"}`, "Idempotency-Key", "k2"); a.status != 422 || a.code() != "idempotency_key_reused" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/tokens/self/rotate", s, ""); a.status != 409 || a.code() != "already_rotated" || a.json["successor"] == nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	next := secretOf(t, first, "secret")
	if a := w.ask(t, del, "/v1/tokens/self?jobs=cancel", next, `{"reason":"done"}`); a.status != 200 || a.json["token"].(map[string]any)["state"] != "revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", next, ""); a.status != 401 || a.code() != "token_revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestPeople: invite, redeem once, off-board.
func TestPeople(t *testing.T) {
	w := build(t)
	a := w.ask(t, post, "/v1/users/carol/invite", w.root, `{"email":"carol@example.org"}`)
	if a.status != 201 || !strings.HasPrefix(a.json["code"].(string), "gginv_") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	code := secretOf(t, a, "code")
	redeem := fmt.Sprintf(`{"code":%q,"name":"laptop"}`, code.Reveal())
	a = w.ask(t, post, "/v1/invites/redeem", token.Secret{}, redeem, "Idempotency-Key", "k")
	if a.status != 201 || a.json["user"].(map[string]any)["name"] != "carol" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	session := secretOf(t, a, "secret")
	if b := w.ask(t, post, "/v1/invites/redeem", token.Secret{}, redeem, "Idempotency-Key", "k"); b.json["secret"] != a.json["secret"] {
		t.Errorf("a lost answer locks out: %d %s", b.status, b.body)
	}
	w.trail.take()
	for _, bad := range []string{redeem, `{"code":"gginv_short"}`} {
		a := w.ask(t, post, "/v1/invites/redeem", token.Secret{}, bad)
		if a.status != 401 || strings.Contains(a.body, "gginv_short") || strings.Contains(a.body, code.Reveal()) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if _, _, refused := w.trail.take(); len(refused) != 2 || refused[0].Reason != "invite_invalid" {
		t.Errorf("%+v", refused)
	}
	if a := w.ask(t, get, "/v1/users/carol/tokens?limit=1", w.root, ""); a.status != 200 || len(a.json["items"].([]any)) != 1 || a.json["next_cursor"] == nil {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/users/carol/offboard", w.root, `{"jobs":"cancel"}`); a.status != 200 || a.json["status"] != "deprovisioned" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", session, ""); a.status != 401 {
		t.Errorf("%d %s", a.status, a.body)
	}
	names := []string{}
	cursor := ""
	for {
		a := w.ask(t, get, "/v1/users?limit=2&cursor="+cursor, w.root, "")
		for _, u := range a.json["items"].([]any) {
			names = append(names, u.(map[string]any)["name"].(string))
		}
		if cursor, _ = a.json["next_cursor"].(string); cursor == "" {
			break
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"ann", "bob", "carol", "eve", "root"}) {
		t.Errorf("%v", names)
	}
}

// TestRedeemBudget: guessing codes spends the address's budget, and the right
// code still works (R8.2).
func TestRedeemBudget(t *testing.T) {
	w := build(t)
	code := secretOf(t, w.ask(t, post, "/v1/users/carol/invite", w.root, ""), "code")
	last := answer{}
	for range 101 {
		last = w.ask(t, post, "/v1/invites/redeem", token.Secret{}, fmt.Sprintf(`{"code":%q}`, token.NewSecret(token.Invite).Reveal()))
	}
	if last.status != 429 {
		t.Errorf("%d %s", last.status, last.body)
	}
	if a := w.ask(t, post, "/v1/invites/redeem", token.Secret{}, fmt.Sprintf(`{"code":%q}`, code.Reveal())); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestLeaks: possession is the proof, and the answer tells nothing (R2.7).
func TestLeaks(t *testing.T) {
	w := build(t)
	real := w.ask(t, post, "/v1/leaks", token.Secret{}, fmt.Sprintf(`{"tokens":[%q]}`, w.ann.Reveal()))
	fake := w.ask(t, post, "/v1/leaks", token.Secret{}, fmt.Sprintf(`{"tokens":[%q]}`, token.NewSecret(token.Personal).Reveal()))
	if real.status != 202 || real.body != fake.body {
		t.Errorf("%d %s %s", real.status, real.body, fake.body)
	}
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.code() != "token_revoked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	many := `{"tokens":[` + strings.TrimSuffix(strings.Repeat(`"x",`, 1001), ",") + `]}`
	if a := w.ask(t, post, "/v1/leaks", token.Secret{}, many); a.status != 400 || a.code() != "leaks_out_of_range" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, post, "/v1/leaks", token.Secret{}, strings.Replace(many, `"x",`, "", 1)); a.status != 202 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for range 60 {
		real = w.ask(t, post, "/v1/leaks", token.Secret{}, `{"tokens":["x"]}`)
	}
	if real.status != 429 {
		t.Errorf("%d", real.status)
	}
}

func TestVerify(t *testing.T) {
	w := build(t)
	service := w.give("root", nil, "tokens:verify")
	for _, c := range []struct {
		body   string
		status int
		reason string
	}{
		{fmt.Sprintf(`{"token":%q}`, w.ann.Reveal()), 200, "ok"},
		{fmt.Sprintf(`{"token":%q,"action":"jobs:submit","competition":"iris","ip":"192.0.2.7"}`, w.ann.Reveal()), 200, "ok"},
		{fmt.Sprintf(`{"token":%q,"action":"job.submit"}`, w.ann.Reveal()), 200, "ok"},
		{fmt.Sprintf(`{"token":%q,"action":"admin:*"}`, w.ann.Reveal()), 200, "scope_missing"},
		{fmt.Sprintf(`{"token":%q}`, token.NewSecret(token.Personal).Reveal()), 200, "token_unknown"},
		{`{"token":"junk"}`, 200, "token_malformed"},
		{`{"token":"junk","action":"fly"}`, 400, ""}, {`{"token":"junk","ip":"10.1"}`, 400, ""}, {`{}`, 400, ""},
	} {
		a := w.ask(t, post, "/v1/verify", service, c.body)
		if reason, _ := a.json["reason"].(string); a.status != c.status || reason != c.reason || (reason == "ok") != (a.json["active"] == true) {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	if u := w.table.LastUse(w.annToken.ID); u.Count != 3 {
		t.Errorf("uses: %d", u.Count)
	}
	lines, _, _ := w.trail.take()
	mine := 0
	for _, l := range lines {
		if l.Actor == "usr_ann" && l.Detail["for"] == "usr_root" {
			mine++
		}
	}
	if mine != 4 {
		t.Errorf("%d lines about ann's token", mine)
	}
	if a := w.ask(t, post, "/v1/verify", w.ann, `{"token":"junk"}`); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
}
