package httpapi

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/policy"
	"gradegate/internal/ratelimit"
	"gradegate/internal/token"
	"gradegate/internal/token/tokentest"
)

// proxied is a world behind a proxy, so that a test may come from anywhere.
func proxied(t *testing.T) *world {
	return build(t, func(d *Deps) { d.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
}

// from asks whoami from an address.
func (w *world) from(t *testing.T, addr string, s token.Secret) answer {
	t.Helper()
	return w.ask(t, get, "/v1/whoami", s, "", "X-Forwarded-For", addr)
}

// blocked fails from an address until it is blocked.
func (w *world) blocked(t *testing.T, addr string) {
	t.Helper()
	for range 300 {
		if w.from(t, addr, token.NewSecret(token.Personal)).code() == "address_blocked" {
			return
		}
	}
	t.Fatalf("%s is not blocked", addr)
}

// R8.5: who goes on failing is blocked, and then all of its failures are
// answered alike; whoever holds something valid is served from there.
func TestAutomaticBlock(t *testing.T) {
	w := proxied(t)
	const addr = "203.0.113.9"
	w.blocked(t, addr)
	began := 0
	for _, l := range w.everyLine() {
		if l.Action == audit.BlockAdd {
			began++
			if l.Actor != "system" || l.Target != addr || l.Detail["until"] != t0.Add(15*time.Minute).Format(time.RFC3339) {
				t.Errorf("%+v", l)
			}
		}
	}
	if began != 1 || !strings.Contains(w.log.String(), "gradegate block remove "+addr) {
		t.Errorf("%d lines say that it began", began)
	}
	dead := w.give("ann", func(k *token.Token) { k.Standing = token.Revoked })
	invite := token.NewSecret(token.Invite).Reveal()
	for name, a := range map[string]answer{
		"a wrong secret": w.from(t, addr, token.NewSecret(token.Personal)), "a revoked token": w.from(t, addr, dead),
		"a malformed token": w.ask(t, get, "/v1/whoami", token.Secret{}, "", "X-Forwarded-For", addr, "Authorization", "Bearer junk"),
		"a wrong invite":    w.ask(t, post, "/v1/invites/redeem", token.Secret{}, `{"code":"`+invite+`"}`, "X-Forwarded-For", addr),
		"a proxy's visit":   w.ask(t, get, "/authz/forward", dead, "", "X-Forwarded-For", addr),
	} {
		if a.status != 429 || a.code() != "address_blocked" || a.header.Get("Retry-After") != "900" || a.header.Get("WWW-Authenticate") != "" ||
			fmt.Sprint(a.json["violated-policies"]) != "[address-block]" || a.json["type"] != "https://iana.org/assignments/http-problem-types#abnormal-usage-detected" {
			t.Errorf("%s: %d %s %v", name, a.status, a.body, a.header)
		}
	}
	if a := w.ask(t, get, "/authz/nginx", dead, "", "X-Forwarded-For", addr); a.status != 403 || a.header.Get("X-Auth-Reason") != "address_blocked" || a.header.Get("X-Auth-Status") != "429" {
		t.Errorf("nginx: %d %v", a.status, a.header)
	}
	for range 10 {
		if a := w.from(t, addr, w.ann); a.status != 200 {
			t.Errorf("a valid token: %d %s", a.status, a.body)
		}
	}
	if a := w.ask(t, get, "/authz/nginx", w.ann, "", "X-Forwarded-For", addr); a.status != 200 {
		t.Errorf("a valid token by nginx: %d", a.status)
	}
	if a := w.from(t, addr, token.Secret{}); a.status != 401 || a.code() != "token_missing" {
		t.Errorf("no credential is no failure: %d %s", a.status, a.body)
	}
	if a := w.from(t, "203.0.113.10", dead); a.status != 401 {
		t.Errorf("the neighbour: %d %s", a.status, a.body)
	}
	w.clock.Add(15 * time.Minute)
	if a := w.from(t, addr, dead); a.status != 401 || a.code() != "token_revoked" {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// A budget that is spent, from loopback or by a proxy that names nobody, blocks
// nobody.
func TestNotBlocked(t *testing.T) {
	w := proxied(t)
	for range 500 {
		w.from(t, "127.0.0.7", token.NewSecret(token.Personal))
		w.from(t, "nonsense", token.NewSecret(token.Personal))
	}
	if got := w.api.Blocks.InForce(w.clock.Now()); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// R8.5: manual blocks: made, seen, replaced, and removed with one word; nobody
// shuts himself out by mistake.
func TestManualBlocks(t *testing.T) {
	w := proxied(t)
	const me = "198.51.100.1"
	do := func(method, path, body string) answer {
		t.Helper()
		return w.ask(t, method, path, w.root, body, "X-Forwarded-For", me)
	}
	list := func() api.Blocks {
		t.Helper()
		return decodeAs[api.Blocks](t, do(get, "/v1/blocks", "").body)
	}
	if a := do(post, "/v1/blocks", `{"address":"203.0.113.77/24","note":"scanner","expires_in":"7d"}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := w.from(t, "203.0.113.9", token.NewSecret(token.Personal)); a.code() != "address_blocked" || a.header.Get("Retry-After") != "86400" {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	want := api.Block{Address: "203.0.113.0/24", Note: "scanner", CreatedBy: "usr_root", Creator: "root", Since: t0, Until: t0.Add(7 * day), Failures: 1, LastFailure: &t0}
	if got := list(); len(got.Items) != 1 || !sameBlock(got.Items[0], want) {
		t.Errorf("%+v", got.Items)
	}
	if got := list().Offenders; len(got) != 1 || got[0].Address != "203.0.113.9" || got[0].Failures != 1 {
		t.Errorf("%+v", got)
	}
	if a := do(post, "/v1/blocks", `{"address":"203.0.113.0/24"}`); a.status != 201 || len(list().Items) != 1 || list().Items[0].Until != t0.Add(day) {
		t.Errorf("again: %s %+v", a.body, list())
	}
	w.blocked(t, "203.0.113.200")
	for _, c := range []struct{ path, code, removed string }{
		{"203.0.113.200", "block_wider", ""}, {"203.0.113.0/24", "", "203.0.113.0/24"}, {"203.0.113.0/24", "", ""}, {"nonsense", "address_invalid", ""},
	} {
		a := do(del, "/v1/blocks/"+c.path, "")
		if a.status == 200 == (c.code != "") || a.code() != c.code {
			t.Errorf("%s: %d %s", c.path, a.status, a.body)
		}
		var got []string
		for _, b := range decodeAs[api.Unblocked](t, a.body).Removed {
			got = append(got, b.Address)
		}
		if strings.Join(got, " ") != c.removed {
			t.Errorf("%s: %v, want %s", c.path, got, c.removed)
		}
	}
	if a := w.from(t, "203.0.113.9", token.NewSecret(token.Personal)); a.status != 401 {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
	w.blocked(t, "2001:db8::7")
	if a := do(del, "/v1/blocks/2001:db8::7", ""); a.status != 200 || !strings.Contains(a.body, `"automatic":true`) || len(list().Items) != 0 {
		t.Errorf("unblocked: %s %+v", a.body, list())
	}
	for body, code := range map[string]string{
		`{"address":"198.51.100.0/24"}`: "blocks_you", `{"address":"x"}`: "address_invalid", `{"address":"192.0.2.1","expires_in":"400d"}`: "block_span",
		`{"address":"192.0.2.1","expires_in":"1s"}`: "block_span", `{"address":"192.0.2.1","expires_in":"soon"}`: "duration_invalid",
	} {
		if a := do(post, "/v1/blocks", body); a.code() != code || a.json["fix"] == nil {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if a := do(post, "/v1/blocks", `{"address":"198.51.100.0/24","force":true}`); a.status != 201 {
		t.Errorf("by force: %s", a.body)
	}
	if a := do(get, "/v1/whoami", ""); a.status != 200 {
		t.Errorf("and who did it is shut out: %d", a.status)
	}
	w.tokens.mu.Lock()
	defer w.tokens.mu.Unlock()
	var acts []string
	for _, e := range w.tokens.events {
		acts = append(acts, string(e.Action)+" "+e.Target+" "+e.Actor)
	}
	if got := strings.Join(acts, ","); got != "block.add 203.0.113.0/24 usr_root,block.add 203.0.113.0/24 usr_root,block.remove 203.0.113.0/24 usr_root,"+
		"block.remove 203.0.113.0/24 usr_root,block.remove 2001:db8::7 usr_root,block.add 198.51.100.0/24 usr_root" {
		t.Error(got)
	}
}

func decodeAs[T any](t *testing.T, body string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return v
}

func sameBlock(a, b api.Block) bool {
	same := a.LastFailure != nil && b.LastFailure != nil && a.LastFailure.Equal(*b.LastFailure)
	a.LastFailure, b.LastFailure = nil, nil
	return same && a == b
}

// R8.3: who guesses at a known id is slowed down for itself; the owner is served,
// and told; and nobody learns whether the id exists.
func TestGuessing(t *testing.T) {
	w := proxied(t)
	try := func(id token.ID, addr string) (codes string) {
		for range 12 {
			a := w.from(t, addr, tokentest.Guess(id))
			codes += a.code() + " "
			if a.status == 429 && (fmt.Sprint(a.json["violated-policies"]) != "[guesses]" || a.header.Get("RateLimit") != `"guesses";r=0;t=60`) {
				t.Errorf("%s %v", a.body, a.header)
			}
		}
		return codes
	}
	want := strings.Repeat("token_unknown ", 10) + strings.Repeat("too_many_failures ", 2)
	for _, addr := range []string{"203.0.113.1", "203.0.113.2", "2001:db8::1"} {
		if got := try(w.annToken.ID, addr); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
	nobodys := token.NewSecret(token.Personal).Presented().Public.ID()
	if got := try(nobodys, "203.0.113.3"); got != want {
		t.Errorf("an id that is not there: %s", got)
	}
	_, _, refused := w.trail.take()
	marked := 0
	for _, l := range refused {
		if l.Detail["guessed"] == string(w.annToken.ID) && l.Owner == "usr_ann" && l.Actor == "" {
			marked++
		}
	}
	if marked != 36 || len(refused) != 48 {
		t.Errorf("%d of %d lines say at whose token", marked, len(refused))
	}
	w.ask(t, post, "/v1/verify", w.root, `{"token":"`+tokentest.Guess(w.annToken.ID).Reveal()+`","ip":"203.0.113.4"}`)
	a := w.ask(t, get, "/v1/tokens/self", w.ann, "")
	got := decodeAs[api.Token](t, a.body).Guesses
	if a.header.Get("X-Token-Guesses") != "37" || got == nil || got.Count != 37 || got.Sources != 4 || !got.Last.Equal(t0) {
		t.Errorf("%s %+v", a.header.Get("X-Token-Guesses"), got)
	}
	if a := w.ask(t, get, "/v1/whoami", w.bob, ""); a.header.Get("X-Token-Guesses") != "" {
		t.Errorf("bob is told of guesses at ann's token")
	}
	w.clock.Add(guessNews)
	if a := w.ask(t, get, "/v1/whoami", w.ann, ""); a.header.Get("X-Token-Guesses") != "" || a.status != 200 {
		t.Errorf("a day later: %v", a.header)
	}
}

// The owner's own mistakes are no guesses: the right secret of a token that is
// over, and one that was cut off.
func TestNoGuesses(t *testing.T) {
	w := build(t)
	dead := w.give("ann", func(k *token.Token) { k.Standing = token.Revoked })
	w.ask(t, get, "/v1/whoami", dead, "")
	w.ask(t, get, "/v1/whoami", token.Secret{}, "", "Authorization", "Bearer "+w.ann.Reveal()[:60])
	if n := w.table.GuessedTokens(); n != 0 {
		t.Errorf("%d tokens count as guessed at", n)
	}
}

// Done when: wrong secrets with a victim's id, from many addresses; the victim
// sees no failure. test/bench measures how long it takes.
func TestVictimSeesNothing(t *testing.T) {
	w := proxied(t)
	for i := range 1000 {
		addr := fmt.Sprintf("203.0.113.%d", i%5) // few, so that all budgets are spent and all of them are blocked
		if a := w.from(t, addr, tokentest.Guess(w.annToken.ID)); a.status != 401 && a.status != 429 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		w.clock.Add(20 * time.Millisecond)
		if i%5 > 0 {
			continue
		}
		if a := w.from(t, addr, w.ann); a.status != 200 {
			t.Fatalf("the victim: %d %s", a.status, a.body)
		}
	}
}

// rateField is a RateLimit header: a list with one string and two integers.
var rateField = regexp.MustCompile(`^"([a-z-]+)";([qr])=(\d+);([wt])=(\d+)$`)

// R2.4: each class has its limits by token, by user and by address; what is
// spent of one says nothing of another, and least of all of canceling.
func TestLimits(t *testing.T) {
	rates := DefaultRates()
	for c := range rates {
		rates[c] = ratelimit.Limit{Events: 60, Per: time.Minute, Burst: 4}
	}
	w := build(t, func(d *Deps) { d.Limits = NewLimits(rates, 1000) })
	spend := func(s token.Secret, method, path, by string, n int) {
		t.Helper()
		for i := range n + 1 {
			a := w.ask(t, method, path, s, "")
			p, r := rateField.FindStringSubmatch(a.header.Get("RateLimit-Policy")), rateField.FindStringSubmatch(a.header.Get("RateLimit"))
			if p == nil || r == nil || p[1] != r[1] || p[2]+p[4] != "qw" || r[2]+r[4] != "rt" || p[5] != "60" {
				t.Fatalf("%s: %v", path, a.header)
			}
			if i < n {
				if a.status == 429 {
					t.Fatalf("%s: refused after %d of %d: %s", path, i, n, a.body)
				}
				continue
			}
			retry, _ := strconv.Atoi(a.header.Get("Retry-After"))
			if a.status != 429 || a.code() != "rate_limited" || retry < 1 || a.json["by"] != by || fmt.Sprint(a.json["violated-policies"]) != "["+r[1]+"]" ||
				!strings.HasPrefix(r[1], by+"-") || r[3] != "0" || a.json["type"] != "https://iana.org/assignments/http-problem-types#quota-exceeded" {
				t.Errorf("%s: %d %s %v", path, a.status, a.body, a.header)
			}
		}
	}
	id := string(w.job("ann", "running"))
	classes := map[string]string{get: "/v1/whoami", post: "/v1/competitions/iris/jobs", patch: "/v1/tokens/self"}
	for method, path := range classes { // reading, submitting, changing
		spend(w.ann, method, path, "token", 4)
	}
	if a := w.ask(t, post, "/v1/jobs/"+id+"/cancel", w.ann, ""); a.status != 200 {
		t.Errorf("cancel: %d %s", a.status, a.body)
	}
	// All of a user's tokens together have three times as much: two more have all
	// of theirs, and a fourth has nothing left.
	second, third, fourth := w.give("ann", nil, policy.UserScopes...), w.give("ann", nil, policy.UserScopes...), w.give("ann", nil, policy.UserScopes...)
	for method, path := range classes {
		spend(second, method, path, "token", 4)
		spend(third, method, path, "token", 4)
		spend(fourth, method, path, "user", 0)
	}
	for range 3 {
		if a := w.ask(t, post, "/v1/jobs/"+id+"/cancel", w.ann, ""); a.status != 200 {
			t.Errorf("cancel, with everything else of the user spent: %d %s", a.status, a.body)
		}
	}
	spend(w.ann, post, "/v1/jobs/"+id+"/cancel", "token", 0)
	if a := w.ask(t, post, "/v1/jobs/"+id+"/cancel", fourth, ""); a.status != 200 {
		t.Errorf("cancel with another token: %d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/whoami", w.bob, ""); a.status != 200 {
		t.Errorf("somebody else: %d %s", a.status, a.body)
	}
	// Without a credential it is the address that counts; probes never do.
	spend(token.Secret{}, get, "/openapi.json", "address", 4)
	spend(token.Secret{}, post, "/v1/leaks", "address", 4)
	for range 20 {
		if a := w.ask(t, get, "/readyz", token.Secret{}, ""); a.status != 200 {
			t.Fatalf("a probe: %d", a.status)
		}
	}
	if a := w.ask(t, get, "/v1/whoami", w.bob, ""); a.status != 200 {
		t.Errorf("a token behind that address: %d %s", a.status, a.body)
	}
}
