package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/hindsight"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

type (
	adviceIn struct {
		ByID
		Since string `query:"since" maxLength:"40" doc:"RFC 3339, or a span back from now such as 30d"`
	}
	allAdviceIn struct {
		Since string `query:"since" maxLength:"40" doc:"RFC 3339, or a span back from now such as 30d"`
		All   bool   `query:"all" doc:"Everybody's tokens; for administrators and auditors"`
	}
)

// adviseToken says which rights of a token were not used lately (B18).
func (a *API) adviseToken(ctx context.Context, s *policy.Subject, in *adviceIn) (api.Advice, error) {
	k, err := a.Authority.Find(ctx, s, in.ID)
	if err != nil {
		return api.Advice{}, err
	}
	list, err := a.advise(ctx, s, in.Since, map[token.Family]bool{k.Family: true}, func(*hindsight.Habits) []token.Token { return []token.Token{k} })
	if err != nil {
		return api.Advice{}, err
	}
	return list[0], nil
}

// mostAdvised tokens are listed, those that have the most to spare first.
const mostAdvised = 1000

// adviseAll does so for the active tokens of the subject, or of everybody.
func (a *API) adviseAll(ctx context.Context, s *policy.Subject, in *allAdviceIn) (api.Page[api.Advice], error) {
	page := api.Page[api.Advice]{Items: []api.Advice{}}
	action := policy.TokenRead
	if in.All {
		action = policy.UserRead
	}
	if err := policy.Decide(s, action, policy.Resource{}); err != nil {
		return page, err
	}
	var only map[token.Family]bool
	if !in.All {
		only = map[token.Family]bool{}
		a.Table.EachToken(func(k *token.Token, _ *principal.Principal) {
			if k.Owner == s.Principal.ID && !s.Local {
				only[k.Family] = true
			}
		})
	}
	list, err := a.advise(ctx, s, in.Since, only, func(h *hindsight.Habits) []token.Token {
		var found []token.Token
		spare := func(k token.Token) int {
			if a.Now().Sub(k.BornAt) < leastKnown {
				return -1 // nothing will be said of it
			}
			return h.Of(k.Family).Spare(&k)
		}
		most := func() {
			slices.SortStableFunc(found, func(x, y token.Token) int {
				return cmp.Or(cmp.Compare(spare(y), spare(x)), cmp.Compare(x.ID, y.ID))
			})
			found = found[:min(len(found), mostAdvised)]
		}
		a.Table.EachToken(func(k *token.Token, p *principal.Principal) {
			if !in.All && (s.Local || k.Owner != s.Principal.ID) || !a.advisable(k, p) {
				return
			}
			if found = append(found, *k); len(found) >= 2*mostAdvised {
				most()
			}
		})
		most()
		return found
	})
	page.Items = append(page.Items, list...)
	return page, err
}

// advisable tokens are those that somebody holds and that are alive.
func (a *API) advisable(k *token.Token, p *principal.Principal) bool {
	if k.Kind == token.Invite || k.Kind == token.Refresh {
		return false
	}
	state, _ := a.Table.Judge(k, p, a.Now())
	return state == token.StateActive
}

// advise reads the trail once, for all tokens that choose gives then. Habits of
// other families than the given ones are not collected (nil: of all).
func (a *API) advise(ctx context.Context, s *policy.Subject, back string, only map[token.Family]bool, choose func(*hindsight.Habits) []token.Token) ([]api.Advice, error) {
	since, err := a.spanBack(back)
	if err != nil {
		return nil, err
	}
	h := hindsight.NewHabits(a.Table, a.needsOf, only)
	var out []api.Advice
	place := a.ownReadings
	if policy.Decide(s, policy.AuditRead, policy.Resource{}) == nil {
		place = a.readings
	}
	err = a.reading(ctx, place, func(ctx context.Context) error {
		begins, err := a.Lines(ctx, Lines{Stream: "use", Since: since}, func(e *audit.Event) error {
			h.Note(e)
			return nil
		})
		if err != nil {
			return err
		}
		contests := map[string]string{}
		for _, k := range choose(h) {
			x, err := a.adviceFor(ctx, &k, h.Of(k.Family), contests)
			if err != nil {
				return err
			}
			x.Since, x.Until = latestOf(since, begins, k.BornAt), a.Now()
			x.Days = int(x.Until.Sub(x.Since) / (24 * time.Hour))
			confide(&x)
			out = append(out, x)
		}
		return nil
	})
	return out, err
}

func latestOf(all ...time.Time) (t time.Time) {
	for _, x := range all {
		if x.After(t) {
			t = x
		}
	}
	return t
}

func (a *API) adviceFor(ctx context.Context, k *token.Token, h *hindsight.Habit, contests map[string]string) (api.Advice, error) {
	var trouble error
	reach := *k // what is advised names competitions, and no projects
	reach.Competitions = slices.DeleteFunc(slices.Clone(a.Table.Reach(k.Competitions)), func(c string) bool { return strings.HasPrefix(c, policy.ProjectPrefix) })
	if len(reach.Competitions) == 0 {
		reach.Competitions = k.Competitions // empty projects are not everything
	}
	is := h.Advise(&reach, func(id string) string {
		name, ok := contests[id]
		if !ok && trouble == nil {
			d, err := a.Grading.Job(ctx, &policy.Subject{Local: true}, job.ID(id)) // whose jobs they are was decided when they were used
			if err != nil && fault.KindOf(err) != fault.NotFound {
				trouble = err
			}
			name = d.Job.Competition
			contests[id] = name
		}
		return name
	})
	if trouble != nil {
		return api.Advice{}, trouble
	}
	out := api.Advice{
		TokenID: string(k.ID), Name: k.Name, Kind: k.Kind.String(), UserID: string(k.Owner), User: a.Table.NameOf(k.Owner), Uses: h.Uses, LastUse: instant(h.Last),
		Scopes: some(k.Scopes), UsedScopes: []string{}, UnusedScopes: []string{}, Competitions: allOr(k.Competitions), UsedCompetitions: []string{},
		UsedNetworks: []string{}, Untold: some(is.Untold),
	}
	for _, s := range k.Scopes {
		if h.Scopes[s] > 0 {
			out.UsedScopes = append(out.UsedScopes, s)
		} else {
			out.UnusedScopes = append(out.UnusedScopes, s)
		}
	}
	used := map[string]bool{}
	for c := range h.Contests {
		used[c] = true
	}
	for id := range h.Jobs {
		if c := contests[id]; c != "" {
			used[c] = true
		}
	}
	for c := range used {
		out.UsedCompetitions = append(out.UsedCompetitions, c)
	}
	for n := range h.Networks {
		out.UsedNetworks = append(out.UsedNetworks, n.String())
	}
	slices.Sort(out.UsedCompetitions)
	slices.Sort(out.UsedNetworks)
	narrowing(&out, &is)
	return out, nil
}

// narrowing puts an advice into the form of the request that carries it out, and
// of the command.
func narrowing(out *api.Advice, is *hindsight.Advice) {
	if out.Uses == 0 {
		out.Command = "gradegate token revoke " + out.TokenID
		return
	}
	if is.Nothing() {
		return
	}
	n := api.NarrowToken{Scopes: is.Scopes, Competitions: is.Competitions}
	for _, p := range is.Networks {
		n.AllowedCIDRs = append(n.AllowedCIDRs, p.String())
	}
	command := "gradegate token narrow " + out.TokenID
	for _, part := range []struct {
		flag string
		list []string
	}{{" --scope ", n.Scopes}, {" --competition ", n.Competitions}, {" --cidr ", n.AllowedCIDRs}} {
		for _, v := range part.list {
			command += part.flag + fault.Word(v)
		}
	}
	out.Narrow, out.Command = &n, command
}

// leastKnown is how long a token must have been observed before anything is
// advised: what somebody does once a week is part of what it is for.
const leastKnown = 7 * 24 * time.Hour

// confide says how far the advice can be trusted; one that would be a guess is
// taken back.
func confide(x *api.Advice) {
	x.Confidence = "low"
	switch {
	case x.Until.Sub(x.Since) < leastKnown:
		enough := x.Since.Add(leastKnown)
		x.Confidence, x.Command, x.Narrow, x.EnoughAt = "none", "", nil, &enough
		x.Detail = fmt.Sprintf("It is too early to say: what the token is used for is known since %s only, and %d days are needed. Ask again from %s on.",
			x.Since.UTC().Format("2 Jan 2006 15:04 MST"), int(leastKnown/(24*time.Hour)), enough.UTC().Format("2 Jan 2006"))
		return
	case x.Uses == 0:
		x.Detail = fmt.Sprintf("It was not used in %d days.", x.Days)
		if x.Days >= 30 {
			x.Confidence = "high"
		}
		return
	case x.Days >= 30 && x.Uses >= 50:
		x.Confidence = "high"
	case x.Days >= 14 && x.Uses >= 10:
		x.Confidence = "medium"
	}
	x.Detail = fmt.Sprintf("From %d uses in %d days.", x.Uses, x.Days)
	if x.Narrow != nil {
		x.Detail += " None of them would have been refused; what is taken away does not come back."
		if x.Narrow.Scopes != nil && slices.Contains(x.UnusedScopes, policy.ScopeTokens) {
			x.Detail += " Without tokens:self it cannot rotate itself."
		}
	}
}

// judges are the actions that the use cases of routes ask about, where the table
// does not say. getJob shows the grade as well to who may see it.
var judges = map[string][]policy.Action{
	"whoami": nil, "explainRequest": nil, "explainRefusals": nil, "oauthRevoke": nil,
	"listTokens": {{Scope: policy.ScopeTokens}}, "getToken": {policy.TokenRead}, "adviseToken": {policy.TokenRead}, "adviseTokens": {policy.TokenRead, policy.UserRead},
	"narrowToken": {policy.TokenNarrow}, "revokeToken": {policy.TokenRevoke}, "renewToken": {policy.TokenRenew},
	"suspendToken": {policy.TokenSuspend}, "resumeToken": {policy.TokenSuspend}, "oauthIntrospect": {policy.TokenVerify},
	"listJobs": {policy.JobRead, policy.JobResult}, "getJob": {policy.JobRead, policy.JobResult}, "cancelJob": {policy.JobCancel, policy.JobResult},
	"getResult": {policy.JobResult}, "getLogs": {policy.JobRead},
	"getService": {policy.ServiceRead}, "updateService": {policy.ServiceOwn}, "listServiceTokens": {policy.TokenRead, policy.ServiceRead},
}

// handsOn are the routes that make other tokens, with rights out of the own ones.
var handsOn = map[string]bool{"createToken": true, "ensureToken": true, "oauthToken": true, "createServiceToken": true}

// needsOf says which rights the use in a line may have needed.
func (a *API) needsOf(e *audit.Event) hindsight.Needs {
	if e.Scope != "" || strings.HasPrefix(e.Route, "/authz/") || strings.HasPrefix(e.Route, "verify ") {
		n := hindsight.Needs{Contest: e.Competition != ""}
		for _, act := range append(asked, policy.WhoAmI) {
			if act.Scope == e.Scope { // what else has that scope may have been meant
				n.Actions = append(n.Actions, act)
			}
		}
		if e.Scope != "" && len(n.Actions) == 0 {
			n.Actions = []policy.Action{{Scope: e.Scope}}
		}
		return n
	}
	r := a.routes[e.Route]
	if r == nil {
		return hindsight.Needs{Unknown: true}
	}
	actions, known := judges[r.id]
	if r.needs != nil {
		actions, known = append(actions, *r.needs), true
	}
	n := hindsight.Needs{Actions: actions, Wide: handsOn[r.id], Unknown: !known && !handsOn[r.id] && !r.has(open)}
	switch {
	case r.id == "listJobs":
		n.Contest = e.Competition != "" // of all, unless it says
	case strings.HasPrefix(r.path, "/v1/competitions/{id}"), strings.HasPrefix(r.path, "/v1/jobs/{id}"), r.id == "getQuota":
		n.Contest = true
	}
	return n
}
