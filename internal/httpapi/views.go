package httpapi

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

func versionTag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// ifMatch reads the version that a client wants to replace; zero is "any".
func ifMatch(header string) (int64, error) {
	if header == "" || header == "*" {
		return 0, nil
	}
	v, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(header, "W/"), `"`), 10, 64)
	if err != nil || v <= 0 {
		return 0, fault.New(fault.Invalid, "if_match_invalid", "If-Match is not an ETag of ours.").WithFix("Send the etag of what you have read.")
	}
	return v, nil
}

// instant is nil for the zero time: what is not set is left out.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// some is a list that is never null.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// allOr is what a token is limited to; no limit is written as "*".
func allOr(list []string) []string {
	if len(list) == 0 {
		return []string{"*"}
	}
	return list
}

func (a *API) viewToken(ctx context.Context, t token.Token) (api.Token, error) {
	v, err := a.Authority.View(ctx, t)
	if err != nil {
		return api.Token{}, err
	}
	return a.showToken(ctx, v), nil
}

func (a *API) showToken(ctx context.Context, v authority.View) api.Token {
	t := v.Token
	spent, most := a.budgetOf(ctx, v)
	out := api.Token{
		Budget: spent, AtMost: most,
		ID: string(t.ID), Kind: t.Kind.String(), Name: t.Name, UserID: string(t.Owner), State: string(v.State), Reason: string(t.Reason),
		Scopes: some(t.Scopes), Competitions: allOr(t.Competitions), AllowedCIDRs: []string{}, Observe: t.Observe, Note: t.Note,
		CreatedAt: t.IssuedAt, CreatedBy: t.IssuedBy, Renewal: string(t.Renewal), RevokedAt: instant(t.RevokedAt),
		ExpiresAt: instant(v.Clocks.Expires.At), IdleExpiresAt: instant(v.Clocks.Idle.At),
		MaxExpiresAt: instant(v.Clocks.Max.At), RotateBy: instant(v.Clocks.Rotate.At),
		EffectiveExpiresAt: instant(v.Ends.At), EffectiveReason: string(v.Ends.Clock), EffectivePolicy: v.Ends.Level,
		Ends: ends(v), ETag: versionTag(t.Version),
		Family: api.Family{
			ID: string(t.Family), Generation: t.Generation, Predecessor: string(t.Predecessor),
			Successor: string(t.Successor), GraceUntil: instant(t.GraceUntil),
		},
	}
	if due := v.Clocks.Rotate.At; !due.IsZero() && v.State == token.StateActive && t.Successor == "" && !a.Now().Before(due) {
		out.Warnings = append(out.Warnings, api.Warning{Code: "rotation_due", Detail: "Its rotation has been due since " + due.Format("2 Jan 2006") + ": gradegate token rotate " + fault.Word(t.Name)})
	}
	if w, still := a.stillUsed(&t); still {
		out.Warnings = append(out.Warnings, w)
	}
	if v.Ownerless && out.Reason == "" {
		out.Reason = "service_ownerless"
	}
	for _, p := range t.CIDRs {
		out.AllowedCIDRs = append(out.AllowedCIDRs, p.String())
	}
	if g := v.Guesses; g.Count > 0 {
		out.Guesses = &api.Guesses{Count: g.Count, Sources: g.Sources.Count(), Since: g.Since, Last: g.Last}
	}
	if !v.Use.At.IsZero() {
		out.LastUsed = &api.LastUse{At: v.Use.At, Agent: v.Use.Agent, Count: v.Use.Count}
		if v.Use.Addr.IsValid() {
			out.LastUsed.IP = v.Use.Addr.String()
		}
	}
	return out
}

// stillUsed names to the owner of a successor who still uses its predecessor in
// the grace period (R2.1): that is to be changed over before it ends.
func (a *API) stillUsed(t *token.Token) (api.Warning, bool) {
	old, known := a.Table.Token(t.Predecessor)
	use := a.Table.LastUse(t.Predecessor)
	if !known || old.Successor != t.ID || old.Standing == token.Revoked || !use.At.After(t.IssuedAt) || !a.Now().Before(old.GraceUntil) {
		return api.Warning{}, false
	}
	from := "an unknown address"
	if use.Addr.IsValid() {
		from = use.Addr.String()
	}
	if use.Agent != "" {
		from += " by " + use.Agent
	}
	return api.Warning{Code: "predecessor_used", Detail: fmt.Sprintf("Its predecessor %s is still in use, last on %s from %s, and ends on %s at the latest.",
		old.ID, use.At.UTC().Format("2 Jan 2006 at 15:04 MST"), from, old.GraceUntil.UTC().Format("2 Jan 2006 at 15:04 MST"))}, true
}

// ends says in one sentence when a token ends, or that it has.
func ends(v authority.View) string {
	const day, exact = "2 Jan 2006", "2 Jan 2006 at 15:04 MST"
	at, by := v.Ends.At, v.Ends.Clock
	switch {
	case v.State == token.StateRevoked && v.Reason == token.Redeemed && !v.RevokedAt.IsZero():
		return "was used on " + v.RevokedAt.Format(exact)
	case v.State == token.StateRevoked && !v.RevokedAt.IsZero():
		return "was revoked on " + v.RevokedAt.Format(exact)
	case v.State == token.StateExpired || v.State == token.StateIdleExpired:
		return "ended on " + at.Format(exact) + " " + why[by]
	case v.State != token.StateActive:
		return "is " + strings.ReplaceAll(string(v.State), "_", " ")
	case at.IsZero():
		return "does not end by itself"
	}
	latest := ""
	if last := lastEnd(v); !last.IsZero() && last.After(at) {
		latest = ", at the latest on " + last.Format(day)
	}
	switch {
	case by == token.ClockGrace:
		return "was rotated; ends on " + at.Format(exact)
	case by == token.ClockIdle && v.Use.At.IsZero() && v.RenewedAt.IsZero():
		return "ends on " + at.Format(day) + " unless it is used before" + latest
	case by == token.ClockIdle:
		return fmt.Sprintf("ends after %s unused%s", span(at.Sub(later(v.Use.At, v.RenewedAt))), latest)
	case by == token.ClockExpires && v.Renewal == token.Sliding:
		return "ends " + config.FormatDuration(v.Lifetime) + " after its last use" + latest
	case by == token.ClockRotate:
		return "ends on " + at.Format(exact) + " unless it is rotated before"
	case by == token.ClockPolicy:
		return "ends on " + at.Format(exact) + ", since policy then allows sessions only"
	}
	return "ends on " + at.Format(exact)
}

// lastEnd is the end that no use puts off.
func lastEnd(v authority.View) (last time.Time) {
	for _, end := range []token.End{v.Clocks.Max, v.Clocks.Policy, v.Clocks.Enforced} {
		if !end.At.IsZero() && (last.IsZero() || end.At.Before(last)) {
			last = end.At
		}
	}
	if fixed := v.Clocks.Expires.At; v.Renewal == token.Fixed && !fixed.IsZero() && (last.IsZero() || fixed.Before(last)) {
		last = fixed
	}
	return last
}

// why a token has ended, after the instant.
var why = map[token.Clock]string{
	token.ClockExpires: "(its own end)", token.ClockIdle: "(it was not used)", token.ClockMax: "(its maximum lifetime)",
	token.ClockRotate: "(it was not rotated in time)", token.ClockPolicy: "(policy allows sessions only)", token.ClockGrace: "(it was rotated)",
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// span is a stretch of time in whole days where it has any.
func span(d time.Duration) string {
	if days := int(d.Hours() / 24); days > 0 {
		return strconv.Itoa(days) + " days"
	}
	return config.FormatDuration(d)
}

func (a *API) viewIssued(ctx context.Context, i authority.Issued) (api.Issued, error) {
	t, err := a.viewToken(ctx, i.Token)
	if err != nil {
		return api.Issued{}, err
	}
	out := api.Issued{Secret: i.Secret.Reveal(), RefreshToken: i.Refresh.Reveal(), Token: t, Replayed: i.Replayed}
	if i.Predecessor == nil {
		return out, nil
	}
	p, err := a.viewToken(ctx, *i.Predecessor)
	out.Predecessor = &p
	return out, err
}

func viewUser(p principal.Principal) api.User {
	return api.User{
		ID: string(p.ID), Name: p.Name, Email: p.Email, Kind: string(p.Kind), Role: string(p.Role), Status: string(p.Status), Groups: some(p.Groups), Budget: viewBudget(p.Budget),
		EnrolledAt: instant(p.Enrolled), CreatedAt: p.CreatedAt, ETag: versionTag(p.Version),
	}
}

func viewResources(r job.Resources) api.Resources {
	return api.Resources{
		GPUs: r.GPUs, CPUs: r.CPUs, Memory: config.FormatBytes(r.MemoryBytes), TimeLimit: config.FormatDuration(r.TimeLimit),
		Output: config.FormatBytes(r.OutputBytes), Log: config.FormatBytes(r.LogBytes), Processes: r.Processes,
	}
}

func viewCompetition(c grading.Competition) api.Competition {
	return api.Competition{
		Name: c.Name, Project: c.Project, Title: c.Title, Description: c.Description, Metrics: some(c.Metrics), Accept: some(c.Accept), Files: some(c.Public),
		Resources: viewResources(c.Resources), Quota: api.QuotaRule{PerDay: c.PerDay, Concurrent: c.Concurrent},
		Open: c.Open, CreatedAt: c.CreatedAt, ChangedAt: c.ChangedAt, ETag: versionTag(c.Version),
	}
}

// viewJob shows a job as far as the subject may see it: the grade needs a
// scope of its own.
func (a *API) viewJob(s *policy.Subject, d grading.Detail) api.Job {
	j, sub := d.Job, d.Submission
	out := api.Job{
		ID: string(j.ID), Competition: j.Competition, UserID: string(j.Owner), SubmittedByUser: string(j.Owner), TokenID: string(j.Via), SubmittedBy: j.SubmittedBy,
		Labels: j.Labels, State: string(j.State), Reason: j.Reason, Detail: j.Detail,
		Submission: api.Submission{ID: sub.ID, Kind: sub.Kind, Name: sub.Name, SHA256: sub.Digest, Size: sub.Size, Entry: sub.Entry},
		Resources:  viewResources(j.Resources), Isolation: j.Isolation, GPUs: j.GPUs, GPUSeconds: j.GPUSeconds,
		CreatedAt: j.CreatedAt, StartedAt: instant(j.StartedAt), EndedAt: instant(j.EndedAt), ETag: versionTag(j.Version),
	}
	if !j.State.Final() && sub.Kind == grading.Program {
		out.Reserved = int64(j.Resources.GPUTime() / time.Second)
	}
	if j.Submitter != "" {
		actor, _ := a.Table.Principal(j.Submitter)
		owner, _ := a.Table.Principal(j.Owner)
		out.SubmittedByUser, out.OnBehalfOf = string(j.Submitter), owner.Name
		out.Act = &api.Act{Sub: string(j.Submitter), Name: actor.Name, Consent: j.Consent}
	}
	if policy.Decide(s, policy.JobResult, a.Grading.Resource(s, &j)) == nil {
		out.Scores = j.Scores
	}
	if sub.Kind == grading.Program && !j.StartedAt.IsZero() && !j.EndedAt.IsZero() {
		code := j.ExitCode
		out.ExitCode = &code
	}
	return out
}
