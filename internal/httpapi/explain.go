package httpapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/hindsight"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

type explainIn struct {
	ID string `path:"id" maxLength:"40" doc:"The request's id, such as an answer has in X-Request-Id"`
}

// errNoRequest is the one answer where there is no line, and where there is one
// that the subject may not see.
var errNoRequest = fault.New(fault.NotFound, "request_not_found",
	"Nothing about such a request is recorded that you may see. It was not made with this token or by you; or it has no line of its own: many refusals alike are "+
		"counted and not written one by one, and one without a valid token belongs to nobody.").
	WithFix("Ask with the token that the request was made with (--token-file FILE), or signed in as its owner; gradegate doctor looks at what you have.")

// explain tells why a request was decided as it was: to who holds the secret it
// was made with, to the owner, and to who reads the trail.
func (a *API) explain(ctx context.Context, s *policy.Subject, in *explainIn) (api.Explanation, error) {
	at, ok := authority.TimeOf(in.ID)
	if !ok || !strings.HasPrefix(in.ID, "req_") {
		return api.Explanation{}, errNoRequest
	}
	var line *audit.Event
	err := a.reading(ctx, a.lookups, func(ctx context.Context) error {
		found, err := a.linesOf(ctx, in.ID, at)
		for i := range found {
			// Of what is announced and then refused, the refusal.
			if a.mayExplain(s, &found[i]) && (line == nil || found[i].Outcome == audit.Deny) {
				line = &found[i]
			}
		}
		if err == nil && line == nil && policy.Decide(s, policy.AuditRead, policy.Resource{}) == nil {
			return a.counted(ctx, at)
		}
		return err
	})
	switch {
	case err != nil:
		return api.Explanation{}, err
	case line == nil:
		return api.Explanation{}, errNoRequest
	}
	return a.viewExplanation(line), nil
}

// mostRefusals are told of a token, from the last hour or else the last day.
const mostRefusals = 5

// explainRefusals tells why the last requests with this very token were refused,
// the newest last. What has worked since is left out.
func (a *API) explainRefusals(ctx context.Context, s *policy.Subject, _ *None) (api.Page[api.Explanation], error) {
	page := api.Page[api.Explanation]{Items: []api.Explanation{}}
	text := string(s.Token)
	if text == "" {
		text = s.Job
	}
	if s.Local || text == "" {
		return page, nil
	}
	var last []audit.Event
	err := a.reading(ctx, a.lookups, func(ctx context.Context) error {
		for _, back := range []time.Duration{time.Hour, 24 * time.Hour} {
			_, err := a.Lines(ctx, Lines{Stream: "use", Since: a.Now().Add(-back), Slack: time.Minute, Text: text}, func(e *audit.Event) error {
				switch {
				case e.Request == "" || !possesses(s, e):
				case e.Outcome != audit.Deny:
					last = slices.DeleteFunc(last, func(r audit.Event) bool { return hindsight.Mended(&r, e) })
				default:
					last = append(last[max(0, len(last)+1-mostRefusals):], *e)
				}
				return nil
			})
			if err != nil || len(last) > 0 {
				return err
			}
		}
		return nil
	})
	for i := range last {
		page.Items = append(page.Items, a.viewExplanation(&last[i]))
	}
	return page, err
}

// linesOf are the decisions of a request. Nearly all were written at once; for
// the others, such as that of a long upload, a day of lines is read.
func (a *API) linesOf(ctx context.Context, request string, at time.Time) (found []audit.Event, err error) {
	l := Lines{Stream: "use", Since: at.Add(-time.Second), Until: at.Add(time.Minute), Slack: time.Minute, Text: request}
	for range 2 {
		_, err = a.Lines(ctx, l, func(e *audit.Event) error {
			if e.Request == request && len(found) < mostLines {
				found = append(found, *e)
			}
			return nil
		})
		if err != nil || len(found) > 0 {
			break
		}
		l.Slack = 0
	}
	return found, err
}

// mostLines of one request are read.
const mostLines = 20

// mayExplain: possession of the request's own secret is enough, be it dead. So
// is to own it, with any credential that is active, or to read the trail.
func (a *API) mayExplain(s *policy.Subject, e *audit.Event) bool {
	switch {
	case possesses(s, e):
		return true
	case s.Mode != "" || s.Kind == token.JobKind || s.Kind == token.Run:
		return false
	case !s.Local && e.Actor == string(s.Principal.ID), a.owns(s, e.Token):
		return true
	}
	return policy.Decide(s, policy.AuditRead, policy.Resource{}) == nil
}

// possesses reports whether a line is about the very secret that asks.
func possesses(s *policy.Subject, e *audit.Event) bool {
	return s.Token != "" && e.Token == string(s.Token) || s.Job != "" && e.Kind == s.Kind.String() && handleOf(e) == s.Job
}

func (a *API) owns(s *policy.Subject, id string) bool {
	k, ok := a.Table.Token(token.ID(id))
	return ok && !s.Local && k.Owner == s.Principal.ID
}

// handleOf is the job whose own token made a request.
func handleOf(e *audit.Event) string {
	if job := e.Detail["handle"]; job != "" {
		return job
	}
	return e.Target
}

// counted tells a reader of the trail about the refusals around an instant that
// have no lines of their own.
func (a *API) counted(ctx context.Context, at time.Time) error {
	var list []string
	_, err := a.Lines(ctx, Lines{Stream: "use", Since: at, Until: at.Add(3 * time.Minute), Slack: time.Minute, Text: string(audit.Aggregate)}, func(e *audit.Event) error {
		if e.Action == audit.Aggregate && len(list) < mostLines {
			list = append(list, strings.TrimSpace(fmt.Sprintf("%d %s %s%s", e.Count, e.Reason, e.Token, e.Addr)))
		}
		return nil
	})
	if err != nil || len(list) == 0 {
		return err
	}
	return errNoRequest.With("counted", list).WithFix("It may be one of those that were counted in that minute: gradegate audit search --action %s", audit.Aggregate)
}

var (
	errReadings = fault.New(fault.Limited, "too_many_readings", "Others are reading the trail at this moment, as many as its disk should bear at a time.").
			WithFix("Try again in a few seconds.").WithRetry(3 * time.Second)
	errReadingTime = fault.New(fault.Unavailable, "reading_too_long", "The trail could not be read in the time that a request has.").
			WithFix("Ask about a shorter time, or search on the server's machine: gradegate audit search --data DIR")
)

// readingTime is how long one request may read the trail.
const readingTime = 40 * time.Second

// reading does what reads the trail at length: few at a time, and not for long.
func (a *API) reading(ctx context.Context, places chan struct{}, do func(context.Context) error) error {
	if a.Lines == nil {
		return errNoSearch
	}
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	default:
		return errReadings
	}
	ctx, cancel := context.WithTimeout(ctx, readingTime)
	defer cancel()
	err := do(ctx)
	if err != nil && ctx.Err() != nil && fault.KindOf(err) == fault.Internal {
		return errReadingTime.Caused(err)
	}
	return err
}

func (a *API) viewExplanation(e *audit.Event) api.Explanation {
	x := hindsight.Explain(e, hindsight.Known{Actor: a.Table.NameOf(principal.ID(e.Actor)), Means: meaning})
	out := api.Explanation{
		RequestID: e.Request, At: e.At, Decision: "allow", Reason: "ok", Status: e.Status, Route: e.Route, Summary: x.Summary, Fix: x.Fix,
		TokenID: e.Token, Kind: e.Kind, UserID: e.Actor, Mode: e.Mode, IP: e.Addr, Agent: e.Agent, Checks: []api.ExplainedCheck{},
		Required: x.Required, Granted: x.Granted, Missing: x.Missing, Clock: x.Clock, Ended: instant(x.Ended), Policy: x.Level,
		LimitedBy: x.LimitedBy, Class: x.Class, Proxy: x.Peer, ProxyHeader: x.Via, IgnoredHeader: x.Ignored,
	}
	if !x.Allowed {
		out.Decision, out.Reason = "deny", e.Reason
	}
	if e.Kind == token.JobKind.String() || e.Kind == token.Run.String() {
		out.Job = handleOf(e)
	}
	if k, ok := a.Table.Token(token.ID(e.Token)); ok {
		out.TokenName, out.UserID = k.Name, string(k.Owner)
	}
	if p, ok := a.Table.Principal(principal.ID(out.UserID)); ok {
		out.Username = p.Name
	}
	for _, c := range x.Checks {
		out.Checks = append(out.Checks, api.ExplainedCheck{Name: c.Name, Result: string(c.Result), Detail: c.Detail})
	}
	return out
}
