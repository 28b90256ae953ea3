package token

import (
	"time"

	"gradegate/internal/principal"
)

// Defaults of the clocks; policy may only make them stricter.
const (
	DefaultLifetime    = 90 * day
	MinLifetime        = 15 * time.Minute
	DefaultMaxLifetime = 365 * day
	DefaultIdle        = 30 * day
	ServiceIdle        = 100 * day
	DefaultUnused      = 14 * day
	DefaultRotateAfter = 90 * day
	SessionLifetime    = 12 * time.Hour
	SessionMax         = 24 * time.Hour
	InviteLifetime     = 24 * time.Hour
	RefreshLifetime    = 30 * day // of a sign-in that is not refreshed
	RefreshMax         = 90 * day // of a sign-in
	DefaultGrace       = 24 * time.Hour
	MaxGrace           = 7 * day
	// ReadAfter is how long a token whose end was a clock still reads and
	// cancels what was submitted before (R1.4).
	ReadAfter = day
	// ReactivateWithin is how long after its idle end a token may be brought
	// back by its owner, signed in with another credential.
	ReactivateWithin = 7 * day

	day = 24 * time.Hour
)

// State is what a token is at one instant, given its owner.
type State string

// The states, in words that the holder of the secret is told.
const (
	StateActive        State = "active"
	StateSuspended     State = "suspended"
	StateQuarantined   State = "quarantined"
	StateUnproven      State = "unproven"
	StateExpired       State = "expired"
	StateIdleExpired   State = "idle_expired"
	StateRotated       State = "rotated"
	StateRevoked       State = "revoked"
	StateOwnerInactive State = "owner_inactive"
	StateParentEnded   State = "parent_ended" // the token that it was made from is not active
)

// Clock names one of the instants at which a token ends.
type Clock string

// The clocks.
const (
	ClockExpires Clock = "expires_at"
	ClockIdle    Clock = "idle_expires_at"
	ClockMax     Clock = "max_expires_at"
	ClockRotate  Clock = "rotate_by"
	ClockGrace   Clock = "grace_until"
	ClockPolicy  Clock = "policy" // its kind is not allowed any more
)

// End is one instant at which a token ends, and which level of policy says so.
type End struct {
	At    time.Time // zero: this clock does not run
	Level string
}

// Clocks are the instants at which a token ends unless something moves them.
type Clocks struct {
	Expires End
	Idle    End
	Max     End
	Rotate  End // when rotation is due; it ends the token only if Enforced
	Grace   End
	Policy  End
	// Enforced is when rotation that is enforced ends the token.
	Enforced End
}

// RestTime is how long a predecessor must have been unused for its grace period
// to close once the successor was used (R2.1).
const RestTime = 10 * time.Minute

// Clocks computes the clocks at now from the token's facts, its uses and what
// its holder is under. They are never written down per use.
func (t *Token) Clocks(h *Holder, past History, now time.Time) Clocks {
	used, never := past.LastUse, past.LastUse.IsZero() && t.RenewedAt.IsZero()
	if t.RenewedAt.After(used) {
		used = t.RenewedAt
	}
	if never {
		used = t.IssuedAt
	}
	c := Clocks{Expires: End{t.expires(used), OwnLevel}, Grace: End{t.grace(past), OwnLevel}}
	// A predecessor in its grace period is not renewed by use.
	if !c.Grace.At.IsZero() && c.Expires.At.After(c.Grace.At) {
		c.Expires = c.Grace
	}
	for i := range h.Terms {
		if r := &h.Terms[i]; t.underTerms() && (r.Until.IsZero() || now.Before(r.Until)) {
			t.clocksUnder(&c, r, h.Outages, used, never)
		}
	}
	// The token's own facts last: what they share with a policy is the policy's.
	if t.MaxLifetime > 0 {
		c.Max.earlier(t.BornAt.Add(t.MaxLifetime), OwnLevel)
	}
	if d := t.idle(never); d > 0 {
		c.Idle.earlier(h.Outages.Extend(used, d), OwnLevel)
	}
	if t.RotateAfter > 0 {
		due := t.IssuedAt.Add(t.RotateAfter)
		c.Rotate.earlier(due, OwnLevel)
		if t.EnforceRotation {
			c.Enforced.earlier(due, OwnLevel)
		}
	}
	return c
}

// clocksUnder adds what one level's terms say. An end that lies behind their
// own is none: other terms are in force by then.
func (t *Token) clocksUnder(c *Clocks, r *Terms, o Outages, used time.Time, never bool) {
	ends := func(e *End, at time.Time) {
		if r.Until.IsZero() || at.Before(r.Until) {
			e.earlier(at, r.Level)
		}
	}
	if r.MaxLifetime.Span > 0 {
		ends(&c.Max, r.MaxLifetime.end(t.BornAt))
	}
	if idle := r.idle(t, never); idle.Span > 0 {
		end := o.Extend(used, idle.Span)
		if end.Before(idle.Since) {
			end = idle.Since
		}
		ends(&c.Idle, end)
	}
	if r.RotateAfter.Span > 0 {
		ends(&c.Rotate, r.RotateAfter.end(t.IssuedAt))
	}
	if r.Enforced.Span > 0 {
		ends(&c.Enforced, r.Enforced.end(t.IssuedAt))
	}
	if r.SessionsOnly.On && t.Kind != Service {
		ends(&c.Policy, Limit{Since: r.SessionsOnly.Since}.end(t.IssuedAt))
	}
}

// earlier moves an end forward in time, never back. The zero end is none.
func (e *End) earlier(at time.Time, level string) {
	if e.Level == "" || at.Before(e.At) {
		e.At, e.Level = at, level
	}
}

// underTerms: what is made for an hour or a day has its own rules.
func (t *Token) underTerms() bool {
	return t.Kind == Personal || t.Kind == Service || t.Kind == Legacy
}

func (t *Token) expires(used time.Time) time.Time {
	if t.Renewal != Sliding {
		return t.FixedEnd
	}
	return used.Add(t.Lifetime)
}

// grace is when a predecessor ends: early, once its successor was used and it
// has rested; never later than was said at the rotation.
func (t *Token) grace(past History) time.Time {
	if t.GraceUntil.IsZero() || past.Succeeded.IsZero() {
		return t.GraceUntil
	}
	rest := past.Succeeded
	if past.LastUse.After(rest) {
		rest = past.LastUse
	}
	if rest = rest.Add(RestTime); rest.Before(t.GraceUntil) {
		return rest
	}
	return t.GraceUntil
}

func (t *Token) idle(never bool) time.Duration {
	if never {
		return t.Unused
	}
	return t.Idle
}

func (r *Terms) idle(t *Token, never bool) Limit {
	switch {
	case never:
		return r.Unused
	case t.Kind == Service:
		return r.ServiceIdle
	}
	return r.Idle
}

// Ending is when and why a token ends.
type Ending struct {
	End
	Clock Clock
	// Due is when its rotation is due, which is no end by itself; zero: never.
	Due time.Time
}

// Nearest is the first instant at which the token ends, the clock that says
// so, and the level of policy behind it. The zero time means that no clock runs.
func (c *Clocks) Nearest() (first Ending) {
	first.earliest(c.Grace, ClockGrace)
	first.earliest(c.Expires, ClockExpires)
	first.earliest(c.Idle, ClockIdle)
	first.earliest(c.Max, ClockMax)
	first.earliest(c.Enforced, ClockRotate)
	first.earliest(c.Policy, ClockPolicy)
	first.Due = c.Rotate.At
	return first
}

func (n *Ending) earliest(e End, by Clock) {
	if e.Level != "" && !e.At.IsZero() && (n.Clock == "" || e.At.Before(n.At)) {
		n.End, n.Clock = e, by
	}
}

// Nearest is the nearest of the token's clocks.
func (t *Token) Nearest(h *Holder, past History, now time.Time) Ending {
	c := t.Clocks(h, past, now)
	return c.Nearest()
}

// State is what the token is at now, given its holder and its uses. What
// somebody decided comes before what a clock says, and the strictest decision
// first: a revoked token is revoked, however long expired.
func (t *Token) State(h *Holder, past History, now time.Time) State {
	state, _ := t.Judge(h, past, now)
	return state
}

// ReadsAfter reports whether a token in that state, whose nearest clock is end,
// may at now still read and cancel what was submitted before (R1.4): its end
// was a clock and nothing but a clock, and lies a day back at most.
func (t *Token) ReadsAfter(h *Holder, s State, end Ending, now time.Time) bool {
	return (s == StateExpired || s == StateIdleExpired) && t.Standing == Standard && t.GraceUntil.IsZero() &&
		end.Clock != ClockPolicy && now.Before(end.At.Add(ReadAfter)) && !h.Quarantines(now)
}

// Judge is State together with the nearest clock, which is computed only where
// no decision comes before it.
func (t *Token) Judge(h *Holder, past History, now time.Time) (State, Ending) {
	switch {
	case t.Standing == Revoked, past.After == Revoked, t.Epochs.Credentials < h.Epochs.Credentials, t.Epochs.Person < h.Epochs.Person:
		return StateRevoked, Ending{}
	case h.Status != principal.Active:
		return StateOwnerInactive, Ending{}
	case t.Standing == Unproven:
		return StateUnproven, Ending{}
	}
	standing := t.Standing
	if past.After != "" && past.After.StricterThan(standing) {
		standing = past.After
	}
	if standing == Standard && h.Quarantines(now) {
		standing = Quarantined
	}
	end := t.Nearest(h, past, now)
	switch {
	case standing == Suspended:
		return StateSuspended, end
	case standing != Standard && standing != Quarantined:
		return StateUnproven, end // an unknown word is doubt, and doubt tightens
	case end.Clock == "" || now.Before(end.At):
		if standing == Quarantined {
			return StateQuarantined, end
		}
		return StateActive, end
	case !t.GraceUntil.IsZero() && (end.Clock == ClockGrace || !now.Before(t.GraceUntil)):
		return StateRotated, end
	case end.Clock == ClockIdle:
		return StateIdleExpired, end
	}
	return StateExpired, end
}
