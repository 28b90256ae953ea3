package authority_test

import (
	"net/netip"
	"testing"

	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// R2.7: a request whose token is revoked while its body is on the way decides
// nothing any more: it makes no token, invites nobody, and does not stamp
// itself alive.
func TestDeadSubjectDecidesNothing(t *testing.T) {
	h := open(t, policy.Rules{MaxPersonal: 10})
	local := &policy.Subject{Local: true}
	boss, err := h.Invite(t.Context(), local, authority.NewUser{Name: "boss", Role: "admin"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := h.Redeem(t.Context(), &policy.Subject{}, boss.Code, "laptop", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Offboard(t.Context(), h.subject(t, session.Secret), "boss", false); fault.CodeOf(err) != "that_is_you" {
		t.Errorf("an administrator off-boards himself: %v", err)
	}
	// The request was let in before; now its token is revoked, or its owner re-enrolled.
	// In this order: a re-enrolment ends the session that the other case needs.
	for _, end := range []struct {
		name string
		do   func(s *policy.Subject)
	}{
		{"revoked", func(s *policy.Subject) {
			if _, err := h.Revoke(t.Context(), local, string(s.Token), "", token.Keep); err != nil {
				t.Fatal(err)
			}
		}},
		{"re-enrolled", func(*policy.Subject) {
			if _, err := h.Invite(t.Context(), local, authority.NewUser{Name: "boss"}, authority.Idem{}); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		name := end.name
		held := h.subject(t, session.Secret)
		if name == "revoked" {
			made, err := h.CreateToken(t.Context(), held, authority.Create{Name: "held"}, authority.Idem{})
			if err != nil {
				t.Fatal(err)
			}
			held = h.subject(t, made.Secret)
		}
		end.do(held)
		if out, err := h.CreateToken(t.Context(), held, authority.Create{Name: "child-" + name}, authority.Idem{}); fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s: made %v %v", name, out.Token.ID, err)
		}
		if _, err := h.Invite(t.Context(), held, authority.NewUser{Name: "mallory", Role: "admin"}, authority.Idem{}); fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s: invited: %v", name, err)
		}
		if _, err := h.RotateToken(t.Context(), held, authority.Rotate{Token: "self"}, authority.Idem{}); err == nil {
			t.Errorf("%s: rotated", name)
		}
		if _, err := h.RevokeAll(t.Context(), held, "", true); fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s: revoke-all with keep: %v", name, err)
		}
		if k, err := h.store.Token(t.Context(), held.Token); err != nil || name == "revoked" && k.Standing != token.Revoked {
			t.Errorf("%s: the token is %s %v", name, k.Standing, err)
		}
	}
	if _, _, err := h.table.Authenticate(session.Secret.Presented(), netip.Addr{}); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("the old session lives: %v", err)
	}
}

// R2.6: neither a rotation nor a child gives more than the token that asks has.
func TestNothingWidens(t *testing.T) {
	h := open(t, policy.Rules{MaxPersonal: 10})
	ann, _ := h.person(t, "ann")
	office := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	full, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "full"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]authority.Create{
		"scopes":       {Name: "a", Scopes: []string{policy.ScopeTokens}},
		"competitions": {Name: "b", Competitions: []string{"iris"}},
		"networks":     {Name: "c", CIDRs: office},
	} {
		made, err := h.CreateToken(t.Context(), ann, c, authority.Idem{})
		if err != nil {
			t.Fatal(err)
		}
		narrow, _, err := h.table.Authenticate(made.Secret.Presented(), netip.MustParseAddr("10.1.1.1"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.RotateToken(t.Context(), &narrow, authority.Rotate{Token: string(full.Token.ID)}, authority.Idem{}); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: rotated a wider token: %v", name, err)
		}
		child, err := h.CreateToken(t.Context(), &narrow, authority.Create{Name: name}, authority.Idem{})
		if err != nil {
			t.Fatal(err)
		}
		k := child.Token
		if len(k.Scopes) != len(narrow.Scopes) || len(k.Competitions) != len(narrow.Competitions) || len(k.CIDRs) != len(narrow.CIDRs) {
			t.Errorf("%s: the child is %v %v %v", name, k.Scopes, k.Competitions, k.CIDRs)
		}
		if _, err := h.RotateToken(t.Context(), &narrow, authority.Rotate{Token: "self"}, authority.Idem{}); err != nil {
			t.Errorf("%s: its own rotation: %v", name, err)
		}
	}
	limited, _ := h.CreateToken(t.Context(), ann, authority.Create{Name: "office", CIDRs: office}, authority.Idem{})
	s, _, err := h.table.Authenticate(limited.Secret.Presented(), netip.MustParseAddr("10.1.1.1"))
	if err != nil {
		t.Fatal(err)
	}
	wide := authority.Create{Name: "wide", CIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
	if _, err := h.CreateToken(t.Context(), &s, wide, authority.Idem{}); fault.CodeOf(err) != "network_widened" {
		t.Errorf("wider networks: %v", err)
	}
}
