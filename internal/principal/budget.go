package principal

import (
	"slices"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/fault"
)

// mostGrants bounds how many grants one principal has at a time, and mostGrant
// how long one lasts.
const (
	mostGrants = 16
	mostGrant  = 366 * budget.Day
)

// SetBudget returns the principal bounded to b; the same version if it was so.
func (p Principal) SetBudget(b budget.Budget, now time.Time) (Principal, error) {
	if err := b.Check(); err != nil || b == p.Budget {
		return p, err
	}
	p.Budget = b
	return p.changed(now), nil
}

// Grant returns the principal with one more grant. Those that have ended are
// forgotten; the audit trail has them.
func (p Principal) Grant(g budget.Grant, now time.Time) (Principal, error) {
	if p.Status == Deprovisioned {
		return p, ErrDeprovisioned
	}
	given := budget.Budget{GPU: g.GPU, Jobs: g.Jobs}
	if g.GPU > 0 {
		given.Per = budget.Day
	}
	if err := given.Check(); err != nil {
		return p, err
	}
	switch left := g.Until.Sub(now); {
	case given.IsZero():
		return p, fault.New(fault.Invalid, "grant_empty", "Nothing is granted.").WithFix("Say how much: --gpu-hours 8, or --concurrent 2")
	case left <= 0 || left > mostGrant:
		return p, fault.New(fault.Invalid, "grant_span", "A grant lasts for a year at most, and ends in the future.").WithFix("Use for example --for 7d")
	case g.Reason == "":
		return p, fault.New(fault.Invalid, "reason_missing", "A grant needs a reason, for who asks later.").WithFix("Say why: --reason 'deadline of the challenge'")
	}
	p.Grants = append(budget.Standing(p.Grants, now), g)
	if len(p.Grants) > mostGrants {
		return p, fault.New(fault.Conflict, "too_many_grants", "There are %d grants for this person already.", mostGrants).
			WithFix("End one of them: gradegate quota show --user NAME, then gradegate quota end NAME GRANT")
	}
	return p.changed(now), nil
}

// EndGrant returns the principal without a grant.
func (p Principal) EndGrant(id string, now time.Time) Principal {
	p.Grants = slices.DeleteFunc(budget.Standing(p.Grants, now), func(g budget.Grant) bool { return g.ID == id })
	return p.changed(now)
}

// ErrNoGrant is the answer for a grant that is not there any more.
var ErrNoGrant = fault.New(fault.NotFound, "grant_not_found", "There is no such grant, or it has ended.").WithFix("gradegate quota show --user NAME")
