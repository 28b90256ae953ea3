package httpapi

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gradegate/internal/authority"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// put gives somebody a token of a kind.
func (w *world) put(kind token.Kind, owner principal.ID, change func(*token.Token)) token.Secret {
	s := token.NewSecret(kind)
	_, k := w.secret(owner, policy.UserScopes...)
	k.ID, k.Kind, k.Digest = s.Presented().Public.ID(), kind, s.Presented().Digest
	k.Family = token.Family("fam_" + k.ID)
	change(&k)
	w.tokens.mu.Lock()
	defer w.tokens.mu.Unlock()
	w.tokens.apply(authority.Decision{Tokens: []authority.TokenChange{{New: k}}})
	return s
}

// part is one request of a history that two services live through.
type part struct {
	wait         time.Duration
	token        int
	addr         string
	method, path string
}

func history(r *rand.Rand, tokens int) []part {
	all := []part{{token: 0, addr: "10.1.0.1", method: get, path: "/v1/whoami"}} // the trail begins with the tokens
	for range 60 {
		p := part{token: r.IntN(tokens), addr: []string{"10.1.0.1", "10.1.0.2", "10.2.0.1", "192.0.2.9", "2001:db8::1"}[r.IntN(5)], method: get}
		if r.IntN(3) == 0 {
			p.wait = time.Duration(r.IntN(72)) * time.Hour
		}
		if r.IntN(20) == 0 {
			p.wait = time.Duration(r.IntN(16)) * day
		}
		switch r.IntN(6) {
		case 0:
			p.path = "/v1/jobs"
		case 1:
			p.path = "/v1/competitions/iris"
		case 2:
			p.path = "/authz/forward"
		case 3: // announced, and then refused
			p.method, p.path = post, "/v1/jobs/job_00000000000000000000000000/cancel"
		default:
			p.path = "/v1/whoami"
		}
		all = append(all, p)
	}
	return all
}

// rules are random ones, as the API has them.
func rules(r *rand.Rand) (level, body string) {
	var parts []string
	maybe := func(format string, args ...any) {
		if r.IntN(3) == 0 {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	if r.IntN(2) == 0 {
		parts = append(parts, fmt.Sprintf(`"allowed_cidrs":%s,"observe":%v`, []string{`["10.0.0.0/8"]`, `["10.1.0.0/16","2001:db8::/32"]`}[r.IntN(2)], r.IntN(4) == 0))
	}
	maybe(`"max_lifetime":"%dd"`, 5+r.IntN(60))
	maybe(`"idle":"%dd"`, 2+r.IntN(20))
	maybe(`"service_idle":"%dd"`, 2+r.IntN(20))
	maybe(`"unused":"%dd"`, 1+r.IntN(10))
	maybe(`"rotate_after":"%dd","rotation":"enforce"`, 5+r.IntN(40))
	if r.IntN(8) == 0 {
		parts = append(parts, `"sessions_only":true`)
	}
	return []string{"platform", "interns"}[r.IntN(2)], "{" + strings.Join(parts, ",") + "}"
}

// lived is a service with some people's tokens, and what became of a history.
type lived struct {
	*world
	secrets []token.Secret
	answers []answer
}

func live(t *testing.T, r *rand.Rand) *lived {
	w := &lived{world: build(t, func(d *Deps) { d.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })}
	bob, _ := w.table.Principal("usr_bob")
	bob.Version, bob.Groups = 2, []string{"interns"}
	w.table.Apply(changeOf(bob))
	for i := range 6 {
		owner := principal.ID([]string{"usr_ann", "usr_bob"}[r.IntN(2)])
		kind := []token.Kind{token.Personal, token.Personal, token.Service}[r.IntN(3)]
		parent, fixed, idle := token.ID(""), r.IntN(4) == 0, 30
		if kind == token.Service {
			idle = 100
		}
		if i == 5 { // a child of the first
			k, _ := w.table.Token(w.secrets[0].Presented().Public.ID())
			owner, kind, parent = k.Owner, token.Session, k.ID
		}
		w.secrets = append(w.secrets, w.put(kind, owner, func(k *token.Token) {
			k.Parent, k.Idle = parent, time.Duration(idle)*day
			if fixed {
				k.Renewal, k.FixedEnd = token.Fixed, t0.Add(40*day)
			}
		}))
	}
	return w
}

func (w *lived) through(t *testing.T, all []part) {
	for _, p := range all {
		w.clock.Add(p.wait)
		w.answers = append(w.answers, w.ask(t, p.method, p.path, w.secrets[p.token], "", "X-Forwarded-For", p.addr))
	}
}

// B17: what a dry run says would be refused is what the service refuses once the
// policy is set: of each token, by two services that live through the same.
func TestDryRunIsWhatHappens(t *testing.T) {
	refused, readings, marked := 0, 0, 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 17))
		level, body := rules(r)
		kinds := r.Uint64()
		was, is := live(t, rand.New(rand.NewPCG(kinds, 1))), live(t, rand.New(rand.NewPCG(kinds, 1)))
		all := history(r, len(was.secrets))
		was.through(t, all)
		set := is.ask(t, put, "/v1/policies/"+level, is.root, `{"rules":`+body+`,"force":true,"effective_at":"`+t0.Format(time.RFC3339)+`"}`)
		if set.status != 200 {
			t.Fatalf("%s: %d %s", body, set.status, set.body)
		}
		is.through(t, all)

		admin := was.give("root", func(k *token.Token) { k.IssuedAt, k.BornAt = was.clock.Now(), was.clock.Now() }, "admin:*")
		dry := was.ask(t, post, "/v1/policies/"+level+"/dry-run", admin, `{"rules":`+body+`,"since":"`+t0.Format(time.RFC3339)+`","top":100}`)
		if dry.status != 200 || dry.json["complete"] != true {
			t.Fatalf("%s: %d %s", body, dry.status, dry.body)
		}
		want, late, allowed, seen := map[string]float64{}, 0, 0, 0
		for i, p := range all {
			a, b := was.answers[i], is.answers[i]
			if a.status >= 400 {
				continue
			}
			allowed++
			switch {
			case a.header.Get("X-Auth-Mode") != "normal":
				late++
			case b.status >= 400:
				want[string(was.secrets[p.token].Presented().Public.ID())]++
			case b.header.Get("X-Auth-Mode") != "normal":
				late++
			}
		}
		for _, e := range is.everyLine() {
			if e.Outcome == "allow" && e.Token != "" && e.Detail["outside"] != "" && e.Mode == "" && (e.Status != 0 && e.Status < 400) {
				seen++
			}
		}
		got := map[string]float64{}
		for _, x := range dry.json["tokens"].([]any) {
			m := x.(map[string]any)
			got[m["token_id"].(string)] = m["uses"].(float64)
		}
		unknown := 0
		for why, n := range dry.json["not_judged"].(map[string]any) {
			if unknown += int(n.(float64)); why != "expired_read" {
				t.Errorf("seed %d: %v not judged: %s", seed, n, why)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || unknown != late || int(dry.json["decisions"].(float64)) != allowed || int(dry.json["marked"].(float64)) != seen {
			t.Fatalf("seed %d, %s %s:\nsaid  %v, %d readings, %v decisions, %v marked\nwas   %v, %d readings, %d decisions, %d marked\n%s",
				seed, level, body, got, unknown, dry.json["decisions"], dry.json["marked"], want, late, allowed, seen, dry.body)
		}
		for _, n := range want {
			refused += int(n)
		}
		readings, marked = readings+late, marked+seen
	}
	if refused < 200 || readings == 0 || marked == 0 {
		t.Errorf("only %d refusals, %d readings and %d marks were compared", refused, readings, marked)
	}
}

// A dry run is for who reads policies, changes nothing, and says what it cannot tell.
func TestDryRun(t *testing.T) {
	w := build(t)
	w.ask(t, get, "/v1/whoami", w.bob, "")
	for name, c := range map[string]struct {
		s      token.Secret
		body   string
		status int
	}{
		"somebody": {w.bob, `{"rules":{}}`, 403}, "an auditor": {w.eve, `{"rules":{}}`, 200},
		"nonsense": {w.root, `{"rules":{"idle":"1s"}}`, 400}, "no time": {w.root, `{"rules":{},"since":"soon"}`, 400}, "too far": {w.root, `{"rules":{},"since":"900d"}`, 400},
	} {
		if a := w.ask(t, post, "/v1/policies/platform/dry-run", c.s, c.body); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := w.ask(t, post, "/v1/policies/platform/dry-run", w.root, `{"rules":{"allowed_cidrs":["192.0.2.0/24"],"lifetime":"9d","max_per_user":1,"leaks":"quarantine"}}`)
	if a.status != 200 || a.json["refused"] != 2.0 || fmt.Sprint(a.json["not_claimed"]) != "[lifetime max_per_user leaks]" || !strings.Contains(a.body, "Hello bob") || !strings.Contains(a.body, ": 1 use, the last on 24 Nov 2026") || !strings.Contains(a.body, "in force from 24 Nov 2026") ||
		!strings.Contains(a.body, `"rule":"networks"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/policies", w.root, ""); len(a.json["items"].([]any)) != 0 {
		t.Errorf("it changed something: %s", a.body)
	}
	w.api.readings <- struct{}{}
	w.api.readings <- struct{}{}
	if a := w.ask(t, post, "/v1/policies/platform/dry-run", w.root, `{"rules":{}}`); a.status != 429 || a.header.Get("Retry-After") == "" || a.header.Get("RateLimit") != "" {
		t.Errorf("a third reading: %d %s", a.status, a.body)
	}
}
