package authority_test

import (
	"net/netip"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/store"
	"gradegate/internal/token"
)

// timed is a house whose clock stands still until it is moved.
func timed(t *testing.T) (house, *clock.Fake) {
	t.Helper()
	f := clock.NewFake(time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC))
	c := clock.New(f.Now, time.Time{})
	ring := keys.New([keys.Size]byte{1})
	s, err := store.OpenTokens(t.Context(), store.TokensConfig{Dir: t.TempDir(), Keys: ring, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	table := authn.New(c.Now, 0, policy.Rules{MaxPersonal: 10})
	s.Follow(table.Apply)
	return house{authority.New(s, table, ring, c.Now), table, s}, f
}

func (h house) signIn(t *testing.T, name string) authority.Issued {
	t.Helper()
	made, err := h.Invite(t.Context(), &policy.Subject{Local: true}, authority.NewUser{Name: name}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := h.Redeem(t.Context(), at("192.0.2.1"), made.Code, "laptop", "")
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func at(addr string) *policy.Subject { return &policy.Subject{Addr: netip.MustParseAddr(addr)} }

func (h house) alive(s token.Secret) bool {
	who, _, err := h.table.Authenticate(s.Presented(), netip.Addr{})
	return err == nil && who.Mode == ""
}

// R1.1: a sign-in goes from session to session; a lost answer is given again for
// a minute; a used token from the same place is refused and no more, and from
// another one it ends the sign-in.
func TestRefresh(t *testing.T) {
	h, clock := timed(t)
	first := h.signIn(t, "ann")
	mine := authority.Refresh{Secret: first.Refresh, Install: "home"}
	second, err := h.RefreshSession(t.Context(), at("192.0.2.1"), mine)
	if err != nil || second.Refresh.Reveal() == first.Refresh.Reveal() || !h.alive(second.Secret) || !h.alive(first.Secret) {
		t.Fatalf("%+v %v", second.Token, err)
	}
	again, err := h.RefreshSession(t.Context(), at("192.0.2.99"), mine) // the same machine on another network
	if err != nil || again.Secret.Reveal() != second.Secret.Reveal() || again.Refresh.Reveal() != second.Refresh.Reveal() {
		t.Errorf("a lost answer: %v", err)
	}
	clock.Add(time.Minute)
	if _, err := h.RefreshSession(t.Context(), at("192.0.2.1"), mine); fault.CodeOf(err) != "token_rotated" {
		t.Errorf("after a minute: %v", err)
	}
	if !h.alive(second.Secret) {
		t.Error("a mistake of one's own ended the sign-in")
	}
	// Sessions end, and the sign-in goes on.
	clock.Add(13 * time.Hour)
	third, err := h.RefreshSession(t.Context(), at("192.0.2.1"), authority.Refresh{Secret: second.Refresh, Install: "home"})
	if err != nil || h.alive(second.Secret) || !h.alive(third.Secret) {
		t.Errorf("%v", err)
	}
	// It is no sign-in of today: it begins no new family.
	if s := h.subject(t, third.Secret); !s.SignedIn.IsZero() {
		t.Error("a refreshed session counts as a sign-in")
	}
	if _, err := h.RefreshSession(t.Context(), at("192.0.2.1"), authority.Refresh{Secret: third.Refresh, Scopes: []string{policy.ScopeAdmin}}); fault.KindOf(err) != fault.Denied {
		t.Errorf("wider: %v", err)
	}
	if _, err := h.RefreshSession(t.Context(), at("203.0.113.5"), authority.Refresh{Secret: second.Refresh, Install: "thief"}); fault.CodeOf(err) != "token_reused" {
		t.Errorf("from elsewhere: %v", err)
	}
	if h.alive(third.Secret) {
		t.Error("the sign-in goes on after a theft")
	}
	if _, err := h.RefreshSession(t.Context(), at("192.0.2.1"), authority.Refresh{Secret: third.Refresh, Install: "home"}); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("after a theft: %v", err)
	}
	events, err := h.store.PendingEvents(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	reused := false
	for _, e := range events {
		reused = reused || e.Action == audit.TokenReuse
	}
	if !reused {
		t.Error("nobody hears of it")
	}
}

// A theft that is quicker than the owner is found out when the owner comes.
func TestStolenWithinTheMinute(t *testing.T) {
	h, _ := timed(t)
	first := h.signIn(t, "ann")
	thief, err := h.RefreshSession(t.Context(), at("203.0.113.5"), authority.Refresh{Secret: first.Refresh, Install: "thief"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.RefreshSession(t.Context(), at("192.0.2.1"), authority.Refresh{Secret: first.Refresh, Install: "home"}); fault.CodeOf(err) != "token_reused" {
		t.Errorf("%v", err)
	}
	if h.alive(thief.Secret) || h.alive(first.Secret) {
		t.Error("the thief's session lives on")
	}
}

// The parts of a sign-in end together, and none outlives its day.
func TestSignInEnds(t *testing.T) {
	h, clock := timed(t)
	for name, end := range map[string]func(authority.Issued){
		"the session is revoked": func(x authority.Issued) {
			if _, err := h.Revoke(t.Context(), h.subject(t, x.Secret), "self", "", token.Keep); err != nil {
				t.Fatal(err)
			}
		},
		"the session leaked": func(x authority.Issued) {
			_ = h.ReportLeak(t.Context(), &policy.Subject{}, []string{x.Secret.Reveal()})
		},
		"the refresh token leaked": func(x authority.Issued) {
			_ = h.ReportLeak(t.Context(), &policy.Subject{}, []string{x.Refresh.Reveal()})
		},
		"everything is revoked": func(x authority.Issued) { _, _ = h.RevokeAll(t.Context(), h.subject(t, x.Secret), "", false) },
		"its owner leaves": func(x authority.Issued) {
			_, _ = h.Offboard(t.Context(), &policy.Subject{Local: true}, string(x.Token.Owner), false)
		},
		"thirty days pass": func(authority.Issued) { clock.Add(30 * 24 * time.Hour) },
	} {
		x := h.signIn(t, "p"+name[:3]+name[len(name)-3:len(name)-1])
		end(x)
		if _, err := h.RefreshSession(t.Context(), at("192.0.2.1"), authority.Refresh{Secret: x.Refresh}); fault.KindOf(err) != fault.Unauthenticated || h.alive(x.Secret) {
			t.Errorf("%s: %v, session alive %v", name, err, h.alive(x.Secret))
		}
	}
	x := h.signIn(t, "max")
	for day := 0; day < 89; day += 20 {
		clock.Add(20 * 24 * time.Hour)
		next, err := h.RefreshSession(t.Context(), at("192.0.2.1"), authority.Refresh{Secret: x.Refresh})
		if last := day == 80; (err == nil) == last {
			t.Fatalf("day %d: %v", day+20, err)
		}
		x = next
	}
}

// What stops a part of a sign-in stops all of it, and no refresh gets round that;
// it goes on together, too. What revoke-all keeps has its successors still.
func TestSignInStops(t *testing.T) {
	h, _ := timed(t)
	local := &policy.Subject{Local: true}
	refresh := func(x authority.Issued) (authority.Issued, error) {
		return h.RefreshSession(t.Context(), at("192.0.2.1"), authority.Refresh{Secret: x.Refresh})
	}
	stopped := func(x authority.Issued, state string) {
		t.Helper()
		_, err := refresh(x)
		if fault.CodeOf(err) != "token_"+state || h.alive(x.Secret) {
			t.Errorf("%s: %v, session alive %v", state, err, h.alive(x.Secret))
		}
	}
	x := h.signIn(t, "ann")
	next, err := refresh(x)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []token.ID{next.Token.ID, x.Token.ID, next.Refresh.Presented().Public.ID()} {
		if _, err := h.Suspend(t.Context(), local, string(id)); err != nil {
			t.Fatal(err)
		}
		stopped(next, "suspended")
		if h.alive(x.Secret) {
			t.Error("an earlier session of it goes on")
		}
		if _, err := h.Resume(t.Context(), local, string(id)); err != nil || !h.alive(next.Secret) || !h.alive(x.Secret) {
			t.Errorf("it does not go on: %v", err)
		}
	}
	if next, err = refresh(next); err != nil {
		t.Fatal(err)
	}
	if _, err := h.SetPolicy(t.Context(), local, authority.PolicyChange{Level: token.Platform, Rules: policy.Rules{Quarantine: true}}); err != nil {
		t.Fatal(err)
	}
	_ = h.ReportLeak(t.Context(), &policy.Subject{}, []string{next.Secret.Reveal()})
	stopped(next, "quarantined")
	y := h.signIn(t, "bob")
	_ = h.ReportLeak(t.Context(), &policy.Subject{}, []string{y.Refresh.Reveal()})
	stopped(y, "quarantined")

	z, other := h.signIn(t, "eve"), authority.Issued{}
	if other, err = h.CreateToken(t.Context(), h.subject(t, z.Secret), authority.Create{Name: "other"}, authority.Idem{}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RevokeAll(t.Context(), h.subject(t, z.Secret), "", true); err != nil || h.alive(other.Secret) || !h.alive(z.Secret) {
		t.Fatal(err)
	}
	if next, err := refresh(z); err != nil || !h.alive(next.Secret) {
		t.Errorf("what was kept is the last of its sign-in: %v", err)
	}
}

// I5: a token makes none that outlives it; a sign-in does. An end that was asked
// for stays through rotations, and a narrow token resumes no wider one.
func TestNothingOutlivesItsMaker(t *testing.T) {
	h, clock := timed(t)
	session := h.signIn(t, "ann")
	ann := h.subject(t, session.Secret)
	clock.Add(time.Hour)
	short, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "short", Lifetime: 15 * time.Minute}, authority.Idem{})
	if err != nil || !short.Token.BornAt.Equal(clock.Now()) {
		t.Fatal(err)
	}
	clock.Add(10 * time.Minute)
	s := h.subject(t, short.Secret)
	if _, err := h.CreateToken(t.Context(), s, authority.Create{Name: "long", Lifetime: 365 * 24 * time.Hour, Replace: "short"}, authority.Idem{}); fault.CodeOf(err) != "lifetime_widened" {
		t.Errorf("a longer one: %v", err)
	}
	child, err := h.CreateToken(t.Context(), s, authority.Create{Name: "child"}, authority.Idem{})
	if err != nil || child.Token.Lifetime != 15*time.Minute || !child.Token.BornAt.Equal(short.Token.BornAt) {
		t.Errorf("%+v %v", child.Token, err)
	}
	end := clock.Now().Add(20 * time.Minute)
	fixed, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "fixed", ExpiresAt: end}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	clock.Add(5 * time.Minute)
	next, err := h.RotateToken(t.Context(), h.subject(t, fixed.Secret), authority.Rotate{Token: "self"}, authority.Idem{})
	if err != nil || !next.Token.FixedEnd.Equal(end) {
		t.Errorf("a rotation moved the end to %v: %v", next.Token.FixedEnd, err)
	}
	child, err = h.CreateToken(t.Context(), h.subject(t, next.Secret), authority.Create{Name: "of fixed"}, authority.Idem{})
	if err != nil || !child.Token.FixedEnd.Equal(end) || child.Token.Renewal != token.Fixed {
		t.Errorf("%+v %v", child.Token, err)
	}

	narrow, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "narrow", Scopes: []string{policy.ScopeTokens}}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	wide, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "wide"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Suspend(t.Context(), ann, string(wide.Token.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Resume(t.Context(), h.subject(t, narrow.Secret), string(wide.Token.ID)); fault.KindOf(err) != fault.Denied {
		t.Errorf("a narrow token resumed a wider one: %v", err)
	}
	if _, err := h.Suspend(t.Context(), &policy.Subject{Local: true}, string(wide.Token.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "instead", Replace: "wide"}, authority.Idem{}); fault.CodeOf(err) != "suspended_by_admin" {
		t.Errorf("replaced what an administrator suspended: %v", err)
	}
}

// What an administrator suspends is not replaced from behind.
func TestSuspendedSuccessorIsNotReplaced(t *testing.T) {
	h, _ := timed(t)
	ann := h.subject(t, h.signIn(t, "ann").Secret)
	first, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.RotateToken(t.Context(), ann, authority.Rotate{Token: string(first.Token.ID)}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Suspend(t.Context(), &policy.Subject{Local: true}, string(second.Token.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RotateToken(t.Context(), ann, authority.Rotate{Token: string(first.Token.ID), ReplaceUnused: true}, authority.Idem{}); err == nil {
		t.Error("it was replaced")
	}
}

// TestLeakAfterRevocation: where reported tokens are quarantined, one that was
// revoked already still loses its job handles by a report.
func TestLeakAfterRevocation(t *testing.T) {
	h := open(t, policy.Rules{Quarantine: true})
	s, live := h.person(t, "ann")
	if err := h.ReportLeak(t.Context(), &policy.Subject{}, []string{live.Reveal()}); err != nil {
		t.Fatal(err)
	}
	if k, err := h.store.Token(t.Context(), s.Token); err != nil || k.Standing != token.Quarantined {
		t.Errorf("a live one is %s, %v", k.Standing, err)
	}
	s, dead := h.person(t, "bob")
	if _, err := h.Revoke(t.Context(), &policy.Subject{Local: true}, string(s.Token), "", token.Keep); err != nil {
		t.Fatal(err)
	}
	if err := h.ReportLeak(t.Context(), &policy.Subject{}, []string{dead.Reveal()}); err != nil {
		t.Fatal(err)
	}
	if k, err := h.store.Token(t.Context(), s.Token); err != nil || !k.Reason.EndsHandles() {
		t.Errorf("a revoked one is %s because of %s, %v", k.Standing, k.Reason, err)
	}
}

// R3.1: a token that ended unused comes back for its owner who has signed in, but
// not beside another that took its place.
func TestComesBackIfThereIsRoom(t *testing.T) {
	h, clock := timed(t)
	local := &policy.Subject{Local: true}
	limit := func(n int) {
		t.Helper()
		if _, err := h.SetPolicy(t.Context(), local, authority.PolicyChange{Level: token.Platform, Rules: policy.Rules{MaxPersonal: n, Terms: token.Terms{Unused: token.Limit{Span: time.Hour}}}}); err != nil {
			t.Fatal(err)
		}
	}
	limit(1)
	x := h.signIn(t, "ann")
	first, err := h.CreateToken(t.Context(), h.subject(t, x.Secret), authority.Create{Name: "first"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	clock.Add(2 * time.Hour)
	second, err := h.CreateToken(t.Context(), h.subject(t, x.Secret), authority.Create{Name: "second"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	back := func() error {
		_, err := h.Resume(t.Context(), h.subject(t, x.Secret), string(first.Token.ID))
		return err
	}
	if err := back(); fault.CodeOf(err) != "token_limit" || h.alive(first.Secret) {
		t.Errorf("two where one is allowed: %v", err)
	}
	if _, err := h.Revoke(t.Context(), h.subject(t, x.Secret), string(second.Token.ID), "", token.Keep); err != nil {
		t.Fatal(err)
	}
	if err := back(); err != nil || !h.alive(first.Secret) {
		t.Errorf("there is room: %v", err)
	}
}
