package authority_test

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

const oldSecret = "123e4567-e89b-12d3-a456-426614174000"

func digestOf(secret string) token.Digest { return token.Digest{Sum: sha256.Sum256([]byte(secret))} }

// B21, R5.1: an imported token goes on under its old secret and our clocks, is
// rotated into a personal one, and is imported once however often it is tried.
func TestImport(t *testing.T) {
	h, clock := timed(t)
	h.table.Use(keys.PeppersOf(map[uint8][keys.Size]byte{1: {7}}))
	local := &policy.Subject{Local: true}
	list := []authority.Import{{User: "ann", Digest: digestOf(oldSecret), Name: "cluster"}}
	if _, err := h.ImportTokens(t.Context(), &policy.Subject{}, list, authority.ImportOptions{}); fault.KindOf(err) != fault.Denied {
		t.Fatal("anybody imports", err)
	}
	for _, o := range []authority.ImportOptions{{}, {CreateUsers: true, DryRun: true}} {
		out, err := h.ImportTokens(t.Context(), local, list, o)
		if err != nil || (out[0].Outcome == "refused") == o.CreateUsers {
			t.Fatal(out, err)
		}
		if _, err := h.table.Read(oldSecret); err == nil {
			t.Fatal("known before it was imported")
		}
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if out, err := h.ImportTokens(t.Context(), local, list, authority.ImportOptions{CreateUsers: true}); err != nil || out[0].Outcome == "refused" && fault.CodeOf(out[0].Refusal) != "name_taken" {
				t.Error(out, err)
			}
		})
	}
	wait.Wait()
	out, err := h.ImportTokens(t.Context(), local, append(list, list...), authority.ImportOptions{})
	if err != nil || out[0].Outcome != "known" || out[1].Outcome != "known" {
		t.Fatal(out, err)
	}
	if out, err := h.ImportTokens(t.Context(), local, []authority.Import{{User: "bob", Digest: digestOf(oldSecret)}}, authority.ImportOptions{CreateUsers: true}); err != nil || fault.CodeOf(out[0].Refusal) != "import_shared" {
		t.Error("one secret for two people", out, err)
	}
	p, err := h.table.Read(oldSecret)
	if err != nil || p.Kind != token.Legacy || p.Public.ID() != out[0].Token.ID {
		t.Fatal(p, err)
	}
	who, _, err := h.table.Authenticate(p, at("192.0.2.1").Addr)
	if err != nil || who.Principal.Name != "ann" || who.Until.Sub(clock.Now()) < 29*24*time.Hour || who.Until.Sub(clock.Now()) > 90*24*time.Hour {
		t.Fatal(who, err)
	}
	made, err := h.RotateToken(t.Context(), &who, authority.Rotate{Token: "self"}, authority.Idem{Key: "k", Presented: token.Shown(oldSecret)})
	if err != nil || made.Token.Kind != token.Personal || made.Token.Renewal != token.Sliding || !h.alive(made.Secret) {
		t.Fatal(made.Token, err)
	}
	again, err := h.RotateToken(t.Context(), &who, authority.Rotate{Token: "self"}, authority.Idem{Key: "k", Presented: token.Shown(oldSecret)})
	if err != nil || again.Secret.Reveal() != made.Secret.Reveal() {
		t.Error("a lost answer is not given again", err)
	}
	clock.Add(token.DefaultGrace + time.Minute)
	if _, _, err := h.table.Authenticate(p, at("192.0.2.1").Addr); fault.CodeOf(err) != "token_rotated" {
		t.Error(err)
	}
	if err := h.ReportLeak(t.Context(), &policy.Subject{}, []string{oldSecret}); err != nil {
		t.Fatal(err)
	}
	if k, err := h.store.Token(t.Context(), p.Public.ID()); err != nil || k.Standing != token.Revoked {
		t.Error("a leaked imported secret is not revoked", k.Standing, err)
	}
	if found, err := h.store.PendingEvents(t.Context(), 100); err != nil || countOf(found, audit.TokenImport) != 1 {
		t.Error("imported more than once, or unseen", err)
	}
}

func countOf(events []audit.Event, a audit.Action) (n int) {
	for _, e := range events {
		if e.Action == a {
			n++
		}
	}
	return n
}

// R5.1: ends that are made are spread over 30 to 90 days, and one that is there
// is kept, as far as the maximum allows.
func TestImportedEnds(t *testing.T) {
	h, clock := timed(t)
	var list []authority.Import
	for i := range 300 {
		list = append(list, authority.Import{User: "ann", Digest: digestOf(fmt.Sprintf("a secret of old, number %d", i))})
	}
	asked := clock.Now().Add(100 * 24 * time.Hour)
	list[0].ExpiresAt, list[1].ExpiresAt, list[2].ExpiresAt = asked, clock.Now().Add(10000*24*time.Hour), clock.Now().Add(-time.Hour)
	out, err := h.ImportTokens(t.Context(), &policy.Subject{Local: true}, list, authority.ImportOptions{CreateUsers: true})
	if err != nil {
		t.Fatal(err)
	}
	if !out[0].Token.FixedEnd.Equal(asked) || out[1].Token.FixedEnd.Sub(clock.Now()) != token.DefaultMaxLifetime || fault.CodeOf(out[2].Refusal) != "import_expired" {
		t.Error(out[:3])
	}
	perDay := map[int]int{}
	for _, x := range out[3:] {
		days := int(x.Token.FixedEnd.Sub(clock.Now()) / (24 * time.Hour))
		if perDay[days]++; days < 30 || days >= 90 {
			t.Errorf("ends in %d days", days)
		}
	}
	for day, n := range perDay {
		if n > 20 {
			t.Errorf("%d of 297 end on day %d", n, day)
		}
	}
}

// What has a form of ours, or cannot be a secret, is never looked up as a
// foreign one.
func TestForeignForm(t *testing.T) {
	for _, text := range []string{"", "short", "ggpat_123e4567-e89b-12d3", "has a space in the middle", "tab\tand more of it here", "ümlaut-in-a-long-secret", string(make([]byte, 300))} {
		if _, ok := token.Foreign(text); ok {
			t.Errorf("%q is taken for an imported secret", text)
		}
	}
	if p, ok := token.Foreign(oldSecret); !ok || p.Digest != digestOf(oldSecret) {
		t.Error("a UUID is not")
	}
}

// One line that cannot be read does not hold up the others.
func TestImportBadLine(t *testing.T) {
	h, _ := timed(t)
	list := []authority.Import{{User: "ann", Unreadable: true}, {User: "bob", Digest: digestOf(oldSecret)}}
	out, err := h.ImportTokens(t.Context(), &policy.Subject{Local: true}, list, authority.ImportOptions{CreateUsers: true})
	if err != nil || fault.CodeOf(out[0].Refusal) != "sha256_invalid" || out[0].NewUser || out[1].Outcome != "imported" {
		t.Errorf("%+v %v", out, err)
	}
}
