package httpapi

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

type (
	createTokenIn struct {
		Idem
		Body api.CreateToken
	}
	rotateIn struct {
		ByID
		Idem
		Body *api.RotateToken
	}
	revokeIn struct {
		ByID
		Jobs string `query:"jobs" enum:"keep,cancel-queued,cancel" doc:"What becomes of the token's jobs; the body may say it instead"`
		Body *api.RevokeToken
	}
	revokeAllIn struct{ Body *api.RevokeAll }
	leaksIn     struct{ Body api.Leaks }
)

func (a *API) whoami(_ context.Context, s *policy.Subject, _ *None) (api.Whoami, error) {
	out := api.Whoami{
		TokenID: string(s.Token), Kind: s.Kind.String(), Scopes: some(s.Scopes), Job: s.Job,
		Until: instant(s.Until), By: string(s.By), Mode: modeOf(s)[0], Warnings: a.warnings(s),
	}
	if s.Local {
		out.Kind, out.Scopes = "local", []string{policy.ScopeAdmin}
	} else {
		u := viewUser(s.Principal)
		out.User = &u
	}
	if s.Addr.IsValid() {
		out.IP = s.Addr.String()
	}
	return out, nil
}

func (a *API) listTokens(ctx context.Context, s *policy.Subject, in *Paging) (api.Page[api.Token], error) {
	return a.tokensOf(ctx, s, "", in)
}

// tokensOf is one page of an owner's tokens, newest first. The cursor is the
// last one that was shown.
func (a *API) tokensOf(ctx context.Context, s *policy.Subject, owner principal.ID, in *Paging) (api.Page[api.Token], error) {
	page := api.Page[api.Token]{Items: []api.Token{}}
	list, err := a.Authority.Tokens(ctx, s, owner, token.ID(in.Cursor), in.Limit+1)
	if err != nil && in.Cursor != "" && fault.KindOf(err) == fault.NotFound {
		return page, errCursor
	}
	if err != nil {
		return page, err
	}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		page.NextCursor = string(list[in.Limit-1].ID)
	}
	views, err := a.Authority.Views(ctx, list)
	for _, v := range views {
		page.Items = append(page.Items, a.showToken(ctx, v))
	}
	return page, err
}

var errCursor = fault.New(fault.Invalid, "cursor_invalid", "The cursor is not one of this list's.").
	WithFix("Begin again without a cursor.")

func (a *API) createToken(ctx context.Context, s *policy.Subject, in *createTokenIn) (api.Issued, error) {
	c, err := readCreate(in.Body)
	if err != nil {
		return api.Issued{}, err
	}
	made, err := a.Authority.CreateToken(ctx, s, c, authority.Idem{Key: in.Key, Presented: in.secret})
	if err != nil {
		return api.Issued{}, err
	}
	out, err := a.viewIssued(ctx, made)
	out.Token.Warnings = normalised(in.Body.AllowedCIDRs)
	return out, err
}

func readCreate(b api.CreateToken) (authority.Create, error) {
	c := authority.Create{Name: b.Name, Scopes: b.Scopes, Note: b.Note, Replace: b.Replace, Observe: b.Observe}
	if len(b.Competitions) != 1 || b.Competitions[0] != "*" {
		c.Competitions = b.Competitions
	}
	if b.ExpiresAt != nil && b.ExpiresIn != "" {
		return c, fault.New(fault.Invalid, "expiry_twice", "expires_in and expires_at exclude each other.").WithFix("Send one of them.")
	}
	if b.ExpiresAt != nil {
		c.ExpiresAt = *b.ExpiresAt
	}
	var err error
	if c.Lifetime, err = duration(b.ExpiresIn); err != nil {
		return c, err
	}
	if c.Budget, err = readBudget(b.Budget); err != nil {
		return c, err
	}
	c.CIDRs, err = networks(b.AllowedCIDRs)
	return c, err
}

// duration reads a span such as 90d; nothing is zero.
func duration(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := config.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fault.New(fault.Invalid, "duration_invalid", "That is no span of time.").WithFix("Write it as 90d, 12h or 30m.")
	}
	return d, nil
}

// mostNetworks bounds the rules of one token (R2.2).
const mostNetworks = 50

// networks reads address rules: networks or single addresses, in one form.
func networks(list []string) ([]netip.Prefix, error) {
	if len(list) > mostNetworks {
		return nil, fault.New(fault.Invalid, "cidr_invalid", "A token has at most %d networks.", mostNetworks).WithFix("Join neighbouring networks.")
	}
	bad := fault.New(fault.Invalid, "cidr_invalid", "One of the networks cannot be read.").
		WithFix("Write them as 10.0.0.0/8, 192.0.2.7 or fd00::/8.")
	var out []netip.Prefix
	for _, s := range list {
		p, ok := network(s)
		if !ok {
			return nil, bad
		}
		out = append(out, p)
	}
	return out, nil
}

// network reads one rule in its one form: no bits beyond the prefix, and an IPv4
// address as such.
func network(s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if a := plain(s); err != nil && a.IsValid() {
		p, err = a.Prefix(a.BitLen())
	}
	if err == nil && p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, false // wider than all of IPv4: it would match nothing once unmapped
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), err == nil
}

// normalised warns of networks that were not given in their one form: who wrote
// 10.1.2.3/8 may have meant another one.
func normalised(list []string) (out []api.Warning) {
	for _, s := range list {
		p, ok := network(s)
		if given, err := netip.ParsePrefix(s); ok && err == nil && given != p {
			out = append(out, api.Warning{Code: "cidr_normalised", Detail: fmt.Sprintf("%s was taken as %s.", given, p)})
		}
	}
	return out
}

func (a *API) getToken(ctx context.Context, s *policy.Subject, in *ByID) (api.Token, error) {
	t, err := a.Authority.Find(ctx, s, in.ID)
	if err != nil {
		return api.Token{}, err
	}
	return a.viewToken(ctx, t)
}

func (a *API) revokeToken(ctx context.Context, s *policy.Subject, in *revokeIn) (api.Revoked, error) {
	b := api.RevokeToken{}
	if in.Body != nil {
		b = *in.Body
	}
	if b.Jobs == "" {
		b.Jobs = in.Jobs
	}
	jobs, err := token.ParseWish(b.Jobs, token.Keep)
	if err != nil {
		return api.Revoked{}, err
	}
	r, err := a.Authority.Revoke(ctx, s, in.ID, b.Reason, jobs)
	if err != nil {
		return api.Revoked{}, err
	}
	a.nudge()
	v, err := a.viewToken(ctx, r.Token)
	return api.Revoked{Token: v, Already: r.Already, Revision: r.Revision}, err
}

// nudge lets the reconciler look at once for jobs that have lost their right
// to run; it would find them by itself a little later.
func (a *API) nudge() {
	if a.Grading != nil {
		a.Grading.Nudge()
	}
}

func (a *API) rotateToken(ctx context.Context, s *policy.Subject, in *rotateIn) (api.Issued, error) {
	r := authority.Rotate{Token: in.ID}
	if b := in.Body; b != nil {
		r.Compromised, r.ReplaceUnused = b.Compromised, b.ReplaceUnused
		if b.Grace != "" {
			grace, err := duration(b.Grace)
			if err != nil {
				return api.Issued{}, err
			}
			r.Grace = &grace
		}
	}
	made, err := a.Authority.RotateToken(ctx, s, r, authority.Idem{Key: in.Key, Presented: in.secret})
	if err != nil {
		return api.Issued{}, err
	}
	return a.viewIssued(ctx, made)
}

func (a *API) renewToken(ctx context.Context, s *policy.Subject, in *ByID) (api.Renewed, error) {
	r, err := a.Authority.Renew(ctx, s, in.ID)
	if err != nil {
		return api.Renewed{}, err
	}
	t, err := a.viewToken(ctx, r.Token)
	return api.Renewed{
		Token: t, Renewed: r.After.At.After(r.Before.At), LimitedBy: r.Limit, Policy: r.After.Level,
		EndedBefore: instant(r.Before.At), EffectiveEnd: instant(r.After.At),
	}, err
}

func (a *API) suspendToken(ctx context.Context, s *policy.Subject, in *ByID) (api.Token, error) {
	t, err := a.Authority.Suspend(ctx, s, in.ID)
	if err != nil {
		return api.Token{}, err
	}
	return a.viewToken(ctx, t)
}

func (a *API) resumeToken(ctx context.Context, s *policy.Subject, in *ByID) (api.Token, error) {
	t, err := a.Authority.Resume(ctx, s, in.ID)
	if err != nil {
		return api.Token{}, err
	}
	return a.viewToken(ctx, t)
}

func (a *API) revokeAllTokens(ctx context.Context, s *policy.Subject, in *revokeAllIn) (api.User, error) {
	keep := in.Body != nil && in.Body.Keep == "self"
	if in.Body != nil && in.Body.Keep != "" && !keep {
		return api.User{}, fault.New(fault.Invalid, "keep_unknown", "Only the token that asks can be kept.").WithFix(`{"keep": "self"}`)
	}
	p, err := a.Authority.RevokeAll(ctx, s, "", keep)
	if err != nil {
		return api.User{}, err
	}
	a.nudge()
	return viewUser(p), nil
}

// reportLeaks answers every report alike: who reports may be an attacker who
// wants to know which of his finds are real.
func (a *API) reportLeaks(ctx context.Context, s *policy.Subject, in *leaksIn) (api.LeaksAccepted, error) {
	secrets := make([]string, len(in.Body.Tokens))
	for i, t := range in.Body.Tokens {
		secrets[i] = strings.TrimSpace(t)
	}
	if err := a.endLeaked(ctx, s, secrets); err != nil {
		return api.LeaksAccepted{}, err
	}
	return api.LeaksAccepted{Accepted: len(secrets), Detail: "Thank you. Whatever of this is a secret of ours is of no use to a finder any more."}, nil
}

// endLeaked ends whatever was reported, or found where no secret belongs.
func (a *API) endLeaked(ctx context.Context, s *policy.Subject, secrets []string) error {
	if err := a.Authority.ReportLeak(ctx, s, secrets); err != nil || a.Grading == nil {
		return err
	}
	defer a.nudge()
	return a.Grading.ReportLeak(ctx, s, secrets)
}
