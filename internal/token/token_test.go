package token

import (
	"testing"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/principal"
)

var t0 = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func sample() Token {
	p := NewSecret(Personal).Presented()
	return Token{
		ID: p.Public.ID(), Version: 1, Kind: Personal, Digest: p.Digest, Name: "laptop", Owner: "usr_1",
		Standing: Standard, Family: "fam_1", Generation: 1, IssuedAt: t0, BornAt: t0,
		Renewal: Sliding, Lifetime: DefaultLifetime, Idle: DefaultIdle, Unused: DefaultUnused,
		MaxLifetime: DefaultMaxLifetime, RotateAfter: DefaultRotateAfter,
	}
}

func at(d time.Duration) time.Time { return t0.Add(d) }

func usedAt(d time.Duration) History { return History{LastUse: at(d)} }

var live = &Holder{Status: principal.Active}

// R1.3, R5.1, R5.2, R5.6, R5.7: which clock ends a token, and when.
func TestNearestClock(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*Token)
		lastUse time.Time
		end     time.Duration
		by      Clock
	}{
		{"never used", func(*Token) {}, time.Time{}, 14 * day, ClockIdle},
		{"used", func(*Token) {}, at(day), 31 * day, ClockIdle},
		{"no idle timeout", func(k *Token) { k.Idle, k.Unused = 0, 0 }, at(10 * day), 100 * day, ClockExpires},
		{"fixed end", func(k *Token) { k.Idle = 0; k.Renewal, k.FixedEnd = Fixed, at(20*day) }, at(10 * day), 20 * day, ClockExpires},
		{"maximum", func(k *Token) { k.Idle = 0; k.MaxLifetime = 50 * day }, at(10 * day), 50 * day, ClockMax},
		{"rotation enforced", func(k *Token) { k.Idle = 0; k.RotateAfter, k.EnforceRotation = 30*day, true }, at(day), 30 * day, ClockRotate},
		{"rotation warned of", func(k *Token) { k.Idle = 0; k.RotateAfter = 30 * day }, at(day), 91 * day, ClockExpires},
		{"grace", func(k *Token) { k.GraceUntil = at(2 * day) }, at(day), 2 * day, ClockGrace},
	} {
		k := sample()
		c.change(&k)
		if end := k.Nearest(&Holder{}, History{LastUse: c.lastUse}, t0); !end.At.Equal(at(c.end)) || end.Clock != c.by {
			t.Errorf("%s: %v after %v, want %v after %v", c.name, end.Clock, end.At.Sub(t0), c.by, c.end)
		}
	}
}

// The strictest decision wins over every clock, and a clock at its instant has passed.
func TestState(t *testing.T) {
	revoke := func(k *Token) { *k, _ = k.Revoke(ByOwner, Keep, t0) }
	for _, c := range []struct {
		name   string
		change func(*Token)
		owner  principal.Status
		epochs principal.Epochs
		now    time.Duration
		want   State
	}{
		{"fresh", func(*Token) {}, principal.Active, principal.Epochs{}, 0, StateActive},
		{"a microsecond before", func(*Token) {}, principal.Active, principal.Epochs{}, 14*day - time.Microsecond, StateActive},
		{"at the instant", func(*Token) {}, principal.Active, principal.Epochs{}, 14 * day, StateIdleExpired},
		{"revoked and expired", revoke, principal.Active, principal.Epochs{}, 900 * day, StateRevoked},
		{"revoked, owner gone", revoke, principal.Deprovisioned, principal.Epochs{}, 0, StateRevoked},
		{"owner gone", func(*Token) {}, principal.Deprovisioned, principal.Epochs{}, 0, StateOwnerInactive},
		{"credentials epoch", func(*Token) {}, principal.Active, principal.Epochs{Credentials: 1}, 0, StateRevoked},
		{"person epoch", func(*Token) {}, principal.Active, principal.Epochs{Person: 1}, 0, StateRevoked},
		{"suspended", func(k *Token) { k.Standing = Suspended }, principal.Active, principal.Epochs{}, 900 * day, StateSuspended},
		{"quarantined", func(k *Token) { k.Standing = Quarantined }, principal.Active, principal.Epochs{}, 0, StateQuarantined},
		{"unproven", func(k *Token) { *k = k.Unprove() }, principal.Active, principal.Epochs{}, 0, StateUnproven},
		{"unknown standing", func(k *Token) { k.Standing = "fine" }, principal.Active, principal.Epochs{}, 0, StateUnproven},
		{"rotated, in grace", func(k *Token) { k.GraceUntil = at(day) }, principal.Active, principal.Epochs{}, day - 1, StateActive},
		{"rotated, after grace", func(k *Token) { k.GraceUntil = at(day) }, principal.Active, principal.Epochs{}, day, StateRotated},
	} {
		k := sample()
		c.change(&k)
		if got := k.State(&Holder{Status: c.owner, Epochs: c.epochs}, History{}, at(c.now)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// R2.1: the grace period never outlives the predecessor's own end, and
// compromise leaves none.
func TestRotate(t *testing.T) {
	k := sample()
	p := NewSecret(Personal).Presented()
	old, succ, err := k.Rotate(Rotation{Grace: DefaultGrace}, p, live, usedAt(day), at(2*day))
	if err != nil {
		t.Fatal(err)
	}
	if !old.GraceUntil.Equal(at(3*day)) || old.Successor != succ.ID || succ.Predecessor != k.ID || succ.Generation != 2 ||
		succ.Family != k.Family || !succ.BornAt.Equal(k.BornAt) || succ.Name != k.Name || succ.Digest == k.Digest || old.Version != 2 || succ.Version != 1 {
		t.Errorf("rotated to %+v\nand %+v", old, succ)
	}
	if old, _, _ = k.Rotate(Rotation{Grace: MaxGrace}, p, live, usedAt(day), at(30*day)); !old.GraceUntil.Equal(at(31 * day)) {
		t.Errorf("grace until %v, after the predecessor's own end", old.GraceUntil.Sub(t0))
	}
	old, _, _ = k.Rotate(Rotation{Grace: DefaultGrace, Compromised: true}, p, live, usedAt(day), at(2*day))
	if got := old.State(live, usedAt(day), at(2*day)); got != StateRevoked || !old.Reason.EndsHandles() {
		t.Errorf("a compromised predecessor is %s", got)
	}
	for _, grace := range []time.Duration{-1, MaxGrace + 1} {
		if _, _, err := k.Rotate(Rotation{Grace: grace}, p, live, usedAt(day), at(2*day)); err == nil {
			t.Errorf("grace %v was accepted", grace)
		}
	}
}

// Revocation is final, and a leak makes a milder one worse, never the reverse.
func TestRevokeIsFinal(t *testing.T) {
	k, _ := sample().Revoke(ByOwner, Keep, t0)
	if _, again := k.Revoke(ByAdmin, Keep, at(day)); again {
		t.Error("revoked twice")
	}
	leaked, changed := k.Revoke(Leaked, CancelQueued, at(day))
	if !changed || leaked.Reason != Leaked || !leaked.RevokedAt.Equal(t0) || leaked.Jobs != CancelQueued {
		t.Errorf("a leak after a revocation: %+v", leaked)
	}
	if stays, _ := leaked.Revoke(ByOwner, CancelAll, at(day)); stays.Reason != Leaked || stays.Jobs != CancelAll {
		t.Errorf("a stricter wish after a leak: %s %s", stays.Reason, stays.Jobs)
	}
	if _, err := k.Suspend(ByAdmin); err == nil {
		t.Error("a revoked token was suspended")
	}
	if _, err := k.Resume(ByAdmin); err == nil {
		t.Error("a revoked token was resumed")
	}
	if k.Unprove().Standing != Revoked {
		t.Error("a revocation was lost by a restore")
	}
}

// What an administrator suspends stays so until an administrator resumes it.
func TestWhoSuspended(t *testing.T) {
	own, _ := sample().Suspend(ByOwner)
	if k, err := own.Resume(ByOwner); err != nil || k.Standing != Standard || k.Reason != "" {
		t.Errorf("its owner resumes it: %v %v", k, err)
	}
	theirs, _ := own.Suspend(ByAdmin)
	again, _ := theirs.Suspend(ByOwner)
	for _, k := range []Token{theirs, again} {
		if _, err := k.Resume(ByOwner); fault.CodeOf(err) != "suspended_by_admin" {
			t.Errorf("its owner resumes what an administrator suspended: %v", err)
		}
		if k, err := k.Resume(ByAdmin); err != nil || k.Standing != Standard || k.Reason != "" {
			t.Errorf("an administrator resumes it: %v %v", k, err)
		}
	}
}

// Tighten is a join: it never loosens, and the order does not matter.
func TestTightenIsAJoin(t *testing.T) {
	variants := []Token{sample()}
	base := variants[0]
	s, _ := base.Suspend(ByOwner)
	q, _ := base.Quarantine()
	r, _ := base.Revoke(ByOwner, CancelAll, at(day))
	l, _ := base.Revoke(Leaked, CancelQueued, at(2*day))
	admins, _ := base.Suspend(ByAdmin)
	variants = append(variants, s, admins, q, base.Unprove(), r, l)
	for _, a := range variants {
		for _, b := range variants {
			ab, ba := a.Tighten(b), b.Tighten(a)
			if ab.Standing != ba.Standing || ab.Jobs.rank() != ba.Jobs.rank() || ab.Reason.EndsHandles() != ba.Reason.EndsHandles() ||
				ab.Standing == Suspended && ab.Reason != ba.Reason {
				t.Errorf("%s and %s: %v, %v", a.Standing, b.Standing, ab, ba)
			}
			if ab.Standing.rank() < a.Standing.rank() || ab.Standing.rank() < b.Standing.rank() {
				t.Errorf("%s and %s gave %s", a.Standing, b.Standing, ab.Standing)
			}
		}
	}
}
