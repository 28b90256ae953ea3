package httpapi

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// B18: whatever tokens were used for, narrowed as advised they may still do all
// of it: the service itself is asked again.
func TestAdviceRefusesNothing(t *testing.T) {
	narrowed, asked := 0, 0
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 18))
		w := build(t, func(d *Deps) { d.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
		w.jobs.competitions["cats"] = w.jobs.competitions["iris"]
		jobs := map[string][]string{}
		for name := range people {
			for _, c := range []string{"iris", "cats"} {
				id := w.job(name, job.Running)
				w.jobs.mu.Lock()
				j := w.jobs.jobs[id]
				j.Competition = c
				w.jobs.jobs[id] = j
				w.jobs.mu.Unlock()
				jobs[name] = append(jobs[name], string(id))
			}
		}
		type holder struct {
			name   string
			secret token.Secret
		}
		var all []holder
		for i := range 7 {
			name := []string{"ann", "bob", "root", "eve"}[r.IntN(4)]
			parent := token.ID("")
			if i > 4 { // children
				name, parent = all[0].name, all[0].secret.Presented().Public.ID()
			}
			s := w.put(token.Personal, principal.ID("usr_"+name), func(k *token.Token) {
				k.Scopes, k.Parent = policy.RoleScopes(people[name]), parent
				switch r.IntN(4) {
				case 0:
					k.Competitions = []string{"cats", "iris"}
				case 1:
					k.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")}
				}
			})
			all = append(all, holder{name: name, secret: s})
		}
		type use struct {
			who                int
			method, path, body string
			addr               string
		}
		var allowed []use
		for range 40 {
			u := use{who: r.IntN(len(all)), method: get, addr: []string{"10.1.0.1", "10.1.0.77", "10.2.0.1", "2001:db8::1"}[r.IntN(4)]}
			h := all[u.who]
			own := jobs[h.name][r.IntN(2)]
			if r.IntN(5) == 0 {
				own = jobs["ann"][r.IntN(2)] // of somebody else, perhaps
			}
			contest := []string{"iris", "cats"}[r.IntN(2)]
			paths := []string{
				"/v1/whoami", "/v1/jobs", "/v1/jobs?competition=" + contest, "/v1/jobs/" + own, "/v1/jobs/" + own + "/logs", "/v1/competitions", "/v1/competitions/" + contest,
				"/v1/quota?competition=" + contest, "/v1/competitions/" + contest + "/leaderboard", "/v1/tokens", "/v1/tokens/self", "/v1/users", "/v1/audit/events",
				"/v1/policies", "/authz/forward?scope=jobs:submit&competition=" + contest, "/authz/nginx?scope=results:read", "/authz/forward",
			}
			u.path = paths[r.IntN(len(paths))]
			switch r.IntN(8) {
			case 0:
				u.method, u.path = post, "/v1/jobs/"+own+"/cancel"
			case 1:
				u.method, u.path, u.body = post, "/v1/verify", fmt.Sprintf(`{"token":%q,"action":"job.submit","competition":%q,"ip":%q}`, all[0].secret.Reveal(), contest, u.addr)
			}
			if a := w.ask(t, u.method, u.path, h.secret, u.body, "X-Forwarded-For", u.addr); a.status < 400 {
				allowed = append(allowed, u)
				if u.path == "/v1/verify" && a.json["decision"] != "allow" {
					allowed = allowed[:len(allowed)-1]
				}
			}
		}
		w.clock.Add(8 * 24 * time.Hour) // until then nothing is advised
		for _, h := range all {
			id := string(h.secret.Presented().Public.ID())
			session := w.give(h.name, nil, policy.RoleScopes(people[h.name])...)
			a := w.ask(t, get, "/v1/tokens/"+id+"/advice", session, "", "X-Forwarded-For", "10.9.0.1")
			var x api.Advice
			if err := json.Unmarshal([]byte(a.body), &x); err != nil || a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if x.Narrow == nil {
				continue
			}
			narrowed++
			body, _ := json.Marshal(x.Narrow)
			if a := w.ask(t, "PATCH", "/v1/tokens/"+id, session, string(body), "X-Forwarded-For", "10.9.0.1"); a.status != 200 {
				t.Fatalf("seed %d: it cannot be carried out: %s: %d %s", seed, body, a.status, a.body)
			}
		}
		for _, u := range allowed {
			asked++
			a := w.ask(t, u.method, u.path, all[u.who].secret, u.body, "X-Forwarded-For", u.addr)
			if a.status >= 400 || u.path == "/v1/verify" && a.json["decision"] != "allow" {
				k, _ := w.table.Token(all[u.who].secret.Presented().Public.ID())
				t.Fatalf("seed %d: %s was allowed to %s %s from %s, and as advised it is not: %d %s\n%v %v %v", seed, all[u.who].name, u.method, u.path, u.addr, a.status, a.body, k.Scopes, k.Competitions, k.CIDRs)
			}
		}
	}
	if narrowed < 40 || asked < 200 {
		t.Errorf("only %d tokens were narrowed, and %d uses asked again", narrowed, asked)
	}
}

// An advice names what was used, the command that fits, and how sure it is; of
// somebody else's tokens to auditors and administrators only.
func TestAdvice(t *testing.T) {
	w := build(t)
	s := w.put(token.Personal, "usr_ann", func(k *token.Token) { k.Name, k.Competitions = "ci", []string{"cats", "iris"} })
	id := string(s.Presented().Public.ID())
	for range 60 {
		w.ask(t, get, "/v1/competitions/iris", s, "")
		w.clock.Add(12 * time.Hour)
	}
	path := "/v1/tokens/" + id + "/advice"
	for name, c := range map[string]struct {
		s      token.Secret
		status int
	}{"owner": {w.give("ann", fresh(w), "tokens:self"), 200}, "auditor": {w.give("eve", fresh(w), "audit:read"), 200}, "somebody": {w.give("bob", fresh(w), "tokens:self"), 404}, "without the scope": {w.give("ann", fresh(w), "jobs:read"), 404}} {
		if a := w.ask(t, get, path, c.s, ""); a.status != c.status && (c.status != 404 || a.status != 403) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := w.ask(t, get, path, s, "")
	var x api.Advice
	if err := json.Unmarshal([]byte(a.body), &x); err != nil {
		t.Fatal(err)
	}
	if x.Command != "gradegate token narrow "+id+" --scope jobs:read --competition iris --cidr 127.0.0.0/24" || x.Confidence != "high" || x.Uses != 60 || x.Days != 30 ||
		!slices.Equal(x.UsedScopes, []string{"jobs:read"}) || !slices.Equal(x.UsedCompetitions, []string{"iris"}) || !slices.Equal(x.UsedNetworks, []string{"127.0.0.0/24"}) {
		t.Errorf("%s", a.body)
	}
	// One that made others is left alone, and one that nobody used is to be ended.
	w.ask(t, put, "/v1/tokens/by-name/ci", s, "")
	if a := w.ask(t, get, path, s, ""); a.json["narrow"] != nil || !strings.Contains(a.body, "it made other tokens") {
		t.Errorf("%s", a.body)
	}
	idle := w.put(token.Personal, "usr_ann", fresh(w))
	young := "/v1/tokens/" + string(idle.Presented().Public.ID()) + "/advice"
	w.clock.Add(7*24*time.Hour - time.Second)
	if a := w.ask(t, get, young, w.give("ann", fresh(w), "tokens:self"), ""); a.json["command"] != nil || a.json["narrow"] != nil || a.json["confidence"] != "none" ||
		a.json["enough_at"] != w.clock.Now().Add(time.Second).Format(time.RFC3339) || !strings.Contains(a.body, "too early to say: what the token is used for is known since") {
		t.Errorf("it is too early: %s", a.body)
	}
	w.clock.Add(time.Second)
	list := w.ask(t, get, "/v1/advice", w.give("ann", fresh(w), "tokens:self"), "")
	if list.status != 200 || !strings.Contains(list.body, "gradegate token revoke "+string(idle.Presented().Public.ID())) || strings.Contains(list.body, "usr_bob") {
		t.Errorf("%d %s", list.status, list.body)
	}
	if a := w.ask(t, get, "/v1/advice?all=true", w.give("bob", fresh(w), "tokens:self"), ""); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, get, "/v1/advice?all=true", w.give("eve", fresh(w), "audit:read"), ""); a.status != 200 || !strings.Contains(a.body, "usr_ann") || !strings.Contains(a.body, "usr_bob") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Whoever looks for their own in weeks of the trail leaves room for those who look
// after all of it, and the other way round.
func TestOwnAdviceLeavesRoom(t *testing.T) {
	w := build(t)
	ann := w.give("ann", nil, "tokens:self")
	path := "/v1/tokens/" + string(ann.Presented().Public.ID()) + "/advice"
	eve := w.give("eve", fresh(w), "audit:read")
	asks := func(what string, own, all int) {
		t.Helper()
		if a := w.ask(t, get, path, ann, ""); a.status != own {
			t.Errorf("%s: her own: %d %s", what, a.status, a.body)
		}
		if a := w.ask(t, get, "/v1/advice?all=true", eve, ""); a.status != all {
			t.Errorf("%s: an auditor: %d %s", what, a.status, a.body)
		}
	}
	asks("nobody reads", 200, 200)
	w.api.ownReadings <- struct{}{}
	asks("somebody reads their own", 429, 200)
	<-w.api.ownReadings
	for range cap(w.api.readings) {
		w.api.readings <- struct{}{}
	}
	asks("auditors read", 200, 429)
}

// fresh is a change that makes a token as of now.
func fresh(w *world) func(*token.Token) {
	return func(k *token.Token) {
		k.IssuedAt, k.BornAt = w.clock.Now(), w.clock.Now()
		k.Family = token.Family("fam_" + k.ID)
	}
}

// Every route that asks for a credential says what it needs, so that an advice
// takes nothing away that is in use.
func TestRoutesSayWhatTheyNeed(t *testing.T) {
	for _, r := range table() {
		_, known := judges[r.id]
		if !known && r.needs == nil && !handsOn[r.id] && !r.has(open) && !r.has(direct) {
			t.Errorf("%s says nothing of what it needs", r.id)
		}
	}
}

// B18: what was announced and then refused, because the token may not, is no use
// of a right: neither the scope nor the competition counts as used.
func TestAdviceCountsNoRefusal(t *testing.T) {
	w := build(t)
	s := w.put(token.Personal, "usr_ann", func(k *token.Token) { k.Competitions = []string{"cats"} })
	id := string(s.Presented().Public.ID())
	if a := w.ask(t, get, "/v1/jobs", s, ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for range 3 {
		if a := w.ask(t, "PATCH", "/v1/tokens/"+id, s, `{"competitions":["iris"]}`); a.status != 403 {
			t.Errorf("%d %s", a.status, a.body)
		}
		if a := w.ask(t, post, "/v1/tokens", s, `{"name":"x","competitions":["iris"]}`); a.status != 403 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	w.clock.Add(leastKnown)
	x := decodeAs[api.Advice](t, w.ask(t, get, "/v1/tokens/"+id+"/advice", w.give("ann", fresh(w), "tokens:self"), "").body)
	if x.Uses != 1 || !slices.Equal(x.UsedScopes, []string{"jobs:read", "results:read"}) || x.Narrow == nil {
		t.Errorf("%+v", x)
	}
}
