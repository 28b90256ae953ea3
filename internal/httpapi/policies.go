package httpapi

import (
	"context"
	"time"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

type setPolicyIn struct {
	ByID
	Body api.SetPolicy
}

func (a *API) listPolicies(ctx context.Context, s *policy.Subject, _ *None) (api.Policies, error) {
	list, base, err := a.Authority.Policies(ctx, s)
	if err != nil {
		return api.Policies{}, err
	}
	out := api.Policies{Defaults: viewRules(base), Items: []api.Policy{}}
	for _, l := range list {
		out.Items = append(out.Items, viewLevel(l))
	}
	return out, nil
}

func (a *API) getPolicy(ctx context.Context, s *policy.Subject, in *ByID) (api.Policy, error) {
	name, err := policy.LevelName(in.ID)
	if err != nil {
		return api.Policy{}, err
	}
	list, base, err := a.Authority.Policies(ctx, s)
	if err != nil {
		return api.Policy{}, err
	}
	for _, l := range list {
		if l.Name == name {
			return viewLevel(l), nil
		}
	}
	if name != token.Platform {
		base = policy.Rules{} // a group that demands nothing
	}
	return api.Policy{Name: name, Rules: viewRules(base)}, nil
}

func (a *API) setPolicy(ctx context.Context, s *policy.Subject, in *setPolicyIn) (api.PolicySet, error) {
	rules, err := readRules(in.Body.Rules)
	if err != nil {
		return api.PolicySet{}, err
	}
	c := authority.PolicyChange{Level: in.ID, Rules: rules, Preview: in.Body.Preview, Force: in.Body.Force}
	if in.Body.EffectiveAt != nil {
		c.Since = in.Body.EffectiveAt.UTC().Truncate(time.Microsecond)
	}
	set, err := a.Authority.SetPolicy(ctx, s, c)
	if err != nil {
		return api.PolicySet{}, err
	}
	out := api.PolicySet{Policy: viewLevel(set.Level), Preview: c.Preview, Total: set.Total, Affected: []api.Affected{}, Warnings: normalised(in.Body.Rules.AllowedCIDRs)}
	for _, f := range set.Affected {
		out.Affected = append(out.Affected, api.Affected{
			TokenID: string(f.Token.ID), Name: f.Token.Name, UserID: string(f.Owner.ID), User: f.Owner.Name,
			Ends: instant(f.Before.At), Until: f.After.At, Reason: string(f.After.Clock), Policy: f.After.Level,
		})
	}
	return out, nil
}

func readRules(b api.Rules) (r policy.Rules, err error) {
	for _, d := range []struct {
		text string
		to   *time.Duration
	}{
		{b.Lifetime, &r.Lifetime}, {b.MaxLifetime, &r.MaxLifetime.Span}, {b.Idle, &r.Idle.Span}, {b.ServiceIdle, &r.ServiceIdle.Span},
		{b.Unused, &r.Unused.Span}, {b.RotateAfter, &r.RotateAfter.Span},
	} {
		if *d.to, err = duration(d.text); err != nil {
			return r, err
		}
	}
	switch b.Rotation {
	case "", "warn":
	case "enforce":
		if r.Enforced.Span = r.RotateAfter.Span; r.Enforced.Span == 0 {
			return r, fault.New(fault.Invalid, "policy_invalid", "Rotation is enforced, and rotate_after is missing.").WithFix("Add rotate_after, such as rotate_after=90d")
		}
	default:
		return r, fault.New(fault.Invalid, "policy_invalid", "rotation is warn or enforce.").WithFix("Use one of: warn, enforce")
	}
	switch b.Leaks {
	case "", "revoke":
	case "quarantine":
		r.Quarantine = true
	default:
		return r, fault.New(fault.Invalid, "policy_invalid", "leaks is revoke or quarantine.").WithFix("Use one of: revoke, quarantine")
	}
	r.SessionsOnly.On, r.MaxPersonal, r.Observe = b.SessionsOnly, b.MaxPerUser, b.Observe
	if r.Budget, err = readBudget(b.Budget); err != nil {
		return r, err
	}
	r.Networks, err = networks(b.AllowedCIDRs)
	return r, err
}

func viewLevel(l policy.Level) api.Policy {
	out := api.Policy{
		Name: l.Name, Rules: viewRules(l.Rules), Since: instant(l.Rules.Since), ChangedAt: instant(l.ChangedAt), ETag: versionTag(l.Version),
	}
	if !l.Coming.Since.IsZero() {
		coming := viewRules(l.Coming)
		out.Coming, out.ComingAt = &coming, instant(l.Coming.Since)
	}
	return out
}

func viewRules(r policy.Rules) api.Rules {
	out := api.Rules{
		Lifetime: spanText(r.Lifetime), MaxLifetime: spanText(r.MaxLifetime.Span), Idle: spanText(r.Idle.Span), ServiceIdle: spanText(r.ServiceIdle.Span),
		Unused: spanText(r.Unused.Span), RotateAfter: spanText(r.RotateAfter.Span), SessionsOnly: r.SessionsOnly.On, MaxPerUser: r.MaxPersonal, Observe: r.Observe,
		Budget: viewBudget(r.Budget),
	}
	if r.RotateAfter.Span > 0 {
		out.Rotation = "warn"
	}
	if r.Enforced.Span > 0 {
		out.Rotation = "enforce"
	}
	if r.Quarantine {
		out.Leaks = "quarantine"
	}
	for _, p := range r.Networks {
		out.AllowedCIDRs = append(out.AllowedCIDRs, p.String())
	}
	return out
}

func spanText(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return config.FormatDuration(d)
}
