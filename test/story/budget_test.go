package story

import (
	"strings"
	"testing"

	"gradegate/api"
)

// B9, B10: a token's worst case is said when it is made; a submit beyond it is
// refused with what decided, and a grant helps a person and not a token.
func TestBudget(t *testing.T) {
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("boss", "competition", "apply", "examples/iris")
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	w.must("boss", "user", "set", "ann", "--gpu-hours", "8", "--concurrent", "1")
	if out := w.must("ann", "token", "create", "--name", "ci", "--gpu-hours", "4", "--save"); !strings.Contains(out, "at most 4 GPU hours a day, 1 job at once, until ") {
		t.Error(out)
	}
	w.must("ann", "submit", "iris", "examples/iris/program", "--wait", "-q")
	q := object[api.Quota](t, w.must("ann", "quota", "-o", "json"))
	if len(q.Budgets) != 2 || q.Budgets[0].Level != "user" || q.Budgets[1].Token != "ci" || q.Budgets[1].GPUHours.Left != 4 {
		t.Errorf("%+v", q)
	}
	entries := object[api.Page[api.QuotaEntry]](t, w.must("ann", "quota", "entries", "--token", "ci", "-o", "json"))
	if len(entries.Items) != 2 || entries.Items[0].Kind != "settle" || entries.Items[1].Kind != "reserve" || entries.Items[0].Job != entries.Items[1].Job {
		t.Errorf("%+v", entries)
	}
	if _, errs, exit := w.cli("ann", "token", "narrow", "--gpu-hours", "5"); exit != 5 || !strings.Contains(errs, "only ever lowered") {
		t.Errorf("exit %d %s", exit, errs)
	}
	g := object[api.Grant](t, w.must("boss", "quota", "grant", "ann", "--gpu-hours", "20", "--for", "7d", "--reason", "deadline", "-o", "json"))
	if out := w.local("quota", "show", "--user", "ann"); !strings.Contains(out, g.ID) || !strings.Contains(out, "28") || !strings.Contains(out, "deadline") {
		t.Error(out)
	}
	if _, errs, exit := w.cli("ann", "quota", "show", "--user", "boss"); exit == 0 {
		t.Errorf("somebody else's quota: %s", errs)
	}
	w.must("boss", "quota", "end", "ann", g.ID)
	if q := object[api.Quota](t, w.must("ann", "quota", "show", "iris", "-o", "json")); len(q.Grants) != 0 || q.Budgets[0].GPUHours.Limit != 8 {
		t.Errorf("%+v", q)
	}
}
