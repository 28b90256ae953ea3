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
	DefaultGrace       = 24 * time.Hour
	MaxGrace           = 7 * day
	// RevokedVisible is how long an ended token still says why it ended.
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
)

// Clocks are the instants at which a token ends unless something moves them.
// Zero means that the clock does not run for this token.
type Clocks struct {
	ExpiresAt     time.Time
	IdleExpiresAt time.Time
	MaxExpiresAt  time.Time
	RotateBy      time.Time // ends the token only if rotation is enforced
	GraceUntil    time.Time
}

// Clocks computes the clocks from the token's facts and its last use (zero:
// never used). They are never written down per use.
func (t *Token) Clocks(lastUse time.Time) Clocks {
	c := Clocks{GraceUntil: t.GraceUntil}
	if t.MaxLifetime > 0 {
		c.MaxExpiresAt = t.BornAt.Add(t.MaxLifetime)
	}
	switch {
	case t.Renewal == Sliding && lastUse.After(t.IssuedAt):
		c.ExpiresAt = lastUse.Add(t.Lifetime)
	case t.Renewal == Sliding:
		c.ExpiresAt = t.IssuedAt.Add(t.Lifetime)
	default:
		c.ExpiresAt = t.FixedEnd
	}
	// A predecessor in its grace period is not renewed by use.
	if !t.GraceUntil.IsZero() && c.ExpiresAt.After(t.GraceUntil) {
		c.ExpiresAt = t.GraceUntil
	}
	switch {
	case lastUse.IsZero() && t.Unused > 0:
		c.IdleExpiresAt = t.IssuedAt.Add(t.Unused)
	case !lastUse.IsZero() && t.Idle > 0:
		c.IdleExpiresAt = lastUse.Add(t.Idle)
	}
	if t.RotateAfter > 0 {
		c.RotateBy = t.IssuedAt.Add(t.RotateAfter)
	}
	return c
}

// Nearest is the first instant at which the token ends, and the clock that
// says so. The zero time means that no clock runs.
func (t *Token) Nearest(lastUse time.Time) (time.Time, Clock) {
	c := t.Clocks(lastUse)
	var at time.Time
	var by Clock
	first := func(end time.Time, name Clock) {
		if !end.IsZero() && (at.IsZero() || end.Before(at)) {
			at, by = end, name
		}
	}
	first(c.GraceUntil, ClockGrace)
	first(c.ExpiresAt, ClockExpires)
	first(c.IdleExpiresAt, ClockIdle)
	first(c.MaxExpiresAt, ClockMax)
	if t.EnforceRotation {
		first(c.RotateBy, ClockRotate)
	}
	return at, by
}

// State is what the token is at now, given its owner's present status and its
// last use. What somebody decided comes before what a clock says, and the
// strictest decision first: a revoked token is revoked, however long expired.
func (t *Token) State(owner principal.Status, epochs principal.Epochs, lastUse, now time.Time) State {
	switch {
	case t.Standing == Revoked, t.Epochs.Credentials < epochs.Credentials, t.Epochs.Person < epochs.Person:
		return StateRevoked
	case owner != principal.Active:
		return StateOwnerInactive
	case t.Standing == Unproven:
		return StateUnproven
	case t.Standing == Quarantined:
		return StateQuarantined
	case t.Standing == Suspended:
		return StateSuspended
	case t.Standing != Standard:
		return StateUnproven // an unknown word is doubt, and doubt tightens
	}
	end, by := t.Nearest(lastUse)
	switch {
	case end.IsZero() || now.Before(end):
		return StateActive
	case by == ClockGrace:
		return StateRotated
	case !t.GraceUntil.IsZero() && !now.Before(t.GraceUntil):
		return StateRotated
	case by == ClockIdle:
		return StateIdleExpired
	}
	return StateExpired
}
