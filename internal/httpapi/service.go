package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"runtime"
	"strings"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
)

var errIP = fault.New(fault.Invalid, "ip_invalid", "That is no address.").WithFix("Send it as 192.0.2.7, without a port.")

type verifyIn struct{ Body api.Verify }

// verify decides about a token that somebody presented to the caller. The
// decision is the answer, and a line of its own: it is a use of that token.
func (a *API) verify(ctx context.Context, s *policy.Subject, in *verifyIn) (api.Decision, error) {
	b := in.Body
	addr := plain(b.IP)
	if b.IP != "" && !addr.IsValid() {
		return api.Decision{}, errIP
	}
	action, err := actionNamed(b.Action)
	if err != nil {
		return api.Decision{}, err
	}
	r := policy.Resource{Competition: b.Competition}
	if b.Resource != nil {
		r.Owner = principal.ID(b.Resource.Owner)
		if at := b.Resource.SubmittedAt; at != nil {
			r.Submitted = *at
		}
	}
	holder, err := a.decide(ctx, s, strings.TrimSpace(b.Token), addr, action, r)
	switch f := fault.Of(err); {
	case err == nil:
	case f.Kind == fault.Unavailable || f.Kind == fault.Internal:
		return api.Decision{}, err
	default:
		return api.Decision{Decision: "deny", Reason: f.Code, Mode: modeOf(&holder)[0], TokenID: string(holder.Token), RequestID: s.Request}, nil
	}
	return api.Decision{
		Active: true, Decision: "allow", Reason: "ok", Mode: modeOf(&holder)[0], TokenID: string(holder.Token), Kind: holder.Kind.String(),
		UserID: string(holder.Principal.ID), Username: holder.Principal.Name, Scope: strings.Join(holder.Scopes, " "),
		Competitions: allOr(holder.Competitions), EffectiveExpiresAt: instant(holder.Until), EffectiveReason: string(holder.By),
		RequestID: s.Request,
	}, nil
}

// decide judges somebody's secret for the subject, and writes the decision
// down: it is a use of that token. The holder is known as far as the secret is
// the right one, also of a refusal.
func (a *API) decide(ctx context.Context, s *policy.Subject, text string, addr netip.Addr, action policy.Action, r policy.Resource) (policy.Subject, error) {
	holder, ref, err := a.judge(text, addr, action, r)
	if f := fault.Of(err); err != nil && (f.Kind == fault.Unavailable || f.Kind == fault.Internal) {
		return holder, err
	}
	now := a.Now()
	e := audit.Event{
		ID: "evt_" + authority.SortableID(now), At: now, Action: audit.Request, Outcome: outcome(err == nil), Request: s.Request,
		Actor: string(holder.Principal.ID), Token: string(holder.Token), Kind: holder.Kind.String(), Target: holder.Job, Mode: holder.Mode,
		Route: "verify " + action.Name, Agent: s.Agent, Detail: map[string]string{"for": s.Actor()}, Scope: action.Scope, Competition: contestOf(r.Competition),
	}
	if err != nil {
		(&call{api: a, peer: &peer{addr: addr}, addr: addr, subject: holder}).refusedFor(&e, fault.Of(err))
	}
	if addr.IsValid() {
		e.Addr = addr.String()
	}
	if bad := a.Recorder.Record(ctx, e, false); bad != nil {
		return holder, bad
	}
	if err == nil {
		a.Table.Used(&ref, now, addr, s.Agent)
	}
	return holder, err
}

// judge is a secret's whole way: form, holder, right.
func (a *API) judge(text string, addr netip.Addr, action policy.Action, r policy.Resource) (policy.Subject, authn.Ref, error) {
	p, err := a.Table.Read(text)
	if err != nil {
		return policy.Subject{}, authn.Ref{}, malformed(err, len(text))
	}
	s, ref, err := a.Table.Authenticate(p, addr)
	if errors.Is(err, authn.ErrUnknown) {
		a.Table.Guess(p, addr, a.Now())
	}
	if err == nil {
		err = policy.Decide(&s, action, r)
	}
	return s, ref, err
}

// asked are the actions that others can ask about, by name.
var asked = []policy.Action{
	policy.TokenCreate, policy.TokenRead, policy.TokenRotate, policy.TokenRevoke, policy.TokenSuspend,
	policy.CompetitionGet, policy.CompetitionSet, policy.JobSubmit, policy.JobRead, policy.JobCancel, policy.JobResult,
	policy.QuotaRead, policy.UserRead, policy.UserManage, policy.AuditRead,
}

// actionNamed finds an action by its name, such as job.submit, or makes one of
// a scope, such as jobs:submit. Nothing asks for an active token, no more.
func actionNamed(name string) (policy.Action, error) {
	if name == "" {
		return policy.Action{Name: "use", Own: true}, nil
	}
	for _, a := range asked {
		if a.Name == name {
			return a, nil
		}
	}
	for _, s := range policy.Scopes {
		if s == name {
			return policy.Action{Name: s, Scope: s, Own: true}, nil
		}
	}
	return policy.Action{}, fault.New(fault.Invalid, "action_unknown", "There is no such action.").
		WithFix("Use a scope (%s) or an action such as job.submit.", strings.Join(policy.Scopes, ", "))
}

func (a *API) clockState(context.Context, *policy.Subject, *None) (api.Clock, error) {
	out := api.Clock{Now: a.Now(), Believed: true}
	if a.Clock != nil {
		if ahead := a.Clock.Ahead(); ahead > 0 {
			wall := out.Now.Add(ahead)
			out.Believed, out.Wall = false, &wall
		}
	}
	return out, nil
}

func (a *API) confirmClock(ctx context.Context, s *policy.Subject, _ *None) (api.Clock, error) {
	if a.Clock != nil {
		a.Logger.Warn("an administrator confirms the machine's clock", "ahead", a.Clock.Ahead(), "by", s.Actor(), "request", s.Request)
		a.Clock.Confirm()
	}
	return a.clockState(ctx, s, nil)
}

func (a *API) version(context.Context, *policy.Subject, *None) (api.Version, error) {
	return api.Version{Version: a.Version, Go: runtime.Version()}, nil
}

func (c *call) plainText(status int, text string) error {
	c.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.WriteHeader(status)
	_, _ = c.Write([]byte(text)) // a client that has gone needs no answer
	return nil
}

func (a *API) livez(c *call, _ *http.Request) error { return c.plainText(http.StatusOK, "ok\n") }

// readyz is about one thing: can tokens be verified here. Degraded is ready.
func (a *API) readyz(c *call, r *http.Request) error {
	if h := a.health(r); !fit(h) {
		return c.plainText(http.StatusServiceUnavailable, h.Status+"\n")
	}
	return c.plainText(http.StatusOK, "ok\n")
}

func (a *API) healthz(c *call, r *http.Request) error {
	h := a.health(r)
	if c.door == public && a.SeparateAdmin {
		// Details name paths and machines; those are for the other listener.
		terse := api.Health{Status: h.Status, Checks: map[string]api.Check{}}
		for name, check := range h.Checks {
			terse.Checks[name] = api.Check{Status: check.Status, Since: check.Since}
		}
		h = terse
	}
	status := http.StatusOK
	if !fit(h) {
		status = http.StatusServiceUnavailable
	}
	return c.json(status, h)
}

func (a *API) health(r *http.Request) api.Health {
	if a.Health == nil {
		return api.Health{Status: "ok", Checks: map[string]api.Check{}}
	}
	return a.Health(r.Context())
}

func fit(h api.Health) bool { return h.Status == "ok" || h.Status == "degraded" }

func (a *API) trailKey(c *call, _ *http.Request) error {
	if a.TrailKey == "" {
		return fault.New(fault.NotFound, "trail_key_missing", "This server publishes no key.")
	}
	return c.plainText(http.StatusOK, strings.TrimSuffix(a.TrailKey, "\n")+"\n")
}

func (a *API) openapi(c *call, _ *http.Request) error {
	c.Header().Set("Content-Type", "application/json")
	c.WriteHeader(http.StatusOK)
	_, _ = c.Write(a.text) // a client that has gone needs no answer
	return nil
}

func (a *API) metrics(c *call, r *http.Request) error {
	if a.Metrics == nil || c.door == public {
		return errNoRoute
	}
	a.Metrics.ServeHTTP(c, r)
	return nil
}
