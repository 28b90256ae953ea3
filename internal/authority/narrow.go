package authority

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"gradegate/internal/audit"
	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Narrowing takes something away from a token; nil members stay as they are.
// What it has lost it does not get back: make another one.
type Narrowing struct {
	Scopes       []string
	Competitions []string
	CIDRs        []netip.Prefix
	Observe      *bool         // marks a use from outside of them, and does not refuse it
	Budget       budget.Budget // what of it is zero stays
	// Here limits it to the network that it was last used from.
	Here bool
	Note *string
	// Force accepts networks that the one who asks is not in.
	Force   bool
	Version int64 // that must still stand; zero: any
}

// NarrowToken takes rights away from one of the subject's own tokens.
func (a *Authority) NarrowToken(ctx context.Context, s *policy.Subject, idOrName string, n Narrowing) (token.Token, error) {
	return retry(func() (token.Token, error) {
		t, err := a.find(ctx, s, idOrName)
		if err != nil {
			return t, err
		}
		if err := policy.Decide(s, policy.TokenNarrow, a.resource(s, t.Owner)); err != nil {
			return token.Token{}, masked(err)
		}
		if n.Version != 0 && n.Version != t.Version {
			return t, fault.New(fault.Mismatched, "etag_mismatch", "The token has changed since you read it.").WithFix("Read it again: gradegate token show %s", fault.Word(idOrName))
		}
		is, err := a.narrowed(s, t, n)
		if err != nil || is.Version == t.Version {
			return t, err
		}
		e := a.event(s, audit.TokenNarrow, a.now())
		e.Target, e.Owner = string(t.ID), string(t.Owner)
		e.Detail = map[string]string{"scopes": strings.Join(is.Scopes, " "), "competitions": strings.Join(is.Competitions, " "), "networks": texts(is.CIDRs)}
		if is.Budget != t.Budget {
			e.Detail["budget"] = is.Budget.String()
		}
		if _, err := a.commit(ctx, s, Decision{Tokens: []TokenChange{{Old: &t, New: is}}}, e); err != nil {
			return t, err
		}
		a.table.Drain(t.Owner)
		return is, nil
	})
}

func (a *Authority) narrowed(s *policy.Subject, t token.Token, n Narrowing) (token.Token, error) {
	if t.Standing == token.Revoked {
		return t, token.ErrRevoked
	}
	is := t
	var err error
	if n.Scopes != nil {
		if len(n.Scopes) == 0 {
			return t, fault.New(fault.Invalid, "scopes_empty", "A token without scopes can do nothing.").WithFix("Revoke it: gradegate token revoke %s", t.ID)
		}
		if is.Scopes, err = policy.Narrow(n.Scopes, t.Scopes); err != nil {
			return t, err
		}
	}
	if n.Competitions != nil {
		if err := narrowCompetitions(n.Competitions, a.table.Reach(t.Competitions)); err != nil {
			return t, err
		}
		if len(n.Competitions) == 0 && len(t.Competitions) > 0 {
			return t, fault.New(fault.Denied, "competition_widened", "An empty list would mean every competition.").WithFix("Name at least one.")
		}
		is.Competitions = n.Competitions
	}
	if is, err = a.placed(s, is, n); err != nil {
		return t, err
	}
	if is.Budget = n.Budget.Or(t.Budget); is.Budget != t.Budget {
		if err := is.Budget.Check(); err != nil {
			return t, err
		}
		if !is.Budget.Within(t.Budget) {
			return t, fault.New(fault.Denied, "budget_widened", "The token has a budget already (%s), and it is only ever lowered.", t.Budget).
				WithFix("Ask for less, in a stretch of time that is no shorter: gradegate token show %s", fault.Word(t.Name))
		}
	}
	if n.Note != nil {
		is.Note = audit.Clean(*n.Note, 200)
	}
	if slices.Equal(is.Scopes, t.Scopes) && slices.Equal(is.Competitions, t.Competitions) && slices.Equal(is.CIDRs, t.CIDRs) && is.Observe == t.Observe && is.Budget == t.Budget && is.Note == t.Note {
		return t, nil
	}
	is.Version++
	return is, nil
}

// placed is a token with the networks that a narrowing gives it. Networks that are
// only observed limit nothing yet, so that any others may take their place.
func (a *Authority) placed(s *policy.Subject, t token.Token, n Narrowing) (token.Token, error) {
	networks, is := n.CIDRs, t
	if n.Here {
		addr := a.table.LastUse(t.ID).Addr
		if t.ID == s.Token {
			addr = s.Addr // this is its last use
		}
		if !addr.IsValid() {
			return t, fault.New(fault.Conflict, "never_used", "The token was never used, so that nothing says from where.").WithFix("Name the networks: --cidr 10.0.0.0/8")
		}
		networks = []netip.Prefix{hostOf(addr)}
	}
	if networks == nil && n.Observe == nil {
		return t, nil
	}
	var err error
	if networks != nil {
		if len(networks) == 0 && len(t.CIDRs) > 0 {
			return t, fault.New(fault.Denied, "network_widened", "An empty list would mean every network.").WithFix("Name at least one.")
		}
		if is.CIDRs, err = narrowNetworks(networks, t.Networks(), false); err != nil {
			return t, err
		}
	}
	if n.Observe != nil {
		if is.Observe = *n.Observe; is.Observe {
			err = observable(is.CIDRs, t.Networks())
		}
	}
	if err == nil && t.ID == s.Token && !n.Force && len(is.Networks()) > 0 && !policy.Within(is.CIDRs, s.Addr) {
		err = errLocksOut.WithFix("Add your network (gradegate whoami shows your address), observe first (--observe), or say that you mean it: --force")
	}
	return is, err
}

// hostOf is the network that one machine has to itself.
func hostOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, _ := addr.Prefix(bits) // within the length of its family
	return p
}

func texts(list []netip.Prefix) string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return strings.Join(out, " ")
}

// Ensured is what EnsureToken answers.
type Ensured struct {
	Issued
	Created bool // else the token was there, and its secret is with whoever has it
}

// EnsureToken gives the subject's own token of a name, and makes it only if
// there is none: what a script that runs again and again wants (R9.2). A token
// that is there is not changed.
func (a *Authority) EnsureToken(ctx context.Context, s *policy.Subject, c Create, idem Idem) (Ensured, error) {
	if err := policy.Decide(s, policy.TokenCreate, policy.Resource{Owner: s.Principal.ID}); err != nil {
		return Ensured{}, err
	}
	if s.Principal.Kind == principal.Service {
		return Ensured{}, errServiceMints
	}
	r := repeat(s, idem, "token.ensure", c)
	again := func(known Reply) (Ensured, error) {
		made, err := a.reissue(ctx, r)(known)
		return Ensured{Issued: made, Created: true}, err
	}
	return once(ctx, a, r, again, func() (Ensured, error) {
		own, err := a.store.TokensOf(ctx, s.Principal.ID, Among{Kind: token.Personal, Name: c.Name, Open: true})
		if err != nil {
			return Ensured{}, err
		}
		now := a.now()
		for _, t := range own {
			if a.counts(&t, &s.Principal, now) {
				return Ensured{Issued: Issued{Token: t}}, nil
			}
		}
		made, err := a.createOnce(ctx, s, s.Principal, c, r)
		if err != nil && fault.CodeOf(err) == "name_taken" {
			err = ErrMoved // somebody made it meanwhile
		}
		return Ensured{Issued: made, Created: err == nil}, err
	})
}
