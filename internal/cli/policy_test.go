package cli

import (
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/token"
)

// TestPolicyList shows what holds where nobody says anything, each level, and
// what is to come.
func TestPolicyList(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	coming := birth.Add(14 * 24 * time.Hour)
	interns := api.Policy{Name: "group:interns", Rules: api.Rules{Idle: "7d", SessionsOnly: true}, Since: &birth, Coming: &api.Rules{MaxPerUser: 2, AllowedCIDRs: []string{"10.0.0.0/8"}, Observe: true}, ComingAt: &coming}
	f.on("GET /v1/policies", api.Policies{Defaults: api.Rules{Lifetime: "90d", Leaks: "revoke"}, Items: []api.Policy{interns}}).
		on("GET /v1/policies/interns", interns).on("GET /v1/policies/platform", api.Policy{Name: "platform"})
	got := m.run("", "policy", "list", "--url", f.url)
	for _, row := range []string{
		"default        lifetime 90d, leaks revoke ", "group:interns  idle 7d, sessions-only ", "then         max-per-user 2, cidr 10.0.0.0/8, observe ",
	} {
		got.want(t, 0, row, "")
	}
	m.run("", "policy", "list", "-o", "name", "--url", f.url).want(t, 0, "group:interns\n", "")
	m.run("", "policy", "show", "interns", "--url", f.url).want(t, 0, "from "+when(&coming)+"  max-per-user 2", "")
	m.run("", "policy", "show", "platform", "--url", f.url).want(t, 0, "demands  nothing\n", "")
}

// TestPolicySetChangesWhatIsNamed and keeps everything else: also what is to
// come, and the defaults where nobody set anything.
func TestPolicySetChangesWhatIsNamed(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"interns --max-lifetime 90d":                                      `{"rules":{"max_lifetime":"90d","idle":"7d","rotate_after":"30d","rotation":"enforce","allowed_cidrs":["10.0.0.0/8"]}}`,
		"interns --rotate-after none":                                     `{"rules":{"idle":"7d","allowed_cidrs":["10.0.0.0/8"]}}`,
		"interns --cidr none --idle none":                                 `{"rules":{"rotate_after":"30d","rotation":"enforce"}}`,
		"interns --sessions-only --observe":                               `{"rules":{"idle":"7d","rotate_after":"30d","rotation":"enforce","sessions_only":true,"allowed_cidrs":["10.0.0.0/8"],"observe":true}}`,
		"coming --max-per-user 3":                                         `{"rules":{"unused":"3d","max_per_user":3}}`,
		"platform --max-per-user 3":                                       `{"rules":{"max_per_user":3}}`,
		"platform --leaks quarantine --from 2027-01-31T18:00:00Z --force": `{"rules":{"leaks":"quarantine"},"effective_at":"2027-01-31T18:00:00Z","force":true}`,
		"platform --idle 7d --preview":                                    `{"rules":{"idle":"7d"},"preview":true}`,
	} {
		f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
		rules := api.Rules{Idle: "7d", RotateAfter: "30d", Rotation: "enforce", AllowedCIDRs: []string{"10.0.0.0/8"}}
		f.on("GET /v1/policies/interns", api.Policy{Name: "group:interns", Rules: rules, ETag: `"3"`}).
			on("GET /v1/policies/coming", api.Policy{Name: "group:coming", Rules: rules, Coming: &api.Rules{Unused: "3d"}, ComingAt: &birth, ETag: `"3"`}).
			on("GET /v1/policies/platform", api.Policy{Name: "platform", Rules: api.Rules{Lifetime: "90d", MaxLifetime: "365d"}})
		name, _, _ := strings.Cut(line, " ")
		f.on("PUT /v1/policies/"+name, api.PolicySet{Policy: api.Policy{Name: name}})
		m.run("", append([]string{"policy", "set", "--url", f.url}, strings.Fields(line)...)...).want(t, 0, "ends earlier  0 tokens\n", "")
		if got := f.last(); got.body != want || got.route != "PUT /v1/policies/"+name {
			t.Errorf("%s: %s %s\nwant %s", line, got.route, got.body, want)
		}
	}
}

// TestPolicySetSaysWhomItTouches, and that a preview has changed nothing.
func TestPolicySetSaysWhomItTouches(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	later := birth.Add(14 * 24 * time.Hour)
	out := api.PolicySet{
		Policy: api.Policy{Name: "group:interns", Coming: &api.Rules{Idle: "7d"}, ComingAt: &later}, Total: 3,
		Affected: []api.Affected{{TokenID: "tok_1", Name: "laptop", User: "ann", Ends: &later, Until: birth}},
	}
	f.on("GET /v1/policies/interns", api.Policy{Name: "group:interns"}).on("PUT /v1/policies/interns", out)
	got := m.run("", "policy", "set", "interns", "--idle", "7d", "--url", f.url)
	got.want(t, 0, "laptop of ann ", "It comes into force on "+when(&later)+". To have it at once: --from ")
	got.want(t, 0, when(&birth)+", was "+when(&later), "")
	got.want(t, 0, "  and                      2 more\n", "")
	out.Preview = true
	f.on("PUT /v1/policies/interns", out)
	m.run("", "policy", "set", "interns", "--idle", "7d", "--preview", "--url", f.url).want(t, 0, "3 tokens", "Nothing was changed.\n")
	m.run("", "policy", "set", "interns", "--from", "soon", "--url", f.url).want(t, 2, "", `wants an instant, and "soon" is none.`)
}

// TestUserSetChangesWhatIsNamed, and an empty list of groups is one.
func TestUserSetChangesWhatIsNamed(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	u := ann()
	u.Groups = []string{"interns", "night"}
	f.on("PATCH /v1/users/ann", u).on("GET /v1/users/ann", u)
	for line, want := range map[string]string{
		"--group interns --group night": `{"groups":["interns","night"]}`,
		"--group none":                  `{"groups":[]}`,
		"--role auditor":                `{"role":"auditor"}`,
		"--email a@example.org":         `{"email":"a@example.org"}`,
	} {
		m.run("", append([]string{"user", "set", "ann", "--url", f.url}, strings.Fields(line)...)...).want(t, 0, "interns night", "")
		if got := f.last().body; got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
	n := len(f.requests())
	m.run("", "user", "set", "..", "--role", "user", "--url", f.url).want(t, 2, "", "NAME|ID is")
	if len(f.requests()) != n {
		t.Error("it was sent")
	}
}

// TestPeopleComeAndGo: whoever is made is told how they come in, and nobody is
// off-boarded by a slip.
func TestPeopleComeAndGo(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	gone := ann()
	gone.Status = "deprovisioned"
	f.on("POST /v1/users", ann()).on("GET /v1/users/ann", ann()).on("POST /v1/users/ann/offboard", gone)
	m.run("", "user", "create", "ann", "--url", f.url).want(t, 0, "ann", "gradegate user invite ann\n")
	n := len(f.requests())
	m.answers("n\n", "user", "offboard", "ann", "--url", f.url).want(t, 1, "", "queued jobs are cancelled, and running ones go on.\nGo on? [y/N] Nothing was done.\n")
	m.answers("", "user", "offboard", "ann", "--jobs", "cancel", "--url", f.url).want(t, 1, "", "and so are those that run.\nGo on? ")
	for _, r := range f.requests()[n:] {
		if !strings.HasPrefix(r.route, "GET ") {
			t.Error("it was done all the same")
		}
	}
	// A slip in the name is told, and nothing asked or threatened.
	if got := m.answers("y\n", "user", "offboard", "anm", "--url", f.url); got.code != 3 || strings.Contains(got.errout, "ends every token") {
		t.Errorf("%d %s", got.code, got.errout)
	}
	m.answers("y\n", "user", "offboard", "ann", "--url", f.url).want(t, 0, "off-boarded", "")
	m.answers("", "user", "offboard", "ann", "--yes", "--url", f.url).want(t, 0, "off-boarded", "")
	m.run("", "user", "offboard", "ann", "--url", f.url).want(t, 0, "off-boarded", "")
}

// TestClock says whether the machine's clock is believed.
func TestClock(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	ahead := birth.Add(time.Hour)
	f.on("GET /v1/clock", api.Clock{Now: birth, Wall: &ahead}).on("POST /v1/clock/confirm", api.Clock{Now: ahead, Believed: true})
	got := m.run("", "clock", "show", "--url", f.url)
	got.want(t, 0, "believed            no: it has leapt ahead\n", "")
	got.want(t, 0, "the machine says    "+when(&ahead), "")
	m.run("", "clock", "confirm", "--url", f.url).want(t, 0, "believed            yes\n", "")
	m.run("", "clock", "show", "-o", "json", "--url", f.url).want(t, 0, `"believed": false`, "")
}

// TestRenewSaysWhyNotFurther in words, and by whose policy.
func TestRenewSaysWhyNotFurther(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Session))
	later := birth.Add(time.Hour)
	r := api.Renewed{Token: laptop(), Renewed: true, EndedBefore: &birth, EffectiveEnd: &later}
	f.on("POST /v1/tokens/self/renew", r)
	if got := m.run("", "token", "renew", "--url", f.url); got.code != 0 || got.errout != "" || !strings.Contains(got.out, when(&birth)) || !strings.Contains(got.out, when(&later)) {
		t.Errorf("%d %s%s", got.code, got.out, got.errout)
	}
	for limit, why := range limits {
		r.LimitedBy, r.Policy = limit, "group:interns"
		f.on("POST /v1/tokens/laptop/renew", r)
		m.run("", "token", "renew", "laptop", "--url", f.url).want(t, 0, "laptop", "It ends no later, because "+why+" (policy of the group interns).\n")
	}
}
