package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/principal"
)

func consents(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann, bob, eve := Person("ann"), Person("bob"), Person("eve")
	for _, p := range []*principal.Principal{&ann, &bob, &eve} {
		commit(t, s, Add(p), audit.UserCreate)
	}
	c := Consent(ann, bob)
	allSet(t, func() principal.Consent { c := c; c.EndedAt = T0; return c }())
	var told []principal.Consent
	s.Follow(func(c authn.Change) { told = append(told, c.Consents...) })
	commit(t, s, authority.Decision{Consents: []authority.ConsentChange{{New: c}}}, audit.ConsentGive)
	want := func(who principal.Principal, want ...principal.Consent) {
		t.Helper()
		got, err := s.Consents(t.Context(), who.ID)
		if err != nil || cmp.Diff(want, got, Same) != "" {
			t.Errorf("%v\n%s", err, cmp.Diff(want, got, Same))
		}
	}
	want(ann, c)
	want(bob, c)
	want(eve)
	ended, _ := c.Withdraw(T0.Add(time.Second))
	d := authority.Decision{Consents: []authority.ConsentChange{{Old: &c, New: ended}}}
	commit(t, s, d, audit.ConsentWithdraw)
	_, err := s.Commit(t.Context(), d, Event(audit.ConsentWithdraw, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
	if d := cmp.Diff([]principal.Consent{c, ended}, told, Same); d != "" {
		t.Error("followers were told:", d)
	}
	must(t, s.Close())
	s = opened(t, open)
	want(ann, ended)
	loaded := 0
	must(t, s.Load(t.Context(), func(c authn.Change) error { loaded += len(c.Consents); return nil }))
	if loaded != 1 {
		t.Errorf("%d consents are loaded", loaded)
	}
}
