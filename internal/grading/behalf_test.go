package grading_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gradegate/internal/authority"
	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
)

func (h house) submitFor(ctx context.Context, s *policy.Subject, whose string) (grading.Submitted, error) {
	return h.Submit(ctx, s, grading.Upload{Competition: "c", Name: "run.sh", Body: strings.NewReader("#!/bin/sh\n"), OnBehalfOf: whose}, grading.Idem{})
}

func (h house) consent(t *testing.T, from *policy.Subject, to string, competitions ...string) authority.Consent {
	t.Helper()
	c, err := h.authority.GiveConsent(t.Context(), from, authority.NewConsent{To: to, Competitions: competitions}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// R3.5, B12: with consent a job is the other one's, in every respect, and it is on
// record who handed it in. Both see it and cancel it, nobody else does.
func TestOnBehalfOf(t *testing.T) {
	h := open(t)
	ann, bob, eve := h.person(t, "ann"), h.person(t, "bob"), h.person(t, "eve")
	_, err := h.submitFor(t.Context(), ann, "bob")
	if fault.CodeOf(err) != "consent_missing" || !strings.Contains(fault.Of(err).Fix, "gradegate consent give ann") {
		t.Errorf("without consent: %v", err)
	}
	_, err = h.submitFor(t.Context(), ann, "ann")
	if fault.CodeOf(err) != "on_behalf_of_self" {
		t.Errorf("for herself: %v", err)
	}
	h.consent(t, bob, "ann", "other")
	if _, err = h.submitFor(t.Context(), ann, "bob"); fault.CodeOf(err) != "consent_missing" {
		t.Errorf("in another competition: %v", err)
	}
	c := h.consent(t, bob, "ann")
	made, err := h.submitFor(t.Context(), ann, "bob")
	if err != nil {
		t.Fatal(err)
	}
	j := made.Job
	if j.Owner != bob.Principal.ID || j.Submitter != ann.Principal.ID || j.Consent != c.ID || j.Via != ann.Token || made.Submission.Owner != j.Owner {
		t.Errorf("%+v", j)
	}
	use := func(s *policy.Subject) int {
		u, err := h.jobs.Usage(t.Context(), s.Principal.ID, "c", grading.QuotaDay(h.clock.Now()))
		if err != nil {
			t.Fatal(err)
		}
		return u.Submissions
	}
	if use(bob) != 1 || use(ann) != 0 {
		t.Errorf("the quota of bob has %d, that of ann %d", use(bob), use(ann))
	}
	events, err := h.jobs.PendingEvents(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	last := events[len(events)-1]
	if last.Actor != string(ann.Principal.ID) || last.Owner != string(bob.Principal.ID) || last.Detail["act"] != last.Actor || last.Detail["consent"] != c.ID {
		t.Errorf("%+v", last)
	}
	for who, s := range map[string]*policy.Subject{"bob": bob, "ann": ann} {
		if _, err := h.Job(t.Context(), s, j.ID); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	if _, err := h.Job(t.Context(), eve, j.ID); fault.CodeOf(err) != "job_not_found" {
		t.Errorf("eve: %v", err)
	}
	list := func(s *policy.Subject, f grading.Filter) int {
		f.Limit = 10
		all, err := h.Jobs(t.Context(), s, f)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	others := grading.Filter{Submitter: ann.Principal.ID}
	if list(bob, grading.Filter{}) != 1 || list(ann, grading.Filter{}) != 0 || list(ann, others) != 1 || list(eve, others) != 0 {
		t.Error("the lists are wrong")
	}
	lapsed := *ann // whose token has ended reads on of her own alone
	lapsed.Mode, lapsed.Ended = policy.ModeExpiredRead, h.clock.Now().Add(time.Hour)
	if all, err := h.Jobs(t.Context(), &lapsed, grading.Filter{Submitter: ann.Principal.ID, Limit: 10}); err == nil || len(all) > 0 {
		t.Errorf("others' jobs, with a token that has ended: %d %v", len(all), err)
	}

	// A consent that has ended lets nothing more in; what it let in stays.
	if _, err := h.authority.WithdrawConsent(t.Context(), ann, c.ID); fault.CodeOf(err) != "consent_not_found" {
		t.Errorf("who was given it withdraws it: %v", err)
	}
	if _, err := h.authority.WithdrawConsent(t.Context(), bob, c.ID); err != nil {
		t.Fatal(err)
	}
	if _, err = h.submitFor(t.Context(), ann, "bob"); fault.CodeOf(err) != "consent_missing" {
		t.Errorf("withdrawn: %v", err)
	}
	if _, _, err := h.Cancel(t.Context(), ann, j.ID); err != nil {
		t.Errorf("she cancels what she handed in: %v", err)
	}

	// The handle is with who handed it in: it ends with them as well.
	h.consent(t, bob, "ann")
	made, err = h.submitFor(t.Context(), ann, "bob")
	if err != nil {
		t.Fatal(err)
	}
	handle := func() error { _, _, err := h.table.Authenticate(made.Handle.Presented(), netip.Addr{}); return err }
	if err := handle(); err != nil {
		t.Error(err)
	}
	if _, err := h.authority.Offboard(t.Context(), admin(), "ann", false); err != nil {
		t.Fatal(err)
	}
	if handle() == nil {
		t.Error("a leaver holds the handle of somebody's job")
	}
	if err := h.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := h.Job(t.Context(), bob, made.Job.ID); err != nil || d.Job.State == job.Canceled {
		t.Errorf("bob's job ended with ann: %+v %v", d.Job.State, err)
	}
}

// B12, B14: a service may be given consent, and hands in no more than its token
// may; its jobs and those are seen by who answers for it.
func TestServiceJobs(t *testing.T) {
	h := open(t)
	ann, bob, eve := h.person(t, "ann"), h.person(t, "bob"), h.person(t, "eve")
	if _, err := h.authority.CreateService(t.Context(), admin(), authority.NewService{Name: "ci", Owners: []string{"ann", "bob"}}, authority.Idem{}); err != nil {
		t.Fatal(err)
	}
	token := func(competitions ...string) *policy.Subject {
		made, err := h.authority.CreateServiceToken(t.Context(), ann, "ci", authority.Create{Name: "t" + strings.Join(competitions, ""), Competitions: competitions}, authority.Idem{})
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := h.table.Authenticate(made.Secret.Presented(), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		return &s
	}
	ci := token()
	own, err := h.submit(t.Context(), ci)
	if err != nil || own.Job.Owner != ci.Principal.ID {
		t.Fatalf("%+v %v", own.Job, err)
	}
	if _, err := h.authority.GiveConsent(t.Context(), eve, authority.NewConsent{To: "ci"}, authority.Idem{}); fault.CodeOf(err) != "user_not_found" {
		t.Errorf("eve learns of the service: %v", err)
	}
	h.consent(t, bob, "ci")
	fors, err := h.submitFor(t.Context(), ci, "bob")
	if err != nil || fors.Job.Owner != bob.Principal.ID || fors.Job.Submitter != ci.Principal.ID {
		t.Fatalf("%+v %v", fors.Job, err)
	}
	if _, err := h.submitFor(t.Context(), token("other"), "bob"); fault.KindOf(err) != fault.Denied {
		t.Errorf("beyond its token: %v", err)
	}
	for name, s := range map[string]*policy.Subject{"ann": ann, "bob": bob} {
		for _, id := range []job.ID{own.Job.ID, fors.Job.ID} {
			if _, err := h.Job(t.Context(), s, id); err != nil {
				t.Errorf("%s and %s: %v", name, id, err)
			}
		}
		if all, err := h.Jobs(t.Context(), s, grading.Filter{Owner: ci.Principal.ID, Limit: 10}); err != nil || len(all) != 1 {
			t.Errorf("%s lists %d, %v", name, len(all), err)
		}
	}
	if _, err := h.Jobs(t.Context(), eve, grading.Filter{Owner: ci.Principal.ID, Limit: 10}); err == nil {
		t.Error("eve lists the jobs of a service that she does not answer for")
	}
	if _, _, err := h.Cancel(t.Context(), eve, own.Job.ID); fault.CodeOf(err) != "job_not_found" {
		t.Errorf("eve: %v", err)
	}
	if _, _, err := h.Cancel(t.Context(), bob, own.Job.ID); err != nil {
		t.Errorf("bob: %v", err)
	}
	// The service is off-boarded like anybody.
	if _, err := h.authority.Offboard(t.Context(), admin(), "ci", false); err != nil {
		t.Fatal(err)
	}
	if _, err := h.submit(t.Context(), ci); err == nil {
		t.Error("an off-boarded service hands in")
	}
}

// R3.5: in a thousand races of a withdrawal, or of an off-boarding of either side,
// against submits, no job is admitted after the acknowledgement.
func TestNoJobAfterWithdrawal(t *testing.T) {
	t.Parallel()
	h := open(t)
	pair := func() (ann, bob *policy.Subject) {
		now := time.Now().Format("150405.000000000")[7:]
		return h.person(t, "a"+now), h.person(t, "b"+now)
	}
	ann, bob := pair()
	for round := range 1000 {
		if round%16 >= 14 {
			ann, bob = pair()
		}
		c := h.consent(t, bob, string(ann.Principal.ID))
		var acknowledged atomic.Bool
		var late atomic.Int32
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range 2 {
					began := acknowledged.Load()
					if _, err := h.submitFor(context.Background(), ann, string(bob.Principal.ID)); err == nil && began {
						late.Add(1)
					}
				}
			})
		}
		var err error
		switch round % 16 {
		case 14:
			_, err = h.authority.Offboard(t.Context(), admin(), string(bob.Principal.ID), true)
		case 15:
			_, err = h.authority.Offboard(t.Context(), admin(), string(ann.Principal.ID), true)
		default:
			_, err = h.authority.WithdrawConsent(t.Context(), bob, c.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		count := func() int {
			all, err := h.jobs.Jobs(t.Context(), grading.Filter{Owner: bob.Principal.ID, Limit: 10000})
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		before := count()
		acknowledged.Store(true)
		wg.Wait()
		if after := count(); late.Load() > 0 || after != before {
			t.Fatalf("round %d: %d jobs at the acknowledgement, %d afterwards, %d late", round, before, after, late.Load())
		}
		if round%16 >= 14 {
			ann, bob = pair()
		}
	}
}

// Who hands in for somebody is told whose quota is used up and who can do what
// about it: it is not their own, and their own is not touched.
func TestWhoseQuota(t *testing.T) {
	gpu := job.Resources{GPUs: 1, TimeLimit: time.Hour}
	for name, c := range map[string]struct {
		limit        grading.Competition
		budget       budget.Budget
		detail, fix  string
		own, ownsFix string
	}{
		"a day":          {grading.Competition{PerDay: 1}, budget.Budget{}, "bob has used all submissions of this day in c: 1 of 1.", "it is bob's quota", "You have used all", "gradegate quota show c"},
		"under way":      {grading.Competition{Concurrent: 1}, budget.Budget{}, "bob has as many jobs under way in c as are allowed at once: 1.", "let bob cancel one", "You have as many jobs under way", "gradegate cancel JOB"},
		"budget of jobs": {grading.Competition{}, budget.Budget{Jobs: 1}, "bob has 1 job at once", "let bob cancel one", "You have 1 job at once", "gradegate cancel JOB"},
		"budget of GPUs": {grading.Competition{Resources: gpu}, budget.Budget{GPU: time.Hour, Per: budget.Day}, "bob has 1 GPU hour", "gradegate quota grant bob --gpu-hours 1", "You have 1 GPU hour", "gradegate quota grant USER"},
	} {
		h := open(t)
		ann, bob := h.person(t, "ann"), h.person(t, "bob")
		h.consent(t, bob, "ann")
		c.limit.Name, c.limit.Metrics, c.limit.Open = "c", []string{"accuracy"}, true
		if _, err := h.Apply(t.Context(), admin(), c.limit, nil, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := h.authority.UpdateUser(t.Context(), admin(), "bob", authority.UserUpdate{Budget: &c.budget}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.submitFor(t.Context(), ann, "bob"); err != nil {
			t.Fatal(name, err)
		}
		_, err := h.submitFor(t.Context(), ann, "bob")
		if f := fault.Of(err); f.Kind != fault.Limited || !strings.Contains(f.Detail, c.detail) || strings.Contains(f.Detail, "You") || !strings.Contains(f.Fix, c.fix) {
			t.Errorf("%s, by ann: %s %s", name, f.Detail, f.Fix)
		}
		_, err = h.submit(t.Context(), bob)
		if f := fault.Of(err); f.Kind != fault.Limited || !strings.Contains(f.Detail, c.own) || !strings.Contains(f.Fix, c.ownsFix) {
			t.Errorf("%s, by bob: %s %s", name, f.Detail, f.Fix)
		}
		if _, err := h.submit(t.Context(), ann); err != nil {
			t.Errorf("%s: ann's own is used up: %v", name, err)
		}
	}
}
