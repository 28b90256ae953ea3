package authority

import (
	"context"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// Exchange asks for a child of the token that asks (RFC 8693).
type Exchange struct {
	Scopes   []string      // none: all that the parent has
	Lifetime time.Duration // zero: an hour; a day at most
	Name     string
}

const (
	exchangeLifetime = time.Hour
	exchangeLeast    = time.Minute
	// mostParents is how many generations of children there may be.
	mostParents = 3
)

// ExchangeToken makes a session token that can do no more than the token that
// asks, lives no longer than it, and dies with it.
func (a *Authority) ExchangeToken(ctx context.Context, s *policy.Subject, x Exchange) (Issued, error) {
	if s.Token == "" || s.Mode != "" {
		return Issued{}, fault.New(fault.Denied, "not_exchangeable", "Only an active token can be exchanged for a child of it.").
			WithFix("Sign in again: gradegate login --invite CODE")
	}
	if x.Lifetime == 0 {
		x.Lifetime = exchangeLifetime
	}
	if x.Lifetime < exchangeLeast || x.Lifetime > token.SessionMax {
		return Issued{}, fault.New(fault.Invalid, "lifetime_out_of_range", "A child lives between a minute and 24 hours.").WithFix("Use for example expires_in=3600")
	}
	scopes, err := policy.Narrow(x.Scopes, s.Scopes)
	if err != nil {
		return Issued{}, err
	}
	if x.Name == "" {
		x.Name = "exchanged"
	}
	name, err := tokenName(x.Name)
	if err != nil {
		return Issued{}, err
	}
	if err := a.shallow(ctx, s.Token); err != nil {
		return Issued{}, err
	}
	now := a.now()
	return token.Draw(func() (Issued, error) { return a.child(ctx, s, x, scopes, name, now) })
}

// child is made of the token that asks.
func (a *Authority) child(ctx context.Context, s *policy.Subject, x Exchange, scopes []string, name string, now time.Time) (Issued, error) {
	end := now.Add(x.Lifetime)
	if !s.Until.IsZero() && s.Until.Before(end) {
		end = s.Until
	}
	made := a.session(s.Principal, name, now)
	made.Token.Scopes, made.Token.Competitions, made.Token.CIDRs, made.Token.Parent = scopes, a.table.Handed(s.Competitions), s.CIDRs, s.Token
	made.Token.Lifetime, made.Token.FixedEnd = x.Lifetime, end
	e := a.event(s, audit.TokenIssue, now)
	e.Target, e.Owner = string(made.Token.ID), string(s.Principal.ID)
	e.Detail = map[string]string{"kind": made.Token.Kind.String(), "parent": string(s.Token), "scopes": strings.Join(scopes, " ")}
	_, err := a.commit(ctx, s, Decision{Tokens: []TokenChange{{New: made.Token}}}, e)
	return made, err
}

// shallow refuses a line of children that is longer than anybody can follow.
func (a *Authority) shallow(ctx context.Context, id token.ID) error {
	for range mostParents {
		t, err := a.store.Token(ctx, id)
		if err != nil || t.Parent == "" {
			return err
		}
		id = t.Parent
	}
	return fault.New(fault.Denied, "exchange_too_deep", "This token is a child of a child already.").
		WithFix("Exchange the token that it was made from.")
}
