package authority_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/budget"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// A consent gives nothing that the token did not have which gave it, and ends with
// a leak report about that token, and with all of its owner's credentials.
func TestConsentIsNoMore(t *testing.T) {
	h, clock := timed(t)
	ann, bob := h.subject(t, h.signIn(t, "ann").Secret), h.subject(t, h.signIn(t, "bob").Secret)
	give := func(s *policy.Subject) error {
		_, err := h.GiveConsent(t.Context(), s, authority.NewConsent{To: "bob"}, authority.Idem{})
		return err
	}
	holds := func() bool {
		_, _, err := h.table.Consented(bob, "ann", "iris")
		return err == nil
	}
	mint := func(c authority.Create) (token.Secret, *policy.Subject) {
		made, err := h.CreateToken(t.Context(), ann, c, authority.Idem{})
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := h.table.Authenticate(made.Secret.Presented(), netip.MustParseAddr("192.0.2.1"))
		if err != nil {
			t.Fatal(err)
		}
		return made.Secret, &s
	}
	_, few := mint(authority.Create{Name: "few", Scopes: []string{policy.ScopeTokens}})
	wantCode(t, "without the rights", give(few), "scope_widened")
	_, bound := mint(authority.Create{Name: "bound", CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	wantCode(t, "of some networks", give(bound), "consent_narrow")
	_, poor := mint(authority.Create{Name: "poor", Budget: budget.Budget{Jobs: 1}})
	wantCode(t, "with a budget", give(poor), "budget_widened")
	secret, full := mint(authority.Create{Name: "full"})
	if err := give(full); err != nil || !holds() {
		t.Fatal(err)
	}
	if err := h.ReportLeak(t.Context(), &policy.Subject{}, []string{secret.Reveal()}); err != nil || holds() {
		t.Error("it holds after a leak report", err)
	}
	clock.Add(time.Second) // ids sort by time
	if err := give(ann); err != nil || !holds() {
		t.Fatal(err)
	}
	if list, err := h.Consents(t.Context(), ann, ""); err != nil || list[0].State != "active" || list[1].State == "active" {
		t.Errorf("%+v %v", list, err)
	}
	clock.Add(time.Second)
	if _, err := h.RevokeAll(t.Context(), ann, "", true); err != nil || holds() {
		t.Error("it holds after all was revoked", err)
	}
}

// A child gives no consent, since it lives by the grace of its parent; and a consent
// ends when the token that gave it goes to the archive: nobody can tell any more what
// became of that one.
func TestConsentEndsWithItsToken(t *testing.T) {
	h, _ := timed(t)
	ann, bob := h.subject(t, h.signIn(t, "ann").Secret), h.subject(t, h.signIn(t, "bob").Secret)
	child, err := h.ExchangeToken(t.Context(), ann, authority.Exchange{})
	must(t, err)
	_, err = h.GiveConsent(t.Context(), h.subject(t, child.Secret), authority.NewConsent{To: "bob"}, authority.Idem{})
	wantCode(t, "by a child", err, "consent_narrow")
	_, err = h.GiveConsent(t.Context(), ann, authority.NewConsent{To: "bob"}, authority.Idem{})
	must(t, err)
	if _, _, err := h.table.Consented(bob, "ann", "iris"); err != nil {
		t.Fatal(err)
	}
	h.table.Apply(authn.Change{Archived: []token.ID{ann.Token}})
	_, _, err = h.table.Consented(bob, "ann", "iris")
	wantCode(t, "its token is in the archive", err, "consent_missing")
	if list, err := h.Consents(t.Context(), bob, ""); err != nil || len(list) != 1 || list[0].State != "ended" {
		t.Errorf("%+v %v", list, err)
	}
}

// What one person gives is bounded, in force and in all, since the records stay.
func TestFewConsents(t *testing.T) {
	for name, c := range map[string]struct {
		n     int
		ended time.Duration // after it was given; 0: it is in force
		fresh time.Duration // until there may be more
	}{"in force": {100, 0, 30 * 24 * time.Hour}, "withdrawn": {1000, time.Minute, principal.ConsentMax}} {
		t.Run(name, func(t *testing.T) {
			h, clock := timed(t)
			ann := h.subject(t, h.signIn(t, "ann").Secret)
			bob := h.subject(t, h.signIn(t, "bob").Secret)
			h.signIn(t, "carol")
			give := func() error {
				_, err := h.GiveConsent(t.Context(), h.subject(t, h.signIn(t, "ann").Secret), authority.NewConsent{To: "carol"}, authority.Idem{})
				return err
			}
			put := func(from, to int) {
				var d authority.Decision
				for i := from; i < to; i++ {
					x := principal.Consent{
						ID: fmt.Sprintf("cns_%026d", i), Version: 1, Giver: ann.Principal.ID, Taker: bob.Principal.ID,
						GivenAt: clock.Now(), Until: clock.Now().Add(30 * 24 * time.Hour),
					}
					if c.ended > 0 {
						x.EndedAt = clock.Now().Add(c.ended)
					}
					d.Consents = append(d.Consents, authority.ConsentChange{New: x})
				}
				_, err := h.store.Commit(t.Context(), d, storetest.Event(audit.ConsentGive, "x"))
				must(t, err)
			}
			put(0, c.n-1)
			if err := give(); err != nil {
				t.Fatalf("one less than too many: %v", err)
			}
			put(c.n, c.n+1)
			wantCode(t, "too many", give(), "consents_many")
			clock.Add(c.fresh)
			if err := give(); err != nil {
				t.Errorf("after that time: %v", err)
			}
		})
	}
}
