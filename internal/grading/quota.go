package grading

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// reservation is what a new job takes until it is over. Predictions never run.
// whose names its owner, if that is not who hands it in.
func (g *Grading) reservation(c Competition, j *job.Job, whose string, sub Submission, now time.Time) Reservation {
	q := Reservation{Since: QuotaDay(now), PerDay: c.PerDay, Concurrent: c.Concurrent, Bounds: g.Gate.Bounds(j.Owner, j.Via), For: whose}
	if sub.Kind != Predictions {
		q.GPUSeconds = int64(c.Resources.GPUTime() / time.Second)
	}
	for i, b := range q.Bounds {
		q.Bounds[i].For = whose
		if b.Token == string(j.Via) {
			q.Family = token.Family(b.Account)
		}
	}
	return q
}

// lowAt is the share of a budget from which on a submit warns.
const lowAt = 0.8

// low warns of budgets that are nearly taken. It is a hint: what cannot be read
// is not said.
func (g *Grading) low(ctx context.Context, bounds []budget.Bound, now time.Time) (out []Warning) {
	bounds = slices.DeleteFunc(slices.Clone(bounds), func(b budget.Bound) bool { return b.GPU == 0 })
	if len(bounds) == 0 {
		return nil
	}
	list, err := g.Store.Spending(ctx, bounds, now)
	if err != nil {
		return nil
	}
	for _, s := range list {
		if s.Share() > lowAt {
			out = append(out, Warning{Code: "budget_low", Detail: fmt.Sprintf("%s %s of them are left; all are free again at %s, if nothing more is submitted.",
				s.Why(), budget.Hours(s.Left()), s.FreeAt.UTC().Format(time.RFC3339))})
		}
	}
	return out
}

// settled is a job as it ends, with what it takes from the quota in the end;
// nil while it goes on. What we broke, and what never ran, costs its owner
// nothing. What ran and was canceled costs what it ran for: its log could be
// read.
func settled(j job.Job, now time.Time) (job.Job, *Settlement) {
	if !j.State.Final() {
		return j, nil
	}
	if j.GPUSeconds == 0 {
		j = j.Ran(j.StartedAt, now) // nobody knows better
	}
	st := &Settlement{Reason: string(j.State)}
	switch {
	case j.State == job.Canceled && j.StartedAt.IsZero():
		st.Refund, st.Reason = true, "never_started"
	case j.State == job.Failed && platformFaults[j.Reason]:
		st.Refund, st.Reason = true, j.Reason
	case j.State == job.Failed:
		st.Reason = j.Reason
	}
	if st.Refund {
		j.GPUSeconds = 0
	}
	st.GPUSeconds = j.GPUSeconds
	return j, st
}

// platformFaults are the reasons of failures that are not the program's.
var platformFaults = map[string]bool{"lost": true, "start_failed": true, "internal": true, "no_sandbox": true}

// QuotaView is what somebody has used of all that bounds them.
type QuotaView struct {
	Competitions []CompetitionQuota
	Budgets      []Spending
}

// CompetitionQuota is what somebody has used of a competition's limits.
type CompetitionQuota struct {
	Competition Competition
	Usage       Usage
	ResetsAt    time.Time
}

// Quota tells what somebody has used: the subject with the token that asks, or
// somebody else all together. A competition's name limits the answer to it.
func (g *Grading) Quota(ctx context.Context, s *policy.Subject, owner principal.ID, competition string) (QuotaView, error) {
	via := s.Token
	if owner != "" && owner != s.Principal.ID {
		via = ""
	} else {
		owner = s.Principal.ID
	}
	if err := policy.Decide(s, policy.QuotaRead, policy.Resource{Owner: owner, Competition: competition}); err != nil {
		return QuotaView{}, err
	}
	now := g.Now()
	var view QuotaView
	list, err := g.quotaOf(ctx, s, competition)
	if err != nil {
		return view, err
	}
	day := QuotaDay(now)
	for _, c := range list {
		u, err := g.Store.Usage(ctx, owner, c.Name, day)
		if err != nil {
			return view, err
		}
		view.Competitions = append(view.Competitions, CompetitionQuota{Competition: c, Usage: u, ResetsAt: day.Add(24 * time.Hour)})
	}
	view.Budgets, err = g.Spending(ctx, owner, via)
	return view, err
}

// quotaOf are the competitions that a question is about.
func (g *Grading) quotaOf(ctx context.Context, s *policy.Subject, name string) ([]Competition, error) {
	if name != "" {
		c, err := g.competition(ctx, name)
		return []Competition{c}, err
	}
	list, err := g.Store.Competitions(ctx)
	return slices.DeleteFunc(list, func(c Competition) bool { return outside(s, c.Name) }), err
}

// Spending is how much of what bears on a token is taken, its owner's first; it
// asks nobody's leave. Bounds that bound nothing are left out.
func (g *Grading) Spending(ctx context.Context, owner principal.ID, via token.ID) ([]Spending, error) {
	bounds := slices.DeleteFunc(g.Gate.Bounds(owner, via), func(b budget.Bound) bool { return b.Budget.IsZero() })
	if len(bounds) == 0 {
		return nil, nil
	}
	return g.Store.Spending(ctx, bounds, g.Now())
}

// QuotaLines lists somebody's lines of the quota ledger, newest first. An
// account is a person, or where the use of one of their tokens is booked.
func (g *Grading) QuotaLines(ctx context.Context, s *policy.Subject, owner principal.ID, f LineFilter) ([]QuotaLine, error) {
	if owner == "" {
		owner = s.Principal.ID
	}
	r := policy.Resource{Owner: owner}
	if len(f.Competitions) > 0 {
		r.Competition = f.Competitions[0]
	} else {
		f.Competitions = s.Competitions
	}
	if err := policy.Decide(s, policy.QuotaRead, r); err != nil {
		return nil, err
	}
	if f.Account == "" {
		f.Account = string(owner)
	}
	return g.Store.QuotaLines(ctx, f)
}
