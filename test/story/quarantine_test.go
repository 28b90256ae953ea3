package story

import (
	"strings"
	"testing"

	"gradegate/api"
)

// B2: where reported tokens are quarantined, the report takes nothing away that
// its owner needs for what runs, and everything that a thief would want. Only an
// administrator lets it go on; its owner may end it.
func TestQuarantine(t *testing.T) {
	w := start(t)
	w.local("competition", "apply", "examples/iris")
	w.local("policy", "set", "platform", "--leaks", "quarantine", "--from", "2026-01-01T00:00:00Z")
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	job := object[api.Job](t, w.must("ann", "submit", "iris", "examples/iris/predictions.csv", "--wait", "-o", "json")).ID
	w.must("ann", "token", "create", "--name", "laptop", "--save")
	id := object[api.Whoami](t, w.must("ann", "whoami", "-o", "json")).TokenID
	found := w.file("found.txt", w.must("ann", "token", "print"))
	w.must("stranger", "leak", "report", "--file", found)

	if k := object[api.Whoami](t, w.must("ann", "whoami", "-o", "json")); k.Mode != "quarantined" {
		t.Errorf("%+v", k)
	}
	for _, may := range [][]string{{"job", "show", job}, {"job", "list"}, {"job", "result", job}, {"cancel", job}} {
		w.must("ann", may...)
	}
	for _, not := range [][]string{
		{"submit", "iris", "examples/iris/predictions.csv"}, {"token", "rotate", "self"}, {"token", "create", "--name", "more"},
		{"token", "resume", id}, {"token", "renew", "self"}, {"competition", "list"},
	} {
		if out, errs, exit := w.cli("ann", not...); exit != 5 && exit != 6 || strings.Contains(out+errs, "ggpat_") {
			t.Errorf("%v: exit %d %s%s", not, exit, out, errs)
		}
	}
	w.local("token", "resume", id)
	w.must("ann", "competition", "list")
	w.must("stranger", "leak", "report", "--file", found)
	w.must("ann", "token", "revoke", "self", "--yes")
	if _, _, exit := w.cli("ann", "whoami", "--token-file", found); exit != 4 {
		t.Errorf("revoked by its owner: exit %d", exit)
	}
}
