package story

import (
	"slices"
	"strings"
	"testing"

	"gradegate/api"
)

// B17: what a policy would have refused is told before it is set: of whom, which
// jobs, from where, and in words for them.
func TestPolicyTest(t *testing.T) {
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("boss", "competition", "apply", "examples/iris")
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	w.must("ann", "token", "create", "--name", "laptop", "--save")
	j := object[api.Job](t, w.must("ann", "submit", "iris", "examples/iris/predictions.csv", "--wait", "-o", "json"))
	dry := object[api.DryRun](t, w.must("boss", "policy", "test", "platform", "--cidr", "192.0.2.0/24", "-o", "json"))
	i := slices.IndexFunc(dry.Tokens, func(x api.DryRunToken) bool { return x.User == "ann" && x.Name == "laptop" })
	if !dry.Complete || i < 0 || dry.Tokens[i].Submits != 1 || !slices.Contains(dry.Tokens[i].Jobs, j.ID) || !slices.Contains(dry.Tokens[i].Addresses, "127.0.0.1") {
		t.Fatalf("%+v", dry)
	}
	if dry.Judged+total(dry.NotJudged) != dry.Decisions || dry.Refused == 0 {
		t.Errorf("%+v", dry)
	}
	out := w.must("boss", "policy", "test", "platform", "--cidr", "192.0.2.0/24", "--notices")
	for _, s := range []string{"would be refused", "laptop of ann", "by networks", "Hello ann", j.ID} {
		if !strings.Contains(out, s) {
			t.Errorf("%q is not said:\n%s", s, out)
		}
	}
	if dry := object[api.DryRun](t, w.must("boss", "policy", "test", "platform", "--cidr", "127.0.0.0/8", "-o", "json")); dry.Refused != 0 {
		t.Errorf("%+v", dry)
	}
	if _, errs, code := w.cli("ann", "policy", "test", "platform", "--idle", "7d"); code != 5 {
		t.Errorf("exit %d %s", code, errs)
	}
}

func total(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// B18: of a token that was made just now nothing is advised. The command that an
// advice names takes rights away, and what was used works afterwards.
func TestTokenAdvise(t *testing.T) {
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("boss", "competition", "apply", "examples/iris")
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	secret := w.file("ci", w.must("ann", "token", "create", "--name", "ci", "-o", "secret"))
	use := func() {
		t.Helper()
		w.must("ann", "submit", "iris", "examples/iris/predictions.csv", "--wait", "--token-file", secret)
		w.must("ann", "job", "list", "--token-file", secret)
		w.must("ann", "competition", "show", "iris", "--token-file", secret)
	}
	use()
	x := object[api.Advice](t, w.must("ann", "token", "advise", "ci", "-o", "json"))
	if x.Narrow != nil || x.Command != "" || x.EnoughAt == nil || slices.Contains(x.UsedScopes, "jobs:cancel") || !slices.Contains(x.UsedScopes, "jobs:submit") ||
		!slices.Equal(x.UsedCompetitions, []string{"iris"}) || x.Confidence != "none" {
		t.Fatalf("%+v", x)
	}
	command := "token narrow ci"
	for _, s := range x.UsedScopes {
		command += " --scope " + s
	}
	w.must("ann", strings.Fields(command+" --competition iris --cidr 127.0.0.0/24")...)
	use()
	k := object[api.Token](t, w.must("ann", "token", "show", "ci", "-o", "json"))
	if slices.Contains(k.Scopes, "jobs:cancel") || !slices.Equal(k.Competitions, []string{"iris"}) || len(k.AllowedCIDRs) != 1 {
		t.Errorf("%+v", k)
	}
	if out := w.must("boss", "token", "advise", "--everybody"); !strings.Contains(out, "ann") || !strings.Contains(out, "none yet; ask again from") {
		t.Error(out)
	}
}
