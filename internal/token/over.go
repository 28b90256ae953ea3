package token

import (
	"time"

	"gradegate/internal/principal"
)

// Over is when a token ended for good, at the latest, and what it is since.
type Over struct {
	At    time.Time
	State State
}

// Over tells whether the token has ended and does not come back by itself, from
// facts and now alone. changed is when the record of its owner was changed last:
// no epoch was raised after that. What is only stopped (suspended, quarantined,
// unproven, its owner suspended) is not over until one of its clocks is.
func (t *Token) Over(h *Holder, changed time.Time, past History, now time.Time) (o Over, over bool) {
	clocks := *t
	clocks.Standing = Standard
	free := Holder{Status: principal.Active, Terms: h.Terms, Outages: h.Outages}
	if state, end := clocks.Judge(&free, History{LastUse: past.LastUse, Succeeded: past.Succeeded}, now); state != StateActive {
		o, over = Over{At: end.At, State: state}, true
	}
	// The earlier of two ends is the one that was first; of revoked and expired
	// the answer to its holder is revoked.
	revoked := func(at time.Time) {
		if !over || at.Before(o.At) {
			o.At = at
		}
		o.State, over = StateRevoked, true
	}
	if t.Standing == Revoked && !t.RevokedAt.IsZero() {
		revoked(t.RevokedAt)
	}
	if t.Epochs.Credentials < h.Epochs.Credentials || t.Epochs.Person < h.Epochs.Person {
		revoked(changed)
	}
	return o, over
}
