package httpapi

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// B9: budgets are given, lowered and shown; what makes no sense is refused.
func TestBudgets(t *testing.T) {
	w := build(t)
	a := w.ask(t, post, "/v1/tokens", w.ann, `{"name":"ci","replace":"laptop","budget":{"gpu_hours":8,"concurrent":2}}`)
	if a.status != 201 || !strings.Contains(a.body, `"at_most":"at most 8 GPU hours a day, 2 jobs at once, until 24 Nov 2027"`) ||
		!strings.Contains(a.body, `"gpu_hours":{"limit":8,"used":0,"reserved":0,"left":8}`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	ci := secretOf(t, a, "secret")
	path := "/v1/tokens/self"
	for _, c := range []struct {
		body   string
		status int
		code   string
	}{
		{`{"budget":{"gpu_hours":9}}`, 403, "budget_widened"}, {`{"budget":{"concurrent":3}}`, 403, "budget_widened"},
		{`{"budget":{"gpu_hours":-1}}`, 400, "budget_invalid"}, {`{"budget":{"gpu_hours":1e300}}`, 400, "budget_invalid"}, {`{"budget":{"gpu_hours":0.0001}}`, 400, "budget_invalid"},
		{`{"budget":{"per":"7d"}}`, 400, "budget_invalid"}, {`{"budget":{"gpu_hours":1,"per":"12h"}}`, 400, "budget_invalid"}, {`{"budget":{"concurrent":-1}}`, 400, "budget_invalid"},
		{`{"budget":{"gpu_hours":8,"per":"7d"}}`, 200, ""}, {`{"budget":{"gpu_hours":8,"per":"1d"}}`, 403, "budget_widened"}, {`{"budget":{"concurrent":1}}`, 200, ""},
	} {
		if a := w.ask(t, http.MethodPatch, path, ci, c.body); a.status != c.status || c.code != "" && a.code() != c.code {
			t.Errorf("%s: %d %s", c.body, a.status, a.body)
		}
	}
	if a := w.ask(t, get, path, ci, ""); !strings.Contains(a.body, `at most 8 GPU hours in any 7 days, 1 job at once`) {
		t.Errorf("%s", a.body)
	}
	if a := w.ask(t, put, "/v1/policies/platform", w.root, `{"rules":{"budget":{"gpu_hours":2}}}`); a.status != 200 || !strings.Contains(a.body, `"budget":{"gpu_hours":2,"per":"1d"}`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.ask(t, http.MethodPatch, "/v1/users/ann", w.root, `{"budget":{"concurrent":4}}`); a.status != 200 || !strings.Contains(a.body, `"budget":{"concurrent":4}`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	grant := func() answer {
		return w.ask(t, post, "/v1/users/ann/grants", w.root, `{"gpu_hours":3,"for":"2d","reason":"deadline"}`, "Idempotency-Key", "g1")
	}
	first, again := grant(), grant()
	if first.status != 201 || first.json["id"] != again.json["id"] || first.json["until"] != "2026-11-26T09:00:00Z" || first.json["by"] != "usr_root" {
		t.Errorf("%d %s\n%s", first.status, first.body, again.body)
	}
	q := w.ask(t, get, "/v1/quota?user=ann", w.root, "")
	if !strings.Contains(q.body, `"level":"platform","per":"1d","gpu_hours":{"limit":5,"used":0`) || len(q.json["grants"].([]any)) != 1 || !strings.Contains(q.body, `"concurrent":{"used":0,"limit":4}`) {
		t.Errorf("%s", q.body)
	}
	w.clock.Add(48 * time.Hour)
	if q := w.ask(t, get, "/v1/quota", ci, ""); !strings.Contains(q.body, `"gpu_hours":{"limit":2,"used":0`) || len(q.json["grants"].([]any)) != 0 || !strings.Contains(q.body, `"level":"token"`) {
		t.Errorf("a grant that has ended: %s", q.body)
	}
	for name, c := range map[string]struct {
		path, body string
		who        token.Secret
		status     int
	}{
		"no reason": {"/v1/users/ann/grants", `{"gpu_hours":3,"for":"2d","reason":""}`, w.root, 400}, "no end": {"/v1/users/ann/grants", `{"gpu_hours":3,"for":"","reason":"x"}`, w.root, 400},
		"nothing": {"/v1/users/ann/grants", `{"for":"2d","reason":"x"}`, w.root, 400}, "nobody": {"/v1/users/zoe/grants", `{"gpu_hours":3,"for":"2d","reason":"x"}`, w.root, 404},
		"by a user": {"/v1/users/ann/grants", `{"gpu_hours":3,"for":"2d","reason":"x"}`, w.bob, 403}, "by an auditor": {"/v1/users/ann/grants", `{"gpu_hours":3,"for":"2d","reason":"x"}`, w.eve, 403},
	} {
		if a := w.ask(t, post, c.path, c.who, c.body); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := w.ask(t, del, "/v1/users/ann/grants/grt_none", w.root, ""); a.status != 404 || a.code() != "grant_not_found" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// B9, B10: a refusal for want of budget is 429 with all that one needs to go on;
// the ledger is shown in pages, to those who may see it.
func TestQuotaEntries(t *testing.T) {
	w := build(t)
	all := budget.Taken{Spent: []budget.Spent{{GPU: 2 * time.Hour, At: t0.Add(-time.Hour)}}}
	f := fault.Of(budget.Bound{Level: "platform", Budget: budget.Budget{GPU: 2 * time.Hour, Per: budget.Day}}.Admit(all, time.Hour, t0))
	p := &problem{fault: f, id: "req_1"}
	if text, err := p.MarshalJSON(); err != nil || p.GetStatus() != 429 || !strings.Contains(string(text), `"budget":"user","code":"budget_exceeded"`) ||
		!strings.Contains(string(text), `"frees_at":"2026-11-25T08:00:00Z"`) || f.RetryAfter != 23*time.Hour {
		t.Errorf("%s %v", text, err)
	}
	for i := range 5 {
		l := grading.QuotaLine{N: int64(i + 1), Kind: "reserve", Reason: "submitted", Job: job.ID("job_1"), Owner: "usr_ann", Competition: "iris", Submissions: 1, GPUSeconds: 60, At: t0}
		if i == 4 {
			l.Kind, l.Reason, l.Submissions = "refund", "never_started", -1
		}
		w.jobs.lines = append([]grading.QuotaLine{l}, w.jobs.lines...)
	}
	a := w.ask(t, get, "/v1/quota/entries?limit=3", w.ann, "")
	b := w.ask(t, get, "/v1/quota/entries?limit=3&cursor="+a.json["next_cursor"].(string), w.ann, "")
	if len(a.json["items"].([]any)) != 3 || len(b.json["items"].([]any)) != 2 || b.json["next_cursor"] != nil || !strings.Contains(a.body, `"why":"Canceled before it started: all is given back."`) {
		t.Errorf("%s\n%s", a.body, b.body)
	}
	for path, want := range map[string]int{
		"/v1/quota/entries?user=ann": 403, "/v1/quota?user=ann": 403, "/v1/quota/entries?user=usr_ann": 404, "/v1/quota/entries?token_id=" + string(w.annToken.ID): 404,
		"/v1/quota?user=usr_ann": 404, "/v1/quota/entries?token_id=self": 200,
	} {
		if a := w.ask(t, get, path, w.bob, ""); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, s := range []token.Secret{w.root, w.eve} {
		if a := w.ask(t, get, "/v1/quota/entries?user=ann", s, ""); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

func (s *jobStore) Spending(_ context.Context, bounds []budget.Bound, now time.Time) (out []grading.Spending, _ error) {
	for _, b := range bounds {
		out = append(out, grading.Spending{State: b.State(budget.Taken{}, now)})
	}
	return out, nil
}

func (s *jobStore) QuotaLines(_ context.Context, f grading.LineFilter) (out []grading.QuotaLine, _ error) {
	for _, l := range s.lines {
		if (f.Before == 0 || l.N < f.Before) && len(out) < f.Limit {
			out = append(out, l)
		}
	}
	return out, nil
}

func (s *jobStore) Usage(context.Context, principal.ID, string, time.Time) (grading.Usage, error) {
	return grading.Usage{Submissions: 1}, nil
}
