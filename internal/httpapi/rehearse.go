package httpapi

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/hindsight"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

type dryRunIn struct {
	ByID
	Body api.DryRunPolicy
}

// known tells hindsight what it has to know of the routes in lines.
type knownRoutes struct{ *API }

func (k knownRoutes) Submits(route string) bool {
	r := k.routes[route]
	return r != nil && r.id == "submitJob"
}

func (k knownRoutes) Late(route string) bool {
	r := k.routes[route]
	return r != nil && r.has(late)
}

// The span that a dry run looks back over.
const (
	usualSpan = 30 * 24 * time.Hour
	mostSpan  = 400 * 24 * time.Hour
)

func (a *API) spanBack(text string) (time.Time, error) {
	if text == "" {
		return a.Now().Add(-usualSpan), nil
	}
	since, err := a.moment(text)
	if err == nil && (since.After(a.Now()) || a.Now().Sub(since) > mostSpan) {
		err = fault.New(fault.Invalid, "instant_invalid", "since lies in the future, or more than 400 days back.").WithFix("Use for example 30d")
	}
	return since, err
}

// dryRunPolicy plays the decisions of the last weeks again, as if the level had
// had these rules (B17). It changes nothing.
func (a *API) dryRunPolicy(ctx context.Context, _ *policy.Subject, in *dryRunIn) (api.DryRun, error) {
	name, err := policy.LevelName(in.ID)
	if err != nil {
		return api.DryRun{}, err
	}
	rules, err := readRules(in.Body.Rules)
	if err == nil {
		err = rules.Check(name)
	}
	if err != nil {
		return api.DryRun{}, err
	}
	since, err := a.spanBack(in.Body.Since)
	if err != nil {
		return api.DryRun{}, err
	}
	top := in.Body.Top
	if top == 0 {
		top = usualTop
	}
	out := api.DryRun{Policy: name, Rules: viewRules(rules), Since: since, Until: a.Now(), Complete: true, NotClaimed: notClaimed(rules)}
	err = a.reading(ctx, a.readings, func(ctx context.Context) error {
		t, err := a.rehearse(ctx, name, rules, &out)
		if t == nil {
			return err
		}
		viewTally(&out, t, top)
		return a.jobsOf(ctx, &out, t)
	})
	return out, err
}

const usualTop = 20

// notClaimed are demands of which no recorded use can tell anything: they bear
// on what is made, or on what is reported.
func notClaimed(r policy.Rules) []string {
	out := []string{}
	for _, d := range []struct {
		name string
		is   bool
	}{{"lifetime", r.Lifetime > 0}, {"max_per_user", r.MaxPersonal > 0}, {"leaks", r.Quarantine}, {"budget", !r.Budget.IsZero()}} {
		if d.is {
			out = append(out, d.name)
		}
	}
	return out
}

// errEnough ends a reading that has what it wants.
var errEnough = errors.New("enough")

// rehearse reads the trail once. If the time is over first, what was read until
// then is told, and that it is not all.
func (a *API) rehearse(ctx context.Context, level string, rules policy.Rules, out *api.DryRun) (*hindsight.Tally, error) {
	levels := a.Table.Levels()
	levels.Named = maps.Clone(levels.Named)
	if levels.Named == nil {
		levels.Named = map[string]policy.Level{}
	}
	base := policy.Rules{}
	if level == token.Platform {
		base = levels.Base
	}
	levels.Named[level] = policy.Level{Name: level}.Set(rules, base, out.Since, out.Since)
	l := Lines{Stream: "use", Since: out.Since.Add(-hindsight.WarmUp(&levels))}
	begins, err := a.Lines(ctx, l, func(*audit.Event) error { return errEnough })
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	if begins.After(out.Since) {
		out.Begins = &begins
	}
	r := hindsight.NewRehearsal(a.Table, levels, out.Since, begins, knownRoutes{a})
	read, stop := context.WithTimeout(ctx, dryRunTime)
	defer stop()
	last := out.Since
	_, err = a.Lines(read, l, func(e *audit.Event) error {
		r.Play(e)
		last = e.At
		return nil
	})
	switch {
	case err != nil && read.Err() != nil && ctx.Err() == nil:
		out.Complete, out.Until = false, last
	case err != nil:
		return nil, err
	}
	return r.Tally(), nil
}

// dryRunTime leaves some of the time of a reading for the jobs.
const dryRunTime = 30 * time.Second

func viewTally(out *api.DryRun, t *hindsight.Tally, top int) {
	out.Decisions, out.Judged, out.Refused, out.Marked, out.NotJudged = t.Decisions, t.Judged, t.Refused, t.Marked, t.NotJudged
	out.ByRule, out.Tokens, out.Addresses, out.Notices = []api.DryRunRule{}, []api.DryRunToken{}, []api.DryRunAddress{}, []api.DryRunNotice{}
	for _, c := range t.Rules() {
		out.ByRule = append(out.ByRule, api.DryRunRule{
			Rule: c.Name, Policy: c.Level, Uses: c.Uses, Submits: c.Submits, Tokens: c.Tokens, Users: c.People, First: c.First, Last: c.Last,
		})
	}
	hits := t.Hits()
	out.TokensTotal = len(hits) + t.Without
	for _, h := range hits[:min(top, len(hits))] {
		d := api.DryRunToken{
			TokenID: string(h.ID), Name: h.Name, Kind: h.Kind.String(), UserID: string(h.Owner.ID), User: h.Owner.Name, Uses: h.Uses, Submits: h.Submits,
			Rules: []string{}, Addresses: h.Addrs, Jobs: []string{}, First: h.First, Last: h.Last,
		}
		for _, r := range h.Rules {
			d.Rules = append(d.Rules, r.Name)
		}
		out.Tokens = append(out.Tokens, d)
	}
	origins := t.Origins()
	for _, o := range origins[:min(top, len(origins))] {
		out.Addresses = append(out.Addresses, api.DryRunAddress{IP: o.Addr, Uses: o.Uses})
	}
	since := out.Since
	if out.Begins != nil {
		since = *out.Begins
	}
	notices := hindsight.Notices(hits, since, out.Until)
	for _, n := range notices[:min(top, len(notices))] {
		out.Notices = append(out.Notices, api.DryRunNotice{UserID: string(n.To.ID), User: n.To.Name, Email: n.To.Email, Text: n.Text})
	}
	out.UsersTotal = len(notices)
}

// jobsOf names the jobs behind the submits of the tokens that are listed.
func (a *API) jobsOf(ctx context.Context, out *api.DryRun, t *hindsight.Tally) error {
	of := map[string]int{}
	for i, h := range t.Hits()[:len(out.Tokens)] {
		for _, request := range h.Requests {
			of[request] = i
		}
	}
	if len(of) == 0 {
		return nil
	}
	_, err := a.Lines(ctx, Lines{Stream: "act", Since: out.Since, Text: string(audit.JobSubmit)}, func(e *audit.Event) error {
		if i, ok := of[e.Request]; ok && e.Action == audit.JobSubmit && strings.HasPrefix(e.Target, "job_") {
			out.Tokens[i].Jobs = append(out.Tokens[i].Jobs, e.Target)
		}
		return nil
	})
	return err
}
