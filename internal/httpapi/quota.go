package httpapi

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/budget"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

type (
	quotaIn struct {
		Competition string `query:"competition" maxLength:"63" doc:"Only this one"`
		User        string `query:"user" maxLength:"200" doc:"Somebody's id or name; for administrators and auditors"`
	}
	quotaEntriesIn struct {
		Competition string `query:"competition" maxLength:"63" doc:"Only this one"`
		User        string `query:"user" maxLength:"200" doc:"Somebody's id or name; for administrators and auditors"`
		Token       string `query:"token_id" maxLength:"200" doc:"What was charged to a token with its successors, by id, by name, or self"`
		Job         string `query:"job" maxLength:"200"`
		Paging
	}
	grantIn struct {
		ByID
		Idem
		Body api.GrantQuota
	}
	endGrantIn struct {
		ByID
		Grant string `path:"grant" maxLength:"200" doc:"Its id"`
	}
)

func (a *API) quota(ctx context.Context, s *policy.Subject, in *quotaIn) (api.Quota, error) {
	owner, err := a.quotaOwner(ctx, s, in.User)
	if err != nil {
		return api.Quota{}, err
	}
	q, err := a.Grading.Quota(ctx, s, owner, in.Competition)
	if err != nil {
		return api.Quota{}, err
	}
	out := api.Quota{UserID: string(owner), Budgets: []api.Spending{}, Grants: []api.Grant{}, Competitions: []api.CompetitionQuota{}}
	var bounds []budget.Bound
	for _, b := range q.Budgets {
		out.Budgets, bounds = append(out.Budgets, viewSpending(b)), append(bounds, b.Bound)
	}
	out.AtMost = budget.WorstCase(bounds)
	if p, ok := a.Table.Principal(owner); ok {
		for _, g := range budget.Standing(p.Grants, a.Now()) {
			out.Grants = append(out.Grants, viewGrant(g))
		}
	}
	for _, c := range q.Competitions {
		out.Competitions = append(out.Competitions, viewCompetitionQuota(c))
	}
	return out, nil
}

// quotaOwner is whose quota is meant: one's own unless a name is given.
func (a *API) quotaOwner(ctx context.Context, s *policy.Subject, name string) (principal.ID, error) {
	switch {
	case name != "":
		id, err := a.userID(ctx, s, name)
		return principal.ID(id), err
	case s.Local:
		return "", fault.New(fault.Invalid, "user_missing", "The local administrator has no quota of its own.").WithFix("Say whose: --user NAME")
	}
	return s.Principal.ID, nil
}

func viewCompetitionQuota(q grading.CompetitionQuota) api.CompetitionQuota {
	c, u := q.Competition, q.Usage
	why := fmt.Sprintf("No limit on submissions; %d today.", u.Submissions)
	if c.PerDay > 0 {
		why = fmt.Sprintf("%d of %d submissions today, a day being that of UTC.", u.Submissions, c.PerDay)
	}
	if c.Concurrent > 0 {
		why += fmt.Sprintf(" %d of %d jobs at once.", u.Concurrent, c.Concurrent)
	}
	return api.CompetitionQuota{
		Competition: c.Name, ResetsAt: q.ResetsAt, GPUHours: float64(u.GPUSeconds) / 3600, Why: why,
		Submissions: api.Used{Used: u.Submissions, Limit: c.PerDay}, Concurrent: api.Used{Used: u.Concurrent, Limit: c.Concurrent},
	}
}

// budgetOf is a token's own budget with what is taken of it, and what it can
// take at most under all that bear on it. It is shown with a token, which is
// also to be seen while the jobs database is not.
func (a *API) budgetOf(ctx context.Context, v authority.View) (own *api.Spending, most string) {
	submits := policy.Granted(v.Scopes, policy.ScopeSubmit) && v.Kind != token.Invite && v.Kind != token.Refresh
	if v.State == token.StateActive && submits {
		if most = budget.WorstCase(a.Table.Bounds(v.Owner, v.ID)); most != "" {
			if last := lastEnd(v); !last.IsZero() {
				most += ", until " + last.Format("2 Jan 2006")
			}
		}
	}
	if v.Budget.IsZero() || a.Grading == nil {
		return nil, most
	}
	if list, err := a.Grading.Spending(ctx, v.Owner, v.ID); err == nil {
		for _, s := range list {
			if s.Token == string(v.ID) {
				shown := viewSpending(s)
				return &shown, most
			}
		}
	}
	return &api.Spending{
		Level: budget.TokenLevel, TokenID: string(v.ID), Token: v.Name,
		Why: fmt.Sprintf("The token has a budget (%s); what is taken of it cannot be read just now.", v.Budget),
	}, most
}

func viewSpending(s grading.Spending) api.Spending {
	out := api.Spending{
		Level: s.Level, TokenID: s.Token, Token: s.Name, Why: s.Why(), FreeAt: instant(s.FreeAt),
		Granted: viewBudget(budget.Budget{GPU: s.Granted.GPU, Jobs: s.Granted.Jobs}),
	}
	if s.GPU > 0 {
		out.Per = config.FormatDuration(s.Per)
		out.GPUHours = &api.Amount{Limit: s.GPU.Hours(), Used: s.Used.Hours(), Reserved: s.Reserved.Hours(), Left: s.Left().Hours()}
	}
	if s.Jobs > 0 {
		out.Concurrent = &api.Used{Used: s.Running, Limit: s.Jobs}
	}
	return out
}

func (a *API) quotaEntries(ctx context.Context, s *policy.Subject, in *quotaEntriesIn) (api.Page[api.QuotaEntry], error) {
	page := api.Page[api.QuotaEntry]{Items: []api.QuotaEntry{}}
	f := grading.LineFilter{Job: job.ID(in.Job), Limit: in.Limit + 1}
	if in.Competition != "" {
		f.Competitions = []string{in.Competition}
	}
	if in.Cursor != "" {
		n, err := strconv.ParseInt(in.Cursor, 10, 64)
		if err != nil || n <= 0 {
			return page, errCursor
		}
		f.Before = n
	}
	var owner principal.ID
	if in.Token != "" {
		t, err := a.Authority.Find(ctx, s, in.Token)
		if err != nil {
			return page, err
		}
		owner, f.Account = t.Owner, string(t.Charged())
	} else {
		var err error
		if owner, err = a.quotaOwner(ctx, s, in.User); err != nil {
			return page, err
		}
	}
	list, err := a.Grading.QuotaLines(ctx, s, owner, f)
	if err != nil {
		return page, err
	}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		page.NextCursor = strconv.FormatInt(list[in.Limit-1].N, 10)
	}
	for _, l := range list {
		page.Items = append(page.Items, api.QuotaEntry{
			ID: strconv.FormatInt(l.N, 10), At: l.At, Kind: l.Kind, Reason: l.Reason, Why: whyCharged(l), Job: string(l.Job),
			Competition: l.Competition, UserID: string(l.Owner), Family: string(l.Family), Submissions: l.Submissions, GPUSeconds: l.GPUSeconds,
		})
	}
	return page, nil
}

// whyCharged says in one sentence what a line of the quota ledger is for.
func whyCharged(l grading.QuotaLine) string {
	switch {
	case l.Kind == "reserve":
		return "Reserved for as long as the job may run."
	case l.Reason == "never_started":
		return "Canceled before it started: all is given back."
	case l.Kind == "refund":
		return "The service failed (" + l.Reason + "), not the job: all is given back."
	case l.Reason == string(job.Succeeded):
		return "The job was graded; what it did not use is given back."
	case l.Reason == string(job.Canceled):
		return "Canceled after it had started; what it did not use is given back."
	}
	return "The job failed (" + l.Reason + "); what it did not use is given back."
}

func (a *API) grantQuota(ctx context.Context, s *policy.Subject, in *grantIn) (api.Grant, error) {
	lasts, err := duration(in.Body.For)
	if err != nil {
		return api.Grant{}, err
	}
	b, err := readBudget(&api.Budget{GPUHours: in.Body.GPUHours, Concurrent: in.Body.Concurrent})
	if err != nil {
		return api.Grant{}, err
	}
	g, err := a.Authority.GrantQuota(ctx, s, in.ID, budget.Grant{GPU: b.GPU, Jobs: b.Jobs, Reason: in.Body.Reason}, lasts, authority.Idem{Key: in.Key, Presented: in.secret})
	return viewGrant(g), err
}

func (a *API) endGrant(ctx context.Context, s *policy.Subject, in *endGrantIn) (api.Grant, error) {
	g, err := a.Authority.EndGrant(ctx, s, in.ID, in.Grant)
	return viewGrant(g), err
}

func viewGrant(g budget.Grant) api.Grant {
	return api.Grant{ID: g.ID, GPUHours: g.GPU.Hours(), Concurrent: g.Jobs, At: g.At, Until: g.Until, Reason: g.Reason, By: g.By}
}

// readBudget reads a budget; none bounds nothing.
func readBudget(b *api.Budget) (out budget.Budget, err error) {
	if b == nil {
		return out, nil
	}
	const most = 1e6 // more does not fit into a span
	if math.IsNaN(b.GPUHours) || b.GPUHours < 0 || b.GPUHours > most {
		return out, fault.New(fault.Invalid, "budget_invalid", "That is no number of GPU hours.").WithFix("Use for example 8, or 0.5")
	}
	out.GPU, out.Jobs = time.Duration(math.Round(b.GPUHours*3600))*time.Second, b.Concurrent
	if b.GPUHours > 0 {
		out.GPU = max(out.GPU, 1) // too little is a mistake, and not no bound
	}
	if out.Per, err = duration(b.Per); err != nil {
		return out, err
	}
	if out.GPU > 0 && out.Per == 0 {
		out.Per = budget.Day
	}
	return out, out.Check()
}

// viewBudget is a budget as it was asked for; nil bounds nothing.
func viewBudget(b budget.Budget) *api.Budget {
	if b.IsZero() {
		return nil
	}
	return &api.Budget{GPUHours: b.GPU.Hours(), Per: spanText(b.Per), Concurrent: b.Jobs}
}
