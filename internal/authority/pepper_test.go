package authority_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/maintenance"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/store"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// R7.2: a server with a new pepper goes on with all tokens, keeps what it makes
// under the newest, and what is used; nothing is left without one.
func TestRehash(t *testing.T) {
	dir, f := t.TempDir(), clock.NewFake(time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC))
	open := func(p *keys.Peppers) house {
		ring := keys.New([keys.Size]byte{1})
		ring.Use(p)
		table := authn.New(f.Now, 0, policy.Rules{MaxPersonal: 10})
		table.Use(p)
		s, err := store.OpenTokens(t.Context(), store.TokensConfig{Dir: dir, Keys: ring, Clock: clock.New(f.Now, time.Time{}), Follow: table.Apply, Memory: table})
		if err != nil {
			t.Fatal(err)
		}
		return house{authority.New(s, table, ring, f.Now), table, s}
	}
	h := open(nil)
	session := h.signIn(t, "ann")
	if err := h.store.Close(); err != nil {
		t.Fatal(err)
	}
	h = open(keys.PeppersOf(map[uint8][keys.Size]byte{1: {7}}))
	defer func() { _ = h.store.Close() }()
	table := h.table
	kept := func(id token.ID) uint8 {
		k, err := h.store.Token(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return k.Digest.Pepper
	}
	if !h.alive(session.Secret) || kept(session.Token.ID) != 0 {
		t.Fatal("a bare token is dead, or was changed unasked")
	}
	worn := table.TakeOutworn()
	if len(worn) != 1 {
		t.Fatal(worn)
	}
	for range 2 { // the second time there is nothing to do
		if err := h.Rehash(t.Context(), worn[0], "req_1"); err != nil {
			t.Fatal(err)
		}
	}
	if kept(session.Token.ID) != 1 || !h.alive(session.Secret) || len(table.TakeOutworn()) != 0 {
		t.Error("not kept under the pepper, or dead")
	}
	who, _, err := table.Authenticate(session.Secret.Presented(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	made, err := h.CreateToken(t.Context(), &who, authority.Create{Name: "laptop"}, authority.Idem{})
	if err != nil || kept(made.Token.ID) != 1 || !h.alive(made.Secret) {
		t.Error("new, and not under the pepper", err)
	}
	next, err := h.RotateToken(t.Context(), &who, authority.Rotate{Token: "laptop"}, authority.Idem{})
	if err != nil || kept(next.Token.ID) != 1 || !h.alive(next.Secret) || !h.alive(made.Secret) {
		t.Error("a successor, and not under the pepper", err)
	}
}

// R7.3, B21: an imported token that was revoked and is in the archive does not come
// back when its list is imported again, whatever pepper it was kept under then.
func TestImportedOnce(t *testing.T) {
	dir, f := t.TempDir(), clock.NewFake(time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC))
	peppers := map[uint8][keys.Size]byte{}
	var h house
	open := func() {
		p := keys.PeppersOf(peppers)
		ring := keys.New([keys.Size]byte{1})
		ring.Use(p)
		table := authn.New(f.Now, 0, policy.Rules{MaxPersonal: 10})
		table.Use(p)
		s, err := store.OpenTokens(t.Context(), store.TokensConfig{Dir: dir, Keys: ring, Clock: clock.New(f.Now, time.Time{}), Follow: table.Apply, Memory: table})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		h = house{authority.New(s, table, ring, f.Now), table, s}
	}
	local := &policy.Subject{Local: true}
	used, unused := authority.Import{User: "ann", Digest: digestOf(oldSecret), Name: "used"}, authority.Import{User: "ann", Digest: digestOf("another-old-secret"), Name: "unused"}
	imports := func(want string, list ...authority.Import) (out []authority.Imported) {
		t.Helper()
		out, err := h.ImportTokens(t.Context(), local, list, authority.ImportOptions{CreateUsers: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range out {
			if x.Outcome != want || want == "refused" && fault.CodeOf(x.Refusal) != "secret_ended" {
				t.Errorf("%s, want %s: %v", x.Outcome, want, x.Refusal)
			}
		}
		return out
	}
	open()
	made := imports("imported", used, unused)
	_ = h.store.Close()
	peppers[1] = [keys.Size]byte{7} // one is used under it, and kept so
	open()
	p, err := h.table.Read(oldSecret)
	if err == nil {
		_, _, err = h.table.Authenticate(p, netip.MustParseAddr("192.0.2.1"))
	}
	if err == nil {
		err = h.Rehash(t.Context(), h.table.TakeOutworn()[0], "req_1")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range made {
		if _, err := h.Revoke(t.Context(), local, string(x.Token.ID), "", token.Keep); err != nil {
			t.Fatal(err)
		}
		k, err := h.store.Token(t.Context(), x.Token.ID)
		if err == nil {
			err = h.store.Archive(t.Context(), []maintenance.Move{storetest.ArchiveMove(k)}, storetest.Event(audit.TokenArchive, "x"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	imports("refused", used, unused)
	_ = h.store.Close()
	peppers[2] = [keys.Size]byte{8}
	open()
	imports("refused", used, unused)
	if _, err := h.table.Read(oldSecret); err == nil {
		t.Error("the old secret is known")
	}
}

// taken is a store in which the ids of the first so many tokens exist already.
type taken struct {
	*store.Tokens
	first int
}

func (s *taken) Commit(ctx context.Context, d authority.Decision, events ...audit.Event) (int64, error) {
	for _, c := range d.Tokens {
		if c.Old == nil && s.first > 0 {
			s.first--
			known, err := s.Principals(ctx, "", 1)
			if err != nil {
				return 0, err
			}
			there := c.New
			there.Kind, there.Name = token.Invite, "there"
			there.Owner, there.Epochs, there.Family = known[0].ID, principal.Epochs{}, token.Family("fam_"+string(c.New.ID))
			if _, err := s.Tokens.Commit(ctx, authority.Decision{Tokens: []authority.TokenChange{{New: there}}}, audit.Event{ID: "evt_" + string(there.ID), Action: audit.TokenIssue}); err != nil {
				return 0, err
			}
		}
	}
	return s.Tokens.Commit(ctx, d, events...)
}

// R7.4: uniqueness is the insert's; a taken id is drawn again twice, and then
// said loudly.
func TestThreeDraws(t *testing.T) {
	for first, code := range map[int]string{1: "", 2: "", 3: "random_repeats"} {
		h, f := timed(t)
		session := h.signIn(t, "ann")
		who, _, err := h.table.Authenticate(session.Secret.Presented(), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		a := authority.New(&taken{h.store, first}, h.table, keys.New([keys.Size]byte{1}), f.Now)
		made, err := a.CreateToken(t.Context(), &who, authority.Create{Name: "laptop"}, authority.Idem{})
		if (err == nil) != (code == "") || err != nil && (fault.CodeOf(err) != code || fault.KindOf(err) != fault.Internal) {
			t.Errorf("%d ids taken: %v", first, err)
		}
		if err == nil && !h.alive(made.Secret) {
			t.Errorf("%d ids taken: the token is dead", first)
		}
	}
}
