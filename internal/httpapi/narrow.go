package httpapi

import (
	"context"
	"net/netip"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/policy"
)

type (
	narrowIn struct {
		ByID
		IfMatch string `header:"If-Match" doc:"The ETag of what is to be changed"`
		Body    api.NarrowToken
	}
	ensureIn struct {
		ByID
		Idem
		Body *api.EnsureToken
	}
)

func (a *API) narrowToken(ctx context.Context, s *policy.Subject, in *narrowIn) (api.Token, error) {
	b := in.Body
	n := authority.Narrowing{Scopes: b.Scopes, Competitions: b.Competitions, Here: b.LockToLastAddress, Note: b.Note, Force: b.Force, Observe: b.Observe}
	var err error
	if n.Version, err = ifMatch(in.IfMatch); err != nil {
		return api.Token{}, err
	}
	if n.Budget, err = readBudget(b.Budget); err != nil {
		return api.Token{}, err
	}
	if b.AllowedCIDRs != nil {
		if n.CIDRs, err = networks(b.AllowedCIDRs); err != nil {
			return api.Token{}, err
		}
		if n.CIDRs == nil {
			n.CIDRs = []netip.Prefix{} // an empty list is not the same as none
		}
	}
	t, err := a.Authority.NarrowToken(ctx, s, in.ID, n)
	if err != nil {
		return api.Token{}, err
	}
	out, err := a.viewToken(ctx, t)
	out.Warnings = append(out.Warnings, normalised(b.AllowedCIDRs)...)
	return out, err
}

// ensureToken answers 200 in either case: created tells which.
func (a *API) ensureToken(ctx context.Context, s *policy.Subject, in *ensureIn) (api.Ensured, error) {
	b := api.CreateToken{Name: in.ID}
	if e := in.Body; e != nil {
		b = api.CreateToken{
			Name: in.ID, Scopes: e.Scopes, Competitions: e.Competitions, ExpiresIn: e.ExpiresIn, ExpiresAt: e.ExpiresAt,
			AllowedCIDRs: e.AllowedCIDRs, Observe: e.Observe, Budget: e.Budget, Note: e.Note,
		}
	}
	c, err := readCreate(b)
	if err != nil {
		return api.Ensured{}, err
	}
	made, err := a.Authority.EnsureToken(ctx, s, c, authority.Idem{Key: in.Key, Presented: in.secret})
	if err != nil {
		return api.Ensured{}, err
	}
	t, err := a.viewToken(ctx, made.Token)
	if made.Created {
		t.Warnings = normalised(b.AllowedCIDRs)
	}
	return api.Ensured{Created: made.Created, Secret: made.Secret.Reveal(), Token: t}, err
}
