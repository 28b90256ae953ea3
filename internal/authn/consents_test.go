package authn

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// R3.5, B12: in a thousand races nothing is admitted for somebody after the
// withdrawal of their consent, or the off-boarding or suspension of either side,
// was acknowledged; and two who hand in for one another never wait for ever.
func TestNoAdmissionAfterWithdrawal(t *testing.T) {
	bob := principal.Principal{ID: "usr_bob", Version: 1, Name: "bob", Kind: principal.Human, Status: principal.Active}
	for round := range 1000 {
		tab, _, s, _ := table(t)
		me := ann
		me.Kind = principal.Human
		tab.Apply(Change{Principals: []principal.Principal{bob}})
		sub, _, err := tab.Authenticate(s.Presented(), addr)
		if err != nil {
			t.Fatal(err)
		}
		secret := token.NewSecret(token.Personal)
		tab.Apply(Change{Tokens: []token.Token{record(secret, bob.ID)}})
		other, _, err := tab.Authenticate(secret.Presented(), addr)
		if err != nil {
			t.Fatal(err)
		}
		c := consent(t, "cns_1", bob, me)
		tab.Apply(Change{Consents: []principal.Consent{c, consent(t, "cns_2", me, bob)}})
		var acknowledged atomic.Bool
		var admitted, late atomic.Int32
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for range 20 {
					who, whose := &sub, bob.ID
					if i == 3 { // the other way round: their gates are taken by four at once
						who, whose = &other, ann.ID
					}
					began := acknowledged.Load()
					_, _, release, err := tab.AdmitFor(who, whose, "iris")
					if err != nil {
						return
					}
					admitted.Add(1)
					for range 20 { // a job takes a while to be admitted
						runtime.Gosched()
					}
					if (began || acknowledged.Load()) && i != 3 {
						late.Add(1)
					}
					release()
				}
			})
		}
		ended, _ := c.Withdraw(t0)
		change, drain := Change{Consents: []principal.Consent{ended}}, bob.ID
		switch round % 4 {
		case 1:
			gone, _ := bob.Offboard(false, t0)
			change = Change{Principals: []principal.Principal{gone}}
		case 2:
			gone, _ := me.Offboard(false, t0)
			change, drain = Change{Principals: []principal.Principal{gone}}, ann.ID
		case 3:
			stopped, _ := bob.Suspend(t0)
			change = Change{Principals: []principal.Principal{stopped}}
		}
		for admitted.Load() == 0 { // in the middle of it
			runtime.Gosched()
		}
		tab.Apply(change)
		tab.Drain(drain)
		acknowledged.Store(true)
		wg.Wait()
		if late.Load() > 0 {
			t.Fatalf("round %d: %d of %d admissions after the acknowledgement", round, late.Load(), admitted.Load())
		}
	}
}

func consent(t *testing.T, id string, giver, taker principal.Principal) principal.Consent {
	t.Helper()
	giver.Kind = principal.Human
	c, err := principal.Consenting(id, giver, taker, time.Hour, []string{"iris"}, t0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// R3.5: without consent the refusal names the command that the other one has to
// run, and does not tell whether there is such a person.
func TestConsented(t *testing.T) {
	tab, f, s, _ := table(t)
	bob := principal.Principal{ID: "usr_bob", Version: 1, Name: "bob", Kind: principal.Human, Status: principal.Active}
	tab.Apply(Change{Principals: []principal.Principal{bob}})
	sub, _, err := tab.Authenticate(s.Presented(), addr)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name, competition, code string) *fault.Error {
		t.Helper()
		_, _, err := tab.Consented(&sub, name, competition)
		if err == nil || fault.CodeOf(err) != code {
			t.Errorf("%s in %s: %v, want %s", name, competition, err, code)
		}
		return fault.Of(err)
	}
	known, unknown := refused("bob", "iris", "consent_missing"), refused("nobody", "iris", "consent_missing")
	if known.Detail != unknown.Detail || known.Fix != unknown.Fix || known.Kind != fault.Denied {
		t.Errorf("they differ: %v and %v", known, unknown)
	}
	if want := "Ask them to run: gradegate consent give ann --competition iris"; known.Fix != want {
		t.Errorf("the fix is %q", known.Fix)
	}
	refused("ann", "iris", "on_behalf_of_self")
	refused("usr_ann", "iris", "on_behalf_of_self")
	tab.Apply(Change{Consents: []principal.Consent{consent(t, "cns_1", bob, ann)}})
	for _, name := range []string{"bob", "BOB", "usr_bob"} {
		if p, c, err := tab.Consented(&sub, name, "iris"); err != nil || p.ID != bob.ID || c.ID != "cns_1" {
			t.Errorf("%s: %+v %+v %v", name, p, c, err)
		}
	}
	refused("bob", "mnist", "consent_missing")
	f.Add(time.Hour)
	refused("bob", "iris", "consent_missing")
	if _, _, _, err := tab.AdmitFor(&policy.Subject{Principal: ann, Token: sub.Token, Addr: addr}, bob.ID, "iris"); fault.CodeOf(err) != "consent_missing" {
		t.Errorf("admitted after its end: %v", err)
	}
}

// What was withdrawn is not looked at again, however much of it there is.
func TestWithdrawnConsentsCostNothing(t *testing.T) {
	tab, _, _, _ := table(t)
	bob := principal.Principal{ID: "usr_bob", Version: 1, Name: "bob", Kind: principal.Human, Status: principal.Active}
	me := ann
	me.Kind = principal.Human
	for i := range 50 {
		c := consent(t, fmt.Sprint("cns_", i), bob, me)
		ended, _ := c.Withdraw(t0)
		tab.Apply(Change{Consents: []principal.Consent{c}})
		tab.Apply(Change{Consents: []principal.Consent{ended}})
		tab.Apply(Change{Consents: []principal.Consent{c}}) // an older record comes late
	}
	tab.Apply(Change{Consents: []principal.Consent{consent(t, "cns_last", bob, me)}})
	if got := tab.consents.byGiver[bob.ID]; len(got) != 1 || got[0] != "cns_last" {
		t.Errorf("%d are looked at: %v", len(got), got)
	}
	if n := len(tab.ConsentsOf(bob.ID)); n != 51 {
		t.Errorf("%d are known", n)
	}
}
