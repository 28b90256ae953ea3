package policy

import (
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Bounds are the budgets that bear at now on what is taken with a token: those
// of its owner, of the policies and of the token itself and all that it was
// made from, which are its line. All of them hold, so that the strictest wins.
// The first is the owner's own; it and those of the line are there also if they
// bound nothing, since use is booked on their accounts.
func Bounds(rules []Rules, p *principal.Principal, line []token.Token, now time.Time) []budget.Bound {
	granted, own := budget.Granted(p.Grants, now), string(p.ID)
	out := []budget.Bound{budget.Bound{Account: own, Level: budget.UserLevel, Budget: p.Budget}.Raise(granted)}
	for i := range rules {
		if r := &rules[i]; r.InForce(now) && !r.Budget.IsZero() {
			out = append(out, budget.Bound{Account: own, Level: r.Level, Budget: r.Budget}.Raise(granted))
		}
	}
	for i := range line {
		k := &line[i]
		out = append(out, budget.Bound{Account: string(k.Charged()), Level: budget.TokenLevel, Token: string(k.ID), Name: k.Name, Budget: k.Budget})
	}
	return out
}

// Covers refuses to hand out a credential that could take more than the one
// that asks for it: one with a budget makes only what counts for that budget.
func Covers(asks, gets []budget.Bound) error {
	for _, a := range asks {
		if a.Level != budget.TokenLevel || a.Budget.IsZero() {
			continue
		}
		kept := false
		for _, g := range gets {
			kept = kept || g.Account == a.Account && g.Budget.Within(a.Budget)
		}
		if !kept {
			return fault.New(fault.Denied, "budget_widened", "The token %s has a budget (%s), and what it makes would not count for it.", a.Name, a.Budget).
				WithFix("Rotate it (gradegate token rotate self), exchange it for a child, or ask with your session: gradegate login --invite CODE")
		}
	}
	return nil
}
