package authority

import (
	"context"
	"slices"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/budget"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
)

// GrantQuota raises what bounds a person until the grant ends. Who granted it
// and why is in the record; the clock ends it, and nothing has to run for that.
func (a *Authority) GrantQuota(ctx context.Context, s *policy.Subject, idOrName string, g budget.Grant, lasts time.Duration, idem Idem) (budget.Grant, error) {
	if err := policy.Decide(s, policy.UserManage, policy.Resource{}); err != nil {
		return budget.Grant{}, err
	}
	g.Reason = audit.Clean(g.Reason, 200)
	r := repeat(s, idem, "quota.grant", []any{idOrName, g, lasts})
	again := func(known Reply) (budget.Grant, error) {
		p, err := a.lookUp(ctx, idOrName)
		if err != nil {
			return g, err
		}
		return grantOf(p, known.Ref)
	}
	return once(ctx, a, r, again, func() (budget.Grant, error) {
		p, err := a.lookUp(ctx, idOrName)
		if err != nil {
			return g, err
		}
		now := a.now()
		g.ID, g.By, g.At, g.Until = newID("grt_", now), s.Actor(), now, now.Add(lasts)
		out, err := p.Grant(g, now)
		if err != nil {
			return g, err
		}
		return g, a.regrant(ctx, s, audit.QuotaGrant, p, out, g, a.reply(r, g.ID, now))
	})
}

// EndGrant ends a grant before its time.
func (a *Authority) EndGrant(ctx context.Context, s *policy.Subject, idOrName, id string) (budget.Grant, error) {
	if err := policy.Decide(s, policy.UserManage, policy.Resource{}); err != nil {
		return budget.Grant{}, err
	}
	return retry(func() (budget.Grant, error) {
		p, err := a.lookUp(ctx, idOrName)
		if err != nil {
			return budget.Grant{}, err
		}
		g, err := grantOf(p, id)
		if err != nil {
			return g, err
		}
		g.Until = a.now()
		return g, a.regrant(ctx, s, audit.QuotaEnd, p, p.EndGrant(id, g.Until), g, nil)
	})
}

func grantOf(p principal.Principal, id string) (budget.Grant, error) {
	i := slices.IndexFunc(p.Grants, func(g budget.Grant) bool { return g.ID == id })
	if i < 0 {
		return budget.Grant{}, principal.ErrNoGrant
	}
	return p.Grants[i], nil
}

// regrant commits a change of somebody's grants, and what it is.
func (a *Authority) regrant(ctx context.Context, s *policy.Subject, action audit.Action, was, is principal.Principal, g budget.Grant, reply *Reply) error {
	e := a.event(s, action, a.now())
	e.Target, e.Owner = string(is.ID), string(is.ID)
	e.Detail = map[string]string{"grant": g.ID, "gives": g.String(), "until": g.Until.Format(time.RFC3339), "why": g.Reason}
	_, err := a.commit(ctx, s, Decision{Principals: []PrincipalChange{{Old: &was, New: is}}, Reply: reply}, e)
	if err == nil {
		a.table.Drain(is.ID)
	}
	return err
}
