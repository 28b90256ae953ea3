package authority

import (
	"context"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// Renewed is what Renew answers.
type Renewed struct {
	Token token.Token
	token.Renewed
}

// Renew puts a token's end off as far as the policies let it: R1.1. A personal
// token that asks for itself is renewed by that very use.
func (a *Authority) Renew(ctx context.Context, s *policy.Subject, idOrName string) (Renewed, error) {
	return retry(func() (Renewed, error) {
		t, err := a.find(ctx, s, idOrName)
		if err != nil {
			return Renewed{}, err
		}
		itself := t.ID == s.Token
		if !itself {
			if err := policy.Decide(s, policy.TokenRenew, a.resource(s, t.Owner)); err != nil {
				return Renewed{}, masked(err)
			}
		}
		owner, err := a.ownerOf(ctx, s, &t)
		if err != nil {
			return Renewed{}, err
		}
		now := a.now()
		h, past := a.table.Holder(owner), a.table.History(&t)
		if state := t.State(&h, past, now); state != token.StateActive {
			return Renewed{}, fault.New(fault.Conflict, "token_"+string(state), "The token is %s and cannot be renewed.", state).
				WithFix("Create another one: gradegate token create")
		}
		is, done := t.Renew(&h, past, itself, now)
		out := Renewed{Token: is, Renewed: done}
		if is.Version == t.Version {
			return out, nil
		}
		e := a.event(s, audit.TokenRenew, now)
		e.Target, e.Owner = string(t.ID), string(t.Owner)
		_, err = a.commit(ctx, s, Decision{Tokens: []TokenChange{{Old: &t, New: is}}}, e)
		return out, err
	})
}
