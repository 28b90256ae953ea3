package token

import (
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/principal"
)

// ErrRevoked is the refusal to change what is final.
var ErrRevoked = fault.New(fault.Conflict, "token_revoked", "The token is revoked, and that is final.").
	WithFix("Create another one: gradegate token create")

// Revoke returns the token as it is for good. Revoking twice changes nothing,
// except that "leaked" and "compromised" replace a milder reason, since they
// end the token's job handles as well.
func (t Token) Revoke(reason Reason, jobs Wish, now time.Time) (Token, bool) {
	if t.Standing == Revoked && (!reason.EndsHandles() || t.Reason.EndsHandles()) && t.Jobs.Stricter(jobs) == t.Jobs {
		return t, false
	}
	t.Jobs = t.Jobs.Stricter(jobs)
	if t.Standing == Revoked && !reason.EndsHandles() {
		reason = t.Reason
	}
	if t.Standing != Revoked {
		t.RevokedAt = now
	}
	t.Standing, t.Reason = Revoked, reason
	return t.changed(), true
}

// EndsHandles reports whether job handles of a token revoked for r die with it.
func (r Reason) EndsHandles() bool { return r == Leaked || r == Compromised || r == Reused }

// Suspend returns the token as it is while it may do nothing. by is ByOwner or
// ByAdmin: what an administrator has suspended, its owner does not resume, and
// an owner's suspension does not replace an administrator's.
func (t Token) Suspend(by Reason) (Token, error) {
	if t.Standing == Revoked {
		return t, ErrRevoked
	}
	if t.Standing != Standard && t.Standing != Suspended {
		return t, fault.New(fault.Conflict, "token_"+string(t.Standing), "The token is %s, which is stricter than suspended.", t.Standing)
	}
	if t.Standing != Suspended || by == ByAdmin {
		t.Reason = by
	}
	t.Standing = Suspended
	return t.changed(), nil
}

// Resume returns a suspended token to what its clocks say. It does not lift a
// quarantine, nor does it prove an unproven token. by is as for Suspend.
func (t Token) Resume(by Reason) (Token, error) {
	switch t.Standing {
	case Revoked:
		return t, ErrRevoked
	case Standard, Suspended:
		if t.Standing == Suspended && t.Reason != ByOwner && by != ByAdmin {
			return t, errSuspendedByAdmin
		}
		t.Standing, t.Reason = Standard, ""
		return t.changed(), nil
	}
	return t, fault.New(fault.Conflict, "token_"+string(t.Standing), "The token is %s; resuming does not lift that.", t.Standing)
}

var errSuspendedByAdmin = fault.New(fault.Denied, "suspended_by_admin", "An administrator suspended the token, so only an administrator resumes it.").
	WithFix("Ask an administrator to run: gradegate token resume ID")

// Quarantine returns the token as it is while a leak is suspected.
func (t Token) Quarantine() (Token, error) {
	if t.Standing == Revoked {
		return t, ErrRevoked
	}
	t.Standing, t.Reason = Quarantined, ""
	return t.changed(), nil
}

// Unprove returns the token as it is after a restore that cannot show that it
// is current. A revocation stays one.
func (t Token) Unprove() Token {
	if t.Standing == Revoked {
		return t
	}
	t.Standing, t.Reason = Unproven, ""
	return t.changed()
}

// Rotation is what a holder asks for when rotating.
type Rotation struct {
	Grace       time.Duration // how long the predecessor lives on; at most MaxGrace
	Compromised bool          // no grace period, and the predecessor is revoked
	// ReplaceUnused replaces a successor that was never used: its secret was lost.
	ReplaceUnused bool
}

// Rotate returns the predecessor and its successor. The successor keeps name,
// owner, scopes, addresses and family; only secret, birth and generation are
// new. The predecessor's end is never moved back: a grace period beyond it is cut.
func (t Token) Rotate(r Rotation, secret Presented, lastUse, now time.Time) (old, successor Token, err error) {
	if r.Grace < 0 || r.Grace > MaxGrace {
		return t, Token{}, fault.New(fault.Invalid, "grace_out_of_range", "A grace period is between 0 and 7 days.").
			WithFix("Use for example --grace 24h")
	}
	end, _ := t.Nearest(lastUse)
	successor = t
	successor.ID, successor.Kind, successor.Digest = secret.Public.ID(), secret.Kind, secret.Digest
	successor.Version, successor.Generation = 1, t.Generation+1
	successor.Predecessor, successor.Successor = t.ID, ""
	successor.GraceUntil, successor.IssuedAt = time.Time{}, now
	if t.Renewal == Fixed {
		successor.FixedEnd = now.Add(t.Lifetime)
	}

	old = t
	old.Successor = successor.ID
	old.GraceUntil = now.Add(r.Grace)
	if !end.IsZero() && end.Before(old.GraceUntil) {
		old.GraceUntil = end
	}
	if r.Compromised {
		old.GraceUntil = now
		old, _ = old.Revoke(Compromised, CancelQueued, now)
		return old, successor, nil
	}
	return old.changed(), successor, nil
}

// Tighten is t with everything that image decides more strictly: the join of
// two records of one token. It is what recovery uses when it may take a
// tightening from one source and must not take a loosening from it.
func (t Token) Tighten(image Token) Token {
	if image.Standing.rank() > t.Standing.rank() {
		t.Standing, t.Reason, t.RevokedAt = image.Standing, image.Reason, image.RevokedAt
	}
	if image.Reason.EndsHandles() || t.Standing == Suspended && image.Standing == Suspended && image.Reason == ByAdmin {
		t.Reason = image.Reason
	}
	t.Jobs = t.Jobs.Stricter(image.Jobs)
	t.Version = max(t.Version, image.Version)
	return t.changed()
}

func (s Standing) rank() int {
	switch s {
	case Standard:
		return 0
	case Suspended:
		return 1
	case Quarantined:
		return 2
	case Revoked:
		return 4
	}
	return 3 // unproven, and every word we do not know
}

func (t Token) changed() Token {
	t.Version++
	return t
}

// Restamp returns the token under its owner's present epochs: it is the one
// that a revoke-all keeps.
func (t Token) Restamp(e principal.Epochs) Token {
	t.Epochs = e
	return t.changed()
}
