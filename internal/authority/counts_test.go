package authority_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
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

// R3.1: one personal token for each person. What is stopped or under suspicion
// counts; what is no personal token, is over, or has a successor does not.
func TestWhatCounts(t *testing.T) {
	f := clock.NewFake(time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC))
	ring := keys.New([keys.Size]byte{1})
	table := authn.New(f.Now, 0, policy.Rules{})
	s, err := store.OpenTokens(t.Context(), store.TokensConfig{Dir: t.TempDir(), Keys: ring, Clock: clock.New(f.Now, time.Time{}), Follow: table.Apply, Memory: table})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	h := house{authority.New(s, table, ring, f.Now), table, s}
	own, n := h.signIn(t, "base"), 0
	for name, c := range map[string]struct {
		kind   token.Kind
		change func(*token.Token)
		counts bool
	}{
		"active":             {token.Personal, func(*token.Token) {}, true},
		"suspended":          {token.Personal, func(k *token.Token) { *k, _ = k.Suspend(token.ByOwner) }, true},
		"quarantined":        {token.Personal, func(k *token.Token) { *k, _ = k.Quarantine() }, true},
		"unproven":           {token.Personal, func(k *token.Token) { *k = k.Unprove() }, true},
		"revoked":            {token.Personal, func(k *token.Token) { *k, _ = k.Revoke(token.ByOwner, token.Keep, f.Now()) }, false},
		"expired":            {token.Personal, func(k *token.Token) { k.Renewal, k.FixedEnd = token.Fixed, f.Now() }, false},
		"predecessor":        {token.Personal, func(k *token.Token) { k.Successor, k.GraceUntil = "tok_000000000009", f.Now().Add(time.Hour) }, false},
		"of an older epoch":  {token.Personal, func(k *token.Token) { k.Epochs.Credentials-- }, false},
		"a session":          {token.Session, func(*token.Token) {}, false},
		"an imported one":    {token.Legacy, func(*token.Token) {}, false},
		"a service's":        {token.Service, func(*token.Token) {}, false},
		"an unused refresh":  {token.Refresh, func(*token.Token) {}, false},
		"nothing of it ever": {0, nil, false},
	} {
		n++
		session := h.signIn(t, fmt.Sprint("ann-", n))
		user, err := s.Principal(t.Context(), session.Token.Owner)
		if err != nil {
			t.Fatal(err)
		}
		if c.change != nil {
			k := own.Token
			p := token.NewSecret(token.Personal).Presented()
			k.ID, k.Digest, k.Kind, k.Owner, k.Epochs = p.Public.ID(), p.Digest, c.kind, user.ID, user.Epochs
			k.Family, k.Name, k.Renewal, k.FixedEnd = token.Family("fam_"+string(k.ID)), "there", token.Sliding, time.Time{}
			k.Lifetime, k.MaxLifetime = token.DefaultLifetime, token.DefaultMaxLifetime
			c.change(&k)
			k.Version = 1
			if _, err := s.Commit(t.Context(), authority.Decision{Tokens: []authority.TokenChange{{New: k}}}, audit.Event{ID: "evt_" + string(k.ID), Action: audit.TokenIssue}); err != nil {
				t.Fatal(name, err)
			}
		}
		who, _, err := table.Authenticate(session.Secret.Presented(), at("192.0.2.1").Addr)
		if err != nil {
			t.Fatal(name, err)
		}
		_, err = h.CreateToken(t.Context(), &who, authority.Create{Name: "laptop"}, authority.Idem{})
		if c.counts && fault.CodeOf(err) != "token_limit" || !c.counts && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// R9.2: twenty at once ask for a token of one name, two hundred times, and there
// is one: those who ensure it are all given it, those who create it are told so.
func TestOneOfAName(t *testing.T) {
	h := open(t, policy.Rules{MaxPersonal: 1000})
	ann, _ := h.person(t, "ann")
	for round := range 200 {
		c := authority.Create{Name: "ci " + strconv.Itoa(round)}
		ids := make(chan token.ID, 20)
		var wg sync.WaitGroup
		for i := range cap(ids) {
			wg.Go(func() {
				if i%2 == 0 {
					out, err := h.EnsureToken(context.Background(), ann, c, authority.Idem{})
					if err != nil {
						t.Errorf("round %d: %v", round, err)
					}
					ids <- out.Token.ID
					return
				}
				out, err := h.CreateToken(context.Background(), ann, c, authority.Idem{})
				if err == nil {
					ids <- out.Token.ID
				} else if fault.CodeOf(err) != "name_taken" {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		close(ids)
		first := <-ids
		for id := range ids {
			if id != first {
				t.Fatalf("round %d: %s and %s have one name", round, first, id)
			}
		}
	}
}

// A name means the token that lives, whatever ended under it before or since.
func TestNameMeansTheLiving(t *testing.T) {
	f := clock.NewFake(time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC))
	ring := keys.New([keys.Size]byte{1})
	table := authn.New(f.Now, 0, policy.Rules{})
	s, err := store.OpenTokens(t.Context(), store.TokensConfig{Dir: t.TempDir(), Keys: ring, Clock: clock.New(f.Now, time.Time{}), Follow: table.Apply, Memory: table})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	h := house{authority.New(s, table, ring, f.Now), table, s}
	base := h.signIn(t, "base")
	type change = func(*token.Token)
	living := func(*token.Token) {}
	expired := func(k *token.Token) { k.Renewal, k.FixedEnd = token.Fixed, f.Now().Add(-time.Hour) }
	epoch := func(k *token.Token) { k.Epochs.Credentials-- }
	grace := func(k *token.Token) { k.Successor, k.GraceUntil = "tok_000000000009", f.Now().Add(time.Hour) }
	idle := func(k *token.Token) { k.IssuedAt = f.Now().Add(-15 * 24 * time.Hour) }
	session := func(k *token.Token) {
		k.Kind, k.Renewal, k.FixedEnd = token.Session, token.Fixed, f.Now().Add(time.Hour)
	}
	n := 0
	for name, c := range map[string]struct{ want, not change }{
		"expired, and newer":                   {living, expired},
		"ended by an epoch, and newer":         {living, epoch},
		"in grace, and newer":                  {living, grace},
		"in grace, and its successor expired":  {grace, expired},
		"a session, and an expired token":      {session, expired},
		"a session, and one to be resumed":     {idle, session},
		"the newest of two sessions, one dead": {session, func(k *token.Token) { session(k); epoch(k) }},
	} {
		n++
		who := h.signIn(t, fmt.Sprint("ann-", n))
		user, err := s.Principal(t.Context(), who.Token.Owner)
		if err != nil {
			t.Fatal(err)
		}
		put := func(at time.Time, by change) token.ID {
			k := base.Token
			p := token.NewSecret(token.Personal).Presented()
			k.ID, k.Digest, k.Kind, k.Owner, k.Epochs, k.Version = p.Public.ID(), p.Digest, token.Personal, user.ID, user.Epochs, 1
			k.Family, k.Name, k.Renewal, k.FixedEnd = token.Family("fam_"+string(k.ID)), "there", token.Sliding, time.Time{}
			k.Lifetime, k.MaxLifetime, k.Unused, k.IssuedAt, k.BornAt = token.DefaultLifetime, token.DefaultMaxLifetime, token.DefaultUnused, at, at
			by(&k)
			if _, err := s.Commit(t.Context(), authority.Decision{Tokens: []authority.TokenChange{{New: k}}}, audit.Event{ID: "evt_" + string(k.ID), Action: audit.TokenIssue}); err != nil {
				t.Fatal(name, err)
			}
			return k.ID
		}
		want := put(f.Now().Add(-2*time.Minute), c.want)
		put(f.Now().Add(-time.Minute), c.not)
		subject, _, err := table.Authenticate(who.Secret.Presented(), at("192.0.2.1").Addr)
		if err != nil {
			t.Fatal(name, err)
		}
		if got, err := h.Find(t.Context(), &subject, "there"); err != nil || got.ID != want {
			t.Errorf("%s: %s, %v", name, got.ID, err)
		}
	}
}
