package authority_test

import (
	"context"
	"log/slog"
	"net/netip"
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
	"gradegate/internal/principal"
	"gradegate/internal/store"
	"gradegate/internal/token"
)

// house is an authority over a real store, with the table that follows it.
type house struct {
	*authority.Authority
	table *authn.Table
	store *store.Tokens
}

func open(t *testing.T, rules policy.Rules) house {
	t.Helper()
	c := clock.New(clock.Wall, time.Time{})
	ring := keys.New([keys.Size]byte{1})
	s, err := store.OpenTokens(t.Context(), store.TokensConfig{Dir: t.TempDir(), Keys: ring, Clock: c, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	table := authn.New(c.Now, 0, rules)
	s.Follow(table.Apply)
	return house{authority.New(s, table, ring, c.Now), table, s}
}

// person enrols somebody and gives the subject of their session.
func (h house) person(t *testing.T, name string) (*policy.Subject, token.Secret) {
	t.Helper()
	local := &policy.Subject{Local: true}
	made, err := h.Invite(t.Context(), local, authority.NewUser{Name: name}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := h.Redeem(t.Context(), &policy.Subject{}, made.Code, "laptop", "")
	if err != nil {
		t.Fatal(err)
	}
	return h.subject(t, session.Secret), session.Secret
}

func (h house) subject(t *testing.T, secret token.Secret) *policy.Subject {
	t.Helper()
	s, _, err := h.table.Authenticate(secret.Presented(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

// R2.1: a hundred at once, two hundred times, and always exactly one successor;
// everybody else is told its id.
func TestOneSuccessor(t *testing.T) {
	h := open(t, policy.Rules{})
	ann, _ := h.person(t, "ann")
	ann.SignedIn = time.Time{} // a fresh sign-in would begin a family each time
	made, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	current := made.Token.ID
	for round := range 200 {
		won := make(chan token.ID, 100)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				out, err := h.RotateToken(context.Background(), ann, authority.Rotate{Token: string(current)}, authority.Idem{})
				switch {
				case err == nil:
					won <- out.Token.ID
				case fault.CodeOf(err) != "already_rotated":
					t.Errorf("round %d: %v", round, err)
				case fault.Of(err).More["successor"] == "":
					t.Error("the loser is not told the successor")
				}
			})
		}
		wg.Wait()
		close(won)
		var ids []token.ID
		for id := range won {
			ids = append(ids, id)
		}
		if len(ids) != 1 {
			t.Fatalf("round %d: %d successors", round, len(ids))
		}
		current = ids[0]
	}
	all, err := h.Tokens(t.Context(), ann, "", "", 10_000)
	if err != nil {
		t.Fatal(err)
	}
	generations := map[int]int{}
	for _, k := range all {
		if k.Family == made.Token.Family {
			generations[k.Generation]++
		}
	}
	if len(generations) != 201 {
		t.Errorf("%d generations", len(generations))
	}
}

// B3: the same request under the same key gets the same secret again, from
// many at once; another request under it, or another caller, does not.
func TestSealedReplay(t *testing.T) {
	h := open(t, policy.Rules{})
	ann, _ := h.person(t, "ann")
	made, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	me := h.subject(t, made.Secret)
	idem := authority.Idem{Key: "k1", Presented: made.Secret}
	secrets := make(chan string, 20)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			out, err := h.RotateToken(context.Background(), me, authority.Rotate{Token: "self"}, idem)
			if err != nil {
				t.Error(err)
				return
			}
			secrets <- out.Secret.Reveal()
		})
	}
	wg.Wait()
	close(secrets)
	first := ""
	for s := range secrets {
		if first == "" {
			first = s
		}
		if s != first {
			t.Fatal("two secrets for one request")
		}
	}
	if _, err := h.RotateToken(t.Context(), me, authority.Rotate{Token: "self", Compromised: true}, idem); fault.CodeOf(err) != "idempotency_key_reused" {
		t.Errorf("another request under the key: %v", err)
	}
	if _, err := h.RotateToken(t.Context(), me, authority.Rotate{Token: "self"}, authority.Idem{Key: "k2", Presented: made.Secret}); fault.CodeOf(err) != "already_rotated" {
		t.Errorf("another key: %v", err)
	}
}

// B3 for people: an invite whose answer was lost is asked for again, and cuts
// nobody off a second time; so is the making of a user, also by the local
// administrator, who presents no secret.
func TestPeopleReplay(t *testing.T) {
	h := open(t, policy.Rules{})
	local := &policy.Subject{Local: true}
	h.person(t, "boss")
	for name, s := range map[string]struct {
		*policy.Subject
		idem authority.Idem
	}{
		"local": {local, authority.Idem{Key: "k"}},
		"admin": func() (s struct {
			*policy.Subject
			idem authority.Idem
		}) {
			made, err := h.Invite(t.Context(), local, authority.NewUser{Name: "root", Role: "admin"}, authority.Idem{})
			if err != nil {
				t.Fatal(err)
			}
			session, _, err := h.Redeem(t.Context(), &policy.Subject{}, made.Code, "", "")
			if err != nil {
				t.Fatal(err)
			}
			s.Subject, s.idem = h.subject(t, session.Secret), authority.Idem{Key: "k", Presented: session.Secret}
			return s
		}(),
	} {
		user := authority.NewUser{Name: "ann-" + name}
		first, err := h.CreateUser(t.Context(), s.Subject, user, s.idem)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := h.CreateUser(t.Context(), s.Subject, user, s.idem); err != nil || again.ID != first.ID {
			t.Errorf("%s: made again: %v %v", name, again, err)
		}
		if _, err := h.CreateUser(t.Context(), s.Subject, authority.NewUser{Name: "eve"}, s.idem); fault.CodeOf(err) != "idempotency_key_reused" {
			t.Errorf("%s: another user under the key: %v", name, err)
		}
		key := s.idem
		key.Key = "invite"
		codes := map[string]bool{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				out, err := h.Invite(context.Background(), s.Subject, user, key)
				if err != nil || out.Principal.ID != first.ID || out.Reenrolled {
					t.Errorf("%s: %+v %v", name, out, err)
				}
				mu.Lock()
				codes[out.Code.Reveal()] = true
				mu.Unlock()
			})
		}
		wg.Wait()
		if len(codes) != 1 {
			t.Errorf("%s: %d codes for one request", name, len(codes))
		}
		for code := range codes {
			secret, _ := token.ReadSecret(code)
			session, _, err := h.Redeem(t.Context(), &policy.Subject{}, secret, "laptop", "")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Invite(t.Context(), s.Subject, user, key); err != nil {
				t.Error(err)
			}
			h.subject(t, session.Secret) // the repeated invite was no re-enrolment
		}
	}
}

// What is done to a token is done to its older generations as well, while they
// are in grace: they are the same token to its owner.
func TestOlderGenerations(t *testing.T) {
	h := open(t, policy.Rules{})
	ann, _ := h.person(t, "ann")
	first, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.RotateToken(t.Context(), ann, authority.Rotate{Token: string(first.Token.ID)}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	wants := func(when, code string) {
		t.Helper()
		for _, s := range []token.Secret{first.Secret, second.Secret} {
			if _, _, err := h.table.Authenticate(s.Presented(), netip.Addr{}); fault.CodeOf(err) != code || (err == nil) != (code == "") {
				t.Errorf("%s: %v, want %q", when, err, code)
			}
		}
	}
	if _, err := h.Suspend(t.Context(), ann, string(second.Token.ID)); err != nil {
		t.Fatal(err)
	}
	wants("suspended", "token_suspended")
	if _, err := h.Resume(t.Context(), ann, string(second.Token.ID)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []token.Secret{first.Secret, second.Secret} {
		h.subject(t, s)
	}
	third, err := h.RotateToken(t.Context(), ann, authority.Rotate{Token: string(second.Token.ID), Compromised: true}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.table.Authenticate(first.Secret.Presented(), netip.Addr{}); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("the first one after its successor was compromised: %v", err)
	}
	h.subject(t, third.Secret)
	fourth, err := h.RotateToken(t.Context(), ann, authority.Rotate{Token: string(third.Token.ID)}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Revoke(t.Context(), ann, string(fourth.Token.ID), "", token.Keep); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.table.Authenticate(third.Secret.Presented(), netip.Addr{}); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("the third one after its successor was revoked: %v", err)
	}
}

// R2.7: "it was so already" is an acknowledgement as well. Another call may have
// committed a moment ago and not told the table yet.
func TestAlreadyIsInForce(t *testing.T) {
	h := open(t, policy.Rules{})
	local := &policy.Subject{Local: true}
	for name, c := range map[string]struct {
		behind func(ann principal.Principal, k token.Token) authority.Decision
		again  func(k token.Token) error
		action audit.Action
	}{
		"revoked": {
			func(_ principal.Principal, k token.Token) authority.Decision {
				ended, _ := k.Revoke(token.ByAdmin, token.Keep, time.Now())
				return authority.Decision{Tokens: []authority.TokenChange{{Old: &k, New: ended}}}
			},
			func(k token.Token) error {
				_, err := h.Revoke(context.Background(), local, string(k.ID), "", token.Keep)
				return err
			},
			audit.TokenRevoke,
		},
		"off-boarded": {
			func(ann principal.Principal, _ token.Token) authority.Decision {
				gone, _ := ann.Offboard(false, time.Now())
				return authority.Decision{Principals: []authority.PrincipalChange{{Old: &ann, New: gone}}}
			},
			func(k token.Token) error {
				_, err := h.Offboard(context.Background(), local, string(k.Owner), false)
				return err
			},
			audit.UserOffboard,
		},
	} {
		s, secret := h.person(t, "ann-"+name)
		k, err := h.store.Token(t.Context(), s.Token)
		if err != nil {
			t.Fatal(err)
		}
		// A table that is not told: as between a commit and its followers.
		deaf := authn.New(time.Now, 0, policy.Rules{})
		deaf.SeenPrincipal(s.Principal)
		deaf.SeenToken(k)
		if _, err := h.store.Commit(t.Context(), c.behind(s.Principal, k), audit.Event{ID: "evt_" + name, At: time.Now(), Action: c.action, Outcome: audit.Done}); err != nil {
			t.Fatal(err)
		}
		late := house{authority.New(h.store, deaf, keys.New([keys.Size]byte{1}), time.Now), deaf, h.store}
		h.Authority = late.Authority
		if err := c.again(k); err != nil {
			t.Fatal(err)
		}
		if _, _, err := deaf.Authenticate(secret.Presented(), netip.Addr{}); err == nil {
			t.Errorf("%s already, it was said, and the token is accepted", name)
		}
		h.Authority = authority.New(h.store, h.table, keys.New([keys.Size]byte{1}), time.Now)
	}
}

// An owner does not resume what an administrator suspended.
func TestSuspendedByAdmin(t *testing.T) {
	h := open(t, policy.Rules{MaxPersonal: 2})
	local := &policy.Subject{Local: true}
	ann, _ := h.person(t, "ann")
	made, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	id := string(made.Token.ID)
	for _, by := range []*policy.Subject{ann, local} {
		if _, err := h.Suspend(t.Context(), by, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Suspend(t.Context(), ann, id); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Resume(t.Context(), ann, id); fault.CodeOf(err) != "suspended_by_admin" {
		t.Errorf("its owner resumes it: %v", err)
	}
	if _, err := h.Resume(t.Context(), local, id); err != nil {
		t.Error(err)
	}
	h.subject(t, made.Secret)
}

// An unused successor whose secret was lost is replaced only by asking so; a
// used one never.
func TestReplaceUnused(t *testing.T) {
	h := open(t, policy.Rules{})
	ann, _ := h.person(t, "ann")
	made, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	old := string(made.Token.ID)
	lost, err := h.RotateToken(t.Context(), ann, authority.Rotate{Token: old}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.RotateToken(t.Context(), ann, authority.Rotate{Token: old, ReplaceUnused: true}, authority.Idem{})
	if err != nil || again.Token.Generation != lost.Token.Generation {
		t.Fatalf("%+v %v", again.Token, err)
	}
	if _, _, err := h.table.Authenticate(lost.Secret.Presented(), netip.Addr{}); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("the lost successor: %v", err)
	}
	_, ref, err := h.table.Authenticate(again.Secret.Presented(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	h.table.Used(&ref, time.Now(), netip.Addr{}, "test")
	if _, err := h.RotateToken(t.Context(), ann, authority.Rotate{Token: old, ReplaceUnused: true}, authority.Idem{}); fault.CodeOf(err) != "already_rotated" {
		t.Errorf("a used successor was replaced: %v", err)
	}
}

// Nobody can make or see somebody else's secret, and an invite to somebody who
// held one cuts the old ones off.
func TestReenrolment(t *testing.T) {
	h := open(t, policy.Rules{})
	ann, session := h.person(t, "ann")
	made, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	root := &policy.Subject{Principal: principal.Principal{ID: "usr_root", Role: principal.Admin, Status: principal.Active}, Kind: token.Personal, Scopes: policy.RoleScopes(principal.Admin)}
	if _, err := h.RotateToken(t.Context(), root, authority.Rotate{Token: string(made.Token.ID)}, authority.Idem{}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an administrator rotated somebody's token: %v", err)
	}
	invited, err := h.Invite(t.Context(), root, authority.NewUser{Name: "ann"}, authority.Idem{})
	if err != nil || !invited.Reenrolled {
		t.Fatal(invited, err)
	}
	for _, s := range []token.Secret{session, made.Secret} {
		if _, _, err := h.table.Authenticate(s.Presented(), netip.Addr{}); fault.CodeOf(err) != "token_revoked" {
			t.Errorf("after re-enrolment: %v", err)
		}
	}
	if _, _, err := h.Redeem(t.Context(), &policy.Subject{}, invited.Code, "", ""); err != nil {
		t.Error(err)
	}
	if _, _, err := h.Redeem(t.Context(), &policy.Subject{}, invited.Code, "", ""); fault.CodeOf(err) != "invite_invalid" {
		t.Errorf("an invite worked twice: %v", err)
	}
}

// A leak report ends what it names, and tells nothing about the rest.
func TestReportLeak(t *testing.T) {
	h := open(t, policy.Rules{})
	ann, session := h.person(t, "ann")
	made, err := h.CreateToken(t.Context(), ann, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	guess := []byte(made.Secret.Reveal())
	guess[30] ^= 1
	list := []string{"junk", string(guess), token.NewSecret(token.Personal).Reveal(), made.Secret.Reveal()}
	if err := h.ReportLeak(t.Context(), &policy.Subject{}, list); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.table.Authenticate(made.Secret.Presented(), netip.Addr{}); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("the leaked token: %v", err)
	}
	if _, _, err := h.table.Authenticate(session.Presented(), netip.Addr{}); err != nil {
		t.Errorf("another token of the same person: %v", err)
	}
	k, err := h.store.Token(t.Context(), made.Token.ID)
	if err != nil || k.Reason != token.Leaked || k.Jobs != token.CancelQueued {
		t.Errorf("%+v %v", k, err)
	}
	for _, n := range []int{0, 1001} {
		if err := h.ReportLeak(t.Context(), &policy.Subject{}, make([]string, n)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%d lines: %v", n, err)
		}
	}
}
