package grading_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"gradegate/internal/authority"
	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// gpus makes the competition one of jobs that take a GPU for an hour at most.
func (h house) gpus(t *testing.T) {
	t.Helper()
	c := grading.Competition{Name: "c", Metrics: []string{"accuracy"}, Open: true, Resources: job.Resources{GPUs: 1, TimeLimit: time.Hour}}
	if _, err := h.Apply(t.Context(), admin(), c, nil, 0); err != nil {
		t.Fatal(err)
	}
}

func (h house) enter(t *testing.T, s token.Secret) *policy.Subject {
	t.Helper()
	got, _, err := h.table.Authenticate(s.Presented(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return &got
}

func (h house) create(t *testing.T, s *policy.Subject, name string, b budget.Budget) *policy.Subject {
	t.Helper()
	made, err := h.authority.CreateToken(t.Context(), s, authority.Create{Name: name, Budget: b}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	return h.enter(t, made.Secret)
}

// exceeds submits, and wants the refusal of a budget of that level.
func (h house) exceeds(t *testing.T, s *policy.Subject, kind fault.Kind, level, resource string) *fault.Error {
	t.Helper()
	_, err := h.submit(t.Context(), s)
	f := fault.Of(err)
	if err == nil || f.Code != "budget_exceeded" || f.Kind != kind || f.More["level"] != level || f.More["resource"] != resource || f.Fix == "" {
		t.Fatalf("%v, want a %s of the %s", err, resource, level)
	}
	return f
}

func (h house) submits(t *testing.T, s *policy.Subject) grading.Submitted {
	t.Helper()
	made, err := h.submit(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func gpuHours(n float64) budget.Budget {
	return budget.Budget{GPU: time.Duration(n * float64(time.Hour)), Per: budget.Day}
}

// B9: what a token can take is a number, and nothing that its holder can do
// makes it more: not rotating it, nor exchanging it, nor making another.
func TestTokenBudget(t *testing.T) {
	h := open(t)
	h.gpus(t)
	session := h.person(t, "ann")
	ci := h.create(t, session, "ci", gpuHours(4))
	h.submits(t, ci)
	child, err := h.authority.ExchangeToken(t.Context(), ci, authority.Exchange{})
	if err != nil {
		t.Fatal(err)
	}
	h.submits(t, h.enter(t, child.Secret)) // counts for its parent
	next, err := h.authority.RotateToken(t.Context(), ci, authority.Rotate{Token: "self"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	h.submits(t, h.enter(t, next.Secret))
	// After a sign-in a successor begins a family, and no account.
	fresh, err := h.authority.RotateToken(t.Context(), session, authority.Rotate{Token: string(next.Token.ID)}, authority.Idem{})
	if err != nil || fresh.Token.Family == next.Token.Family {
		t.Fatalf("%v: no family of its own", err)
	}
	made := h.submits(t, h.enter(t, fresh.Secret))
	if len(made.Warnings) != 1 || made.Warnings[0].Code != "budget_low" || !strings.Contains(made.Warnings[0].Detail, "0 of them are left") {
		t.Errorf("%+v", made.Warnings)
	}
	for name, s := range map[string]*policy.Subject{"the token": ci, "its child": h.enter(t, child.Secret), "its successor": h.enter(t, next.Secret), "the next": h.enter(t, fresh.Secret)} {
		f := h.exceeds(t, s, fault.Limited, budget.TokenLevel, "gpu_hours")
		if f.More["reserved"] != 4.0 || f.More["limit"] != 4.0 || f.RetryAfter <= 0 || !strings.Contains(f.Detail, "The token ci has 4 GPU hours a day") {
			t.Errorf("%s: %+v", name, f)
		}
	}
	for name, do := range map[string]func() error{
		"another token": func() error {
			_, err := h.authority.CreateToken(t.Context(), ci, authority.Create{Name: "more"}, authority.Idem{})
			return err
		},
		"a smaller one": func() error {
			_, err := h.authority.CreateToken(t.Context(), ci, authority.Create{Name: "more", Budget: gpuHours(1)}, authority.Idem{})
			return err
		},
		"its child makes one": func() error {
			_, err := h.authority.EnsureToken(t.Context(), h.enter(t, child.Secret), authority.Create{Name: "more"}, authority.Idem{})
			return err
		},
		"narrowed to more": func() error {
			_, err := h.authority.NarrowToken(t.Context(), session, string(fresh.Token.ID), authority.Narrowing{Budget: gpuHours(5)})
			return err
		},
		"the same in less time": func() error {
			b := budget.Budget{GPU: 4 * time.Hour, Per: budget.Day}
			_, err := h.authority.NarrowToken(t.Context(), session, string(fresh.Token.ID), authority.Narrowing{Budget: budget.Budget{GPU: b.GPU, Per: 2 * b.Per}})
			if err != nil {
				return err
			}
			_, err = h.authority.NarrowToken(t.Context(), session, string(fresh.Token.ID), authority.Narrowing{Budget: b})
			return err
		},
	} {
		if err := do(); fault.CodeOf(err) != "budget_widened" {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.submits(t, session) // the budget is the token's alone
	h.exceeds(t, h.enter(t, h.narrow(t, session, fresh, budget.Budget{GPU: time.Minute, Per: 2 * budget.Day})), fault.Denied, budget.TokenLevel, "gpu_hours")
}

func (h house) narrow(t *testing.T, s *policy.Subject, of authority.Issued, b budget.Budget) token.Secret {
	t.Helper()
	if _, err := h.authority.NarrowToken(t.Context(), s, string(of.Token.ID), authority.Narrowing{Budget: b}); err != nil {
		t.Fatal(err)
	}
	return of.Secret
}

// A token with a budget does not hand out the secret of one without.
func TestBudgetAndOtherTokens(t *testing.T) {
	h := open(t)
	_, err := h.authority.SetPolicy(t.Context(), admin(), authority.PolicyChange{Level: "platform", Rules: policy.Rules{MaxPersonal: 2}})
	if err != nil {
		t.Fatal(err)
	}
	session := h.person(t, "ann")
	free := h.create(t, session, "free", budget.Budget{})
	ci := h.create(t, session, "ci", gpuHours(4))
	if _, err := h.authority.RotateToken(t.Context(), ci, authority.Rotate{Token: string(free.Token)}, authority.Idem{}); fault.CodeOf(err) != "budget_widened" {
		t.Error(err)
	}
	if _, err := h.authority.RotateToken(t.Context(), free, authority.Rotate{Token: string(ci.Token)}, authority.Idem{}); err != nil {
		t.Error(err)
	}
}

// B9: budgets of a person and of policies hold for all tokens together, the
// strictest decides and is named; grants raise them until the clock ends them.
func TestBudgetsOfPeople(t *testing.T) {
	h := open(t)
	h.gpus(t)
	groups := []string{"interns"}
	ann := h.person(t, "ann")
	set := func(u authority.UserUpdate) {
		t.Helper()
		if _, err := h.authority.UpdateUser(t.Context(), admin(), "ann", u); err != nil {
			t.Fatal(err)
		}
	}
	level := func(name string, b budget.Budget) {
		t.Helper()
		if _, err := h.authority.SetPolicy(t.Context(), admin(), authority.PolicyChange{Level: name, Rules: policy.Rules{Budget: b}}); err != nil {
			t.Fatal(err)
		}
	}
	level("platform", budget.Budget{GPU: 3 * time.Hour, Per: 7 * budget.Day})
	h.submits(t, ann)
	h.submits(t, h.create(t, ann, "ci", budget.Budget{}))
	level("interns", budget.Budget{Jobs: 2})
	h.submits(t, ann)
	h.exceeds(t, ann, fault.Limited, "platform", "gpu_hours")
	set(authority.UserUpdate{Groups: &groups})
	b := gpuHours(2)
	set(authority.UserUpdate{Budget: &b})
	h.exceeds(t, ann, fault.Limited, budget.UserLevel, "gpu_hours")
	g, err := h.authority.GrantQuota(t.Context(), admin(), "ann", budget.Grant{GPU: 5 * time.Hour, Reason: "deadline"}, 7*budget.Day, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	h.exceeds(t, ann, fault.Limited, "group:interns", "concurrent")
	if _, err := h.authority.GrantQuota(t.Context(), admin(), "ann", budget.Grant{Jobs: 2, Reason: "deadline"}, time.Hour, authority.Idem{}); err != nil {
		t.Fatal(err)
	}
	h.submits(t, ann)
	h.clock.Add(time.Hour) // the second grant ends; nothing else has to happen
	h.exceeds(t, ann, fault.Limited, "group:interns", "concurrent")
	if _, err := h.authority.EndGrant(t.Context(), admin(), "ann", g.ID); err != nil {
		t.Fatal(err)
	}
	h.exceeds(t, ann, fault.Limited, budget.UserLevel, "gpu_hours")
	if _, err := h.authority.GrantQuota(t.Context(), ann, "ann", budget.Grant{GPU: time.Hour, Reason: "me"}, time.Hour, authority.Idem{}); fault.KindOf(err) != fault.Denied {
		t.Errorf("she grants herself more: %v", err)
	}
}

// B10: what each end of a job costs. Whoever lets a job start, reads its log and
// cancels it keeps the bill; what we broke and what never ran is free.
func TestFairRefunds(t *testing.T) {
	h := open(t)
	h.gpus(t)
	ann := h.person(t, "ann")
	now := h.clock.Now()
	ran := func(r job.Report) job.Report {
		r.Phase, r.StartedAt, r.EndedAt = job.PhaseExited, now, now.Add(90*time.Second+time.Millisecond)
		return r
	}
	cancel := func(id job.ID) {
		t.Helper()
		if _, _, err := h.Cancel(t.Context(), ann, id); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		do          func(job.ID)
		kind        string
		reason      string
		submissions int
		gpuSeconds  int64
	}{
		"canceled in the queue": {cancel, "refund", "never_started", 0, 0},
		"canceled after peeking": {func(id job.ID) {
			h.rounds(t, 2)
			cancel(id)
			h.exec.end(id, ran(job.Report{}))
			h.rounds(t, 1)
		}, "settle", "canceled", 1, 91},
		"started before we knew": {func(id job.ID) {
			h.exec.after = fault.New(fault.Unavailable, "executor_unavailable", "no answer")
			h.rounds(t, 1)
			h.exec.after = nil
			cancel(id)
			h.exec.end(id, ran(job.Report{}))
			h.rounds(t, 1)
		}, "settle", "canceled", 1, 91},
		"its own failure": {func(id job.ID) {
			h.rounds(t, 2)
			h.exec.end(id, ran(job.Report{ExitCode: 1}))
			h.rounds(t, 1)
		}, "settle", "exit_code", 1, 91},
		"lost by us": {func(id job.ID) {
			h.rounds(t, 2)
			h.exec.end(id, ran(job.Report{Reason: "lost"}))
			h.rounds(t, 1)
		}, "refund", "lost", 0, 0},
		"over its limit": {func(id job.ID) {
			h.rounds(t, 2)
			r := ran(job.Report{Reason: "time_limit"})
			r.EndedAt = now.Add(2 * time.Hour) // it was hard to kill
			h.exec.end(id, r)
			h.rounds(t, 1)
		}, "settle", "time_limit", 1, 3600},
	} {
		made := h.submits(t, ann)
		c.do(made.Job.ID)
		d, err := h.Job(t.Context(), ann, made.Job.ID)
		if err != nil || !d.Job.State.Final() || d.Job.GPUSeconds != c.gpuSeconds {
			t.Fatalf("%s: %+v %v", name, d.Job, err)
		}
		lines, err := h.QuotaLines(t.Context(), ann, "", grading.LineFilter{Job: made.Job.ID})
		if err != nil || len(lines) != 2 {
			t.Fatalf("%s: %+v %v", name, lines, err)
		}
		last, first := lines[0], lines[1]
		if first.Kind != "reserve" || first.GPUSeconds != 3600 || first.Submissions != 1 || first.Family == "" || last.Family != first.Family {
			t.Errorf("%s: reserved %+v", name, first)
		}
		if last.Kind != c.kind || last.Reason != c.reason || first.Submissions+last.Submissions != c.submissions || first.GPUSeconds+last.GPUSeconds != c.gpuSeconds {
			t.Errorf("%s: %+v", name, last)
		}
	}
}

// What somebody else was charged is not to be seen, and a token that is limited
// to competitions sees those.
func TestWhoSeesTheQuota(t *testing.T) {
	h := open(t)
	ann, joe := h.person(t, "ann"), h.person(t, "joe")
	h.submits(t, ann)
	if _, err := h.Quota(t.Context(), joe, ann.Principal.ID, ""); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	if _, err := h.QuotaLines(t.Context(), joe, ann.Principal.ID, grading.LineFilter{}); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	ann.Competitions = []string{"other"}
	if lines, err := h.QuotaLines(t.Context(), ann, "", grading.LineFilter{}); err != nil || len(lines) != 0 {
		t.Errorf("%+v %v", lines, err)
	}
	if q, err := h.Quota(t.Context(), admin(), ann.Principal.ID, ""); err != nil || q.Competitions[0].Usage.Submissions != 1 {
		t.Errorf("%+v %v", q, err)
	}
}
