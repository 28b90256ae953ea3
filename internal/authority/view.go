package authority

import (
	"context"

	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// View is a token as it is shown: the record, what it is at this moment, and
// which clock is the nearest.
type View struct {
	token.Token
	State  token.State
	Clocks token.Clocks
	Ends   token.Ending
	Use    token.Use
	// Guesses are wrong secrets that were tried with its id.
	Guesses token.Guesses
	// Ownerless: it is quarantined because nobody answers for its service.
	Ownerless bool
}

// View computes what is shown of a token.
func (a *Authority) View(ctx context.Context, t token.Token) (View, error) {
	v, err := a.Views(ctx, []token.Token{t})
	if err != nil {
		return View{}, err
	}
	return v[0], nil
}

// Views computes what is shown of several tokens of one owner.
func (a *Authority) Views(ctx context.Context, list []token.Token) ([]View, error) {
	if len(list) == 0 {
		return nil, nil
	}
	p, err := a.store.Principal(ctx, list[0].Owner)
	if err != nil {
		return nil, err
	}
	out := make([]View, len(list))
	for i, t := range list {
		out[i] = a.view(t, p)
	}
	return out, nil
}

func (a *Authority) view(t token.Token, owner principal.Principal) View {
	h, past, now := a.table.Holder(owner), a.table.History(&t), a.now()
	v := View{Token: t, Use: a.table.LastUse(t.ID), Guesses: a.table.Guesses(t.ID), Clocks: t.Clocks(&h, past, now)}
	v.State, v.Ends = a.table.Judge(&t, &owner, now)
	v.Ownerless = v.State == token.StateQuarantined && h.Quarantines(now)
	if v.Ends.Clock == "" { // a decision came first; when it would have ended is still worth knowing
		v.Ends = v.Clocks.Nearest()
	}
	return v
}
