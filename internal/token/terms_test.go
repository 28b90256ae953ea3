package token

import (
	"testing"
	"time"

	"gradegate/internal/principal"
)

func under(terms ...Terms) *Holder { return &Holder{Status: principal.Active, Terms: terms} }

// R1.3, R5.7: of several levels the strictest decides, and is named; what a
// policy shortens ends at its date at the earliest.
func TestTerms(t *testing.T) {
	platform := PlatformTerms()
	lowered := func(span, since time.Duration) Terms {
		return Terms{Level: "group:ml", Since: at(since), MaxLifetime: Limit{span, at(since)}}
	}
	until := func(t Terms, d time.Duration) Terms { t.Until = at(d); return t }
	for _, c := range []struct {
		name  string
		terms []Terms
		now   time.Duration
		end   time.Duration
		by    Clock
		level string
	}{
		{"the platform's own", []Terms{platform}, 20 * day, 40 * day, ClockIdle, Platform},
		{"a stricter group", []Terms{platform, {Level: "group:ml", Idle: Limit{Span: 5 * day}}}, 12 * day, 15 * day, ClockIdle, "group:ml"},
		{"a milder group", []Terms{platform, {Level: "group:ml", Idle: Limit{Span: 90 * day}}}, 12 * day, 40 * day, ClockIdle, Platform},
		{"lowered, before its date", []Terms{platform, lowered(7*day, 20*day)}, 12 * day, 20 * day, ClockMax, "group:ml"},
		{"lowered, not yet reached", []Terms{platform, lowered(25*day, 20*day)}, 12 * day, 25 * day, ClockMax, "group:ml"},
		{"replaced before its end", []Terms{platform, until(Terms{Level: "group:ml", MaxLifetime: Limit{Span: 30 * day}}, 20*day)}, 12 * day, 40 * day, ClockIdle, Platform},
		{"replaced after its end", []Terms{platform, until(Terms{Level: "group:ml", MaxLifetime: Limit{Span: 15 * day}}, 20*day)}, 12 * day, 15 * day, ClockMax, "group:ml"},
		{"replaced by now", []Terms{platform, until(Terms{Level: "group:ml", MaxLifetime: Limit{Span: 15 * day}}, 20*day)}, 21 * day, 40 * day, ClockIdle, Platform},
		{"rotation enforced", []Terms{platform, {Level: "group:ml", RotateAfter: Limit{Span: 13 * day}, Enforced: Limit{Span: 13 * day}}}, 12 * day, 13 * day, ClockRotate, "group:ml"},
		{"rotation due", []Terms{platform, {Level: "group:ml", RotateAfter: Limit{Span: 13 * day}}}, 12 * day, 40 * day, ClockIdle, Platform},
		{"sessions only", []Terms{platform, {Level: "group:ml", SessionsOnly: Flag{true, at(14 * day)}}}, 12 * day, 14 * day, ClockPolicy, "group:ml"},
	} {
		k := sample()
		end := k.Nearest(under(c.terms...), usedAt(10*day), at(c.now))
		if !end.At.Equal(at(c.end)) || end.Clock != c.by || end.Level != c.level {
			t.Errorf("%s: %s of %s after %v, want %s of %s after %v", c.name, end.Clock, end.Level, end.At.Sub(t0), c.by, c.level, c.end)
		}
	}
	session := sample()
	session.Kind, session.Idle, session.Unused, session.RotateAfter = Session, 0, 0, 0
	session.Renewal, session.FixedEnd, session.MaxLifetime = Fixed, at(12*time.Hour), SessionMax
	strict := Terms{Level: Platform, Unused: Limit{Span: time.Hour}, MaxLifetime: Limit{Span: time.Hour}, SessionsOnly: Flag{On: true}}
	if end := session.Nearest(under(strict), History{}, t0); !end.At.Equal(at(12 * time.Hour)) {
		t.Errorf("a session under the terms of tokens: %+v", end)
	}
}

// R5.6: while uses could not be recorded, nobody was idle.
func TestOutages(t *testing.T) {
	o := Outages{{at(2 * day), at(4 * day)}, {at(32 * day), at(33 * day)}, {at(60 * day), at(70 * day)}}
	for _, c := range []struct {
		from, want time.Duration
	}{
		{0, 32 * day},         // the first outage; it ends exactly as the second begins
		{3 * day, 35 * day},   // half of the first, and the second
		{5 * day, 36 * day},   // the second
		{34 * day, 74 * day},  // the third
		{65 * day, 100 * day}, // the rest of the third
		{80 * day, 110 * day}, // none
	} {
		if got := o.Extend(at(c.from), 30*day).Sub(t0); got != c.want {
			t.Errorf("from %v: %v, want %v", c.from, got, c.want)
		}
	}
	got := Outages{}.Add(Span{at(0), at(day)}, at(0)).Add(Span{at(day), at(2 * day)}, at(0)).Add(Span{at(5 * day), at(5 * day)}, at(0)).Add(Span{at(6 * day), at(7 * day)}, at(3*day))
	if len(got) != 1 || got[0] != (Span{at(6 * day), at(7 * day)}) {
		t.Errorf("%+v", got)
	}
	k := sample()
	h := &Holder{Status: principal.Active, Outages: Outages{{at(15 * day), at(20 * day)}}}
	if s := k.State(h, usedAt(day), at(35*day)); s != StateActive {
		t.Errorf("idle through an outage: %s", s)
	}
	if s := k.State(h, usedAt(day), at(36*day)); s != StateIdleExpired {
		t.Errorf("idle beyond an outage: %s", s)
	}
}

// R2.1: the grace period closes early once the successor was used and the
// predecessor has rested, and is kept open by whoever still uses it.
func TestGraceClosesEarly(t *testing.T) {
	k := sample()
	k.GraceUntil, k.Successor = at(2*day), "tok_next"
	for _, c := range []struct {
		name string
		past History
		end  time.Duration
	}{
		{"nobody has used the successor", usedAt(day), 2 * day},
		{"used, and the predecessor rests", History{LastUse: at(day), Succeeded: at(day)}, day + RestTime},
		{"used, and another machine goes on", History{LastUse: at(2*day - time.Minute), Succeeded: at(day)}, 2 * day},
		{"never used", History{Succeeded: at(day)}, day + RestTime},
	} {
		if end := k.Nearest(live, c.past, at(day)); !end.At.Equal(at(c.end)) || end.Clock != ClockGrace {
			t.Errorf("%s: %s after %v", c.name, end.Clock, end.At.Sub(t0))
		}
	}
	if s := k.State(live, History{LastUse: at(day), Succeeded: at(day)}, at(day+RestTime)); s != StateRotated {
		t.Errorf("closed early: %s", s)
	}
}

// A successor is not renewed by what its predecessor was, and a family that
// begins after a sign-in has a maximum of its own.
func TestSuccessorsClocks(t *testing.T) {
	k := sample()
	k.RenewedAt = at(day)
	p := NewSecret(Personal).Presented()
	_, next, err := k.Rotate(Rotation{Grace: DefaultGrace}, p, live, usedAt(39*day), at(40*day))
	if err != nil || !next.RenewedAt.IsZero() || !next.BornAt.Equal(t0) {
		t.Errorf("%+v %v", next, err)
	}
	_, next, err = k.Rotate(Rotation{Grace: DefaultGrace, NewFamily: "fam_2"}, p, live, usedAt(39*day), at(40*day))
	if err != nil || next.Family != "fam_2" || next.Generation != 1 || !next.BornAt.Equal(at(40*day)) || next.Predecessor != k.ID {
		t.Errorf("%+v %v", next, err)
	}
}

// Suspended and quarantined at once: the least of both rights, and an
// administrator's to lift.
func TestSuspicion(t *testing.T) {
	own, _ := sample().Suspend(ByOwner)
	reported, err := own.Quarantine()
	if err != nil || reported.Standing != Suspended || reported.Reason != ByAdmin {
		t.Errorf("a report gives rights back: %+v %v", reported, err)
	}
	if again, _ := reported.Quarantine(); again.Version != reported.Version {
		t.Error("reported twice")
	}
	held, _ := sample().Quarantine()
	if _, err := held.Resume(ByOwner); err == nil {
		t.Error("its owner lifts a quarantine")
	}
	stopped, err := held.Suspend(ByOwner)
	if err != nil || stopped.Standing != Suspended || stopped.Reason != ByAdmin {
		t.Errorf("%+v %v", stopped, err)
	}
	if s := held.State(live, usedAt(day), at(31*day)); s != StateIdleExpired {
		t.Errorf("a quarantined token has no end: %s", s)
	}
	if k, err := held.Resume(ByAdmin); err != nil || k.Standing != Standard {
		t.Errorf("%+v %v", k, err)
	}
}

// R1.4: the tokens of a service that nobody answers for are quarantined, and have
// no such day, whatever their clocks say.
func TestNoLastDayWithoutOwners(t *testing.T) {
	k, now := sample(), at(31*day+time.Hour)
	for name, c := range map[string]struct {
		h    Holder
		want bool
	}{
		"owned": {*live, true}, "not yet": {Holder{Status: principal.Active, QuarantineAt: now.Add(time.Second)}, true},
		"ownerless": {Holder{Status: principal.Active, QuarantineAt: now}, false},
	} {
		state, end := k.Judge(&c.h, usedAt(day), now)
		if got := k.ReadsAfter(&c.h, state, end, now); got != c.want {
			t.Errorf("%s: %s, %v", name, state, got)
		}
	}
}

// An idle token comes back for its owner within a week, and no other end is undone.
func TestReactivate(t *testing.T) {
	k := sample()
	back, err := k.Reactivate(k.Nearest(live, usedAt(day), at(35*day)), at(35*day))
	if err != nil || back.State(live, usedAt(day), at(35*day)) != StateActive {
		t.Errorf("%+v %v", back, err)
	}
	if s := back.State(live, usedAt(day), at(65*day)); s != StateIdleExpired {
		t.Errorf("for ever: %s", s)
	}
	if _, err := k.Reactivate(k.Nearest(live, usedAt(day), at(38*day)), at(38*day)); err == nil {
		t.Error("after a week")
	}
	k.Renewal, k.FixedEnd = Fixed, at(20*day)
	if _, err := k.Reactivate(k.Nearest(live, usedAt(day), at(21*day)), at(21*day)); err == nil {
		t.Error("an end that was asked for")
	}
}

// A predecessor in its grace period is the same token as its successors: what
// stops them stops it, and lets it go on with them.
func TestGenerationsStandTogether(t *testing.T) {
	k := sample()
	k.GraceUntil, k.Successor = at(2*day), "tok_next"
	for after, want := range map[Standing]State{
		"": StateActive, Standard: StateActive, Suspended: StateSuspended, Quarantined: StateQuarantined, Unproven: StateUnproven, Revoked: StateRevoked,
	} {
		if s := k.State(live, History{LastUse: at(day), After: after}, at(day)); s != want {
			t.Errorf("after one that is %q: %s, want %s", after, s, want)
		}
	}
	suspended, _ := k.Suspend(ByOwner)
	if s := suspended.State(live, History{LastUse: at(day), After: Quarantined}, at(day)); s != StateSuspended {
		t.Errorf("suspended before one that is quarantined: %s", s)
	}
}
