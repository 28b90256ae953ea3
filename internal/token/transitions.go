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
	switch t.Standing {
	case Standard:
		t.Reason = by
	case Quarantined:
		t.Reason = ByAdmin // resuming it lifts both, so that it is no longer for its owner
	case Suspended:
		if by == ByAdmin {
			t.Reason = by
		}
	default:
		return t, fault.New(fault.Conflict, "token_"+string(t.Standing), "The token is %s, which is stricter than suspended.", t.Standing)
	}
	t.Standing = Suspended
	return t.changed(), nil
}

// Resume returns a suspended token to what its clocks say. An administrator
// lifts a quarantine by it; nobody proves an unproven token. by is as for Suspend.
func (t Token) Resume(by Reason) (Token, error) {
	switch t.Standing {
	case Revoked:
		return t, ErrRevoked
	case Unproven:
	case Standard, Suspended, Quarantined:
		if by != ByAdmin && t.Standing != Standard && t.Reason != ByOwner {
			return t, errByAdmin.With("state", string(t.Standing)).WithFix("Ask an administrator to run: gradegate token resume %s", t.ID)
		}
		t.Standing, t.Reason = Standard, ""
		return t.changed(), nil
	}
	return t, fault.New(fault.Conflict, "token_"+string(t.Standing), "The token is %s; resuming does not lift that.", t.Standing)
}

var errByAdmin = fault.New(fault.Denied, "suspended_by_admin", "Only an administrator lets this token go on: an administrator suspended it, or it is under suspicion.").
	WithFix("Ask an administrator to run: gradegate token resume ID")

// Reactivate returns a token that ended because it was not used, as it is after
// its owner has shown up with another credential.
func (t Token) Reactivate(end Ending, now time.Time) (Token, error) {
	if end.Clock != ClockIdle || !now.Before(end.At.Add(ReactivateWithin)) {
		return t, fault.New(fault.Conflict, "token_expired", "The token has ended, and not because it was unused, or too long ago: that cannot be undone.").
			WithFix("Create another one: gradegate token create")
	}
	t.RenewedAt = now
	return t.changed(), nil
}

// Quarantine returns the token as it is while a leak is suspected. One that is
// suspended stays so, which is less than a quarantined one may do, and is no
// longer resumed by its owner.
func (t Token) Quarantine() (Token, error) {
	switch t.Standing {
	case Revoked:
		return t, ErrRevoked
	case Standard:
		t.Standing, t.Reason = Quarantined, ""
	case Suspended:
		if t.Reason == ByAdmin {
			return t, nil
		}
		t.Reason = ByAdmin
	default:
		return t, nil
	}
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
	// NewFamily: the holder has just signed in, so that the successor's maximum
	// lifetime begins anew, and nothing ties it to what the old secret did.
	NewFamily Family
}

// NextKind is the kind of a token's successor: an imported one is followed by a
// personal one.
func (t Token) NextKind() Kind {
	if t.Kind == Legacy {
		return Personal
	}
	return t.Kind
}

// Rotate returns the predecessor and its successor. The successor keeps name,
// owner, scopes, addresses, budget and family; only secret, birth and generation are
// new. The predecessor's end is never moved back: a grace period beyond it is cut.
func (t Token) Rotate(r Rotation, secret Presented, h *Holder, past History, now time.Time) (old, successor Token, err error) {
	if r.Grace < 0 || r.Grace > MaxGrace {
		return t, Token{}, fault.New(fault.Invalid, "grace_out_of_range", "A grace period is between 0 and 7 days.").
			WithFix("Use for example --grace 24h")
	}
	end := t.Nearest(h, past, now).At
	successor = t
	successor.ID, successor.Kind, successor.Digest = secret.Public.ID(), secret.Kind, secret.Digest
	successor.Version, successor.Generation = 1, t.Generation+1
	successor.Predecessor, successor.Successor = t.ID, ""
	successor.GraceUntil, successor.RenewedAt, successor.IssuedAt = time.Time{}, time.Time{}, now
	if r.NewFamily != "" {
		successor.Account = t.Charged()
		successor.Family, successor.Generation, successor.BornAt = r.NewFamily, 1, now
	}
	// An end that was asked for stays: only the secret is new.
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

// Renewed says what a renewal did.
type Renewed struct {
	Before, After Ending
	// Limit is why After is no later: "max_lifetime", "fixed" (its end was asked
	// for at creation), "grace" (it was rotated), "rotation" or "policy"; empty
	// if nothing stands in the way.
	Limit string
}

// Renew returns the token as its owner's wish to renew it leaves it. A sliding
// token that asks by itself is renewed by this very use, and its record stays as
// it is; a session's end moves, up to its maximum.
func (t Token) Renew(h *Holder, past History, itself bool, now time.Time) (Token, Renewed) {
	out := Renewed{Before: t.Nearest(h, past, now)}
	renewed := t
	switch {
	case !t.GraceUntil.IsZero():
	case t.Kind == Session:
		end := now.Add(t.Lifetime)
		if latest := t.BornAt.Add(t.MaxLifetime); end.After(latest) {
			end = latest
		}
		if end.After(t.FixedEnd) {
			renewed.FixedEnd = end
			renewed = renewed.changed()
		}
	case !itself:
		renewed.RenewedAt = now
		renewed = renewed.changed()
	}
	if itself {
		past.LastUse = now
	}
	out.After = renewed.Nearest(h, past, now)
	switch by := out.After.Clock; {
	case by == ClockGrace:
		out.Limit = "grace"
	case by == ClockMax, t.Kind == Session && out.After.At.Equal(t.BornAt.Add(t.MaxLifetime)):
		out.Limit = "max_lifetime"
	case by == ClockRotate:
		out.Limit = "rotation"
	case by == ClockPolicy:
		out.Limit = "policy"
	case by == ClockExpires && t.Renewal == Fixed && t.Kind != Session:
		out.Limit = "fixed"
	}
	return renewed, out
}

// Tighten is t with everything that image decides more strictly: the join of
// two records of one token. It is what recovery uses when it may take a
// tightening from one source and must not take a loosening from it.
func (t Token) Tighten(image Token) Token {
	// Neither of the two is stricter in all: what is suspended does nothing, and
	// what is quarantined is not resumed by its owner.
	both := t.Standing == Suspended && image.Standing == Quarantined || t.Standing == Quarantined && image.Standing == Suspended
	if image.Standing.rank() > t.Standing.rank() {
		t.Standing, t.Reason, t.RevokedAt = image.Standing, image.Reason, image.RevokedAt
	}
	if both {
		t.Reason = ByAdmin
	}
	if image.Reason.EndsHandles() || t.Standing == Suspended && image.Standing == Suspended && image.Reason == ByAdmin {
		t.Reason = image.Reason
	}
	t.Jobs = t.Jobs.Stricter(image.Jobs)
	t.Version = max(t.Version, image.Version)
	return t.changed()
}

// StricterThan reports whether s leaves less than o; the empty standing leaves
// everything.
func (s Standing) StricterThan(o Standing) bool { return o == "" || s.rank() > o.rank() }

func (s Standing) rank() int {
	switch s {
	case Standard:
		return 0
	case Quarantined:
		return 1
	case Suspended:
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
