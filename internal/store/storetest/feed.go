package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

func followers(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	var mu sync.Mutex
	known := map[token.ID]int64{}
	last := int64(0)
	s.Follow(func(c authn.Change) {
		mu.Lock()
		defer mu.Unlock()
		if c.Revision <= last {
			t.Errorf("revision %d after %d", c.Revision, last)
		}
		last = c.Revision
		for _, k := range c.Tokens {
			known[k.ID] = k.Version
		}
	})
	ann := Person("ann")
	commit(t, s, Add(&ann), audit.UserCreate)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			k := Token(ann, fmt.Sprint("n", i))
			k.Kind = token.Session
			_, err := s.Commit(t.Context(), Add(nil, k), Event(audit.TokenIssue, "x"))
			mu.Lock()
			if err != nil || known[k.ID] != 1 {
				t.Errorf("acknowledged (%v) and the follower knows version %d", err, known[k.ID])
			}
			mu.Unlock()
			ended, _ := k.Revoke(token.ByOwner, token.Keep, T0)
			_, err = s.Commit(t.Context(), Change(k, ended), Event(audit.TokenRevoke, "x"))
			mu.Lock()
			defer mu.Unlock()
			if err != nil || known[k.ID] != 2 {
				t.Errorf("revoked (%v) and the follower knows version %d", err, known[k.ID])
			}
		})
	}
	wg.Wait()
}

func outbox(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann := Person("ann")
	first, second, third := Event(audit.UserCreate, "a"), Event(audit.TokenIssue, "b"), Event(audit.TokenRevoke, "c")
	first.Detail = map[string]string{"note": "<&> “x”"}
	k := Token(ann, "laptop")
	_, err := s.Commit(t.Context(), Add(&ann, k), first, second)
	must(t, err)
	<-s.Wake()
	ended, _ := k.Revoke(token.ByOwner, token.Keep, T0)
	_, err = s.Commit(t.Context(), Change(k, ended), third)
	must(t, err)
	must(t, s.Close())
	s = opened(t, open)
	got, err := s.PendingEvents(t.Context(), 10)
	must(t, err)
	want := []audit.Event{first, second, third}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(audit.Event{}, "Seq")); d != "" {
		t.Fatal(d)
	}
	if got[0].Seq == 0 || got[0].Seq != got[1].Seq || got[2].Seq <= got[1].Seq {
		t.Errorf("seqs %d %d %d", got[0].Seq, got[1].Seq, got[2].Seq)
	}
	if got, err = s.PendingEvents(t.Context(), 1); err != nil || len(got) != 1 || got[0].ID != first.ID {
		t.Errorf("the oldest: %v, %v", got, err)
	}
	must(t, s.EventsWritten(t.Context(), []string{first.ID, second.ID, "evt_unknown"}))
	if got, err = s.PendingEvents(t.Context(), 10); err != nil || len(got) != 1 || got[0].ID != third.ID {
		t.Errorf("what is left: %v, %v", got, err)
	}
}

func uses(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	read := func() map[token.ID]authn.LastUse {
		out := map[token.ID]authn.LastUse{}
		must(t, s.Uses(t.Context(), func(u authn.LastUse) error { out[u.Token] = u; return nil }))
		return out
	}
	u := authn.LastUse{Token: "tok_a", Use: token.Use{At: T0, Agent: "curl", Count: 3}}
	must(t, s.RecordUses(t.Context(), []authn.LastUse{u, {Token: "tok_b", Use: token.Use{At: T0, Count: 1}}}, 50))
	older := u
	older.At, older.Agent, older.Count = T0.Add(-time.Hour), "old", 2
	must(t, s.RecordUses(t.Context(), []authn.LastUse{older}, 20))
	if d := cmp.Diff(u, read()["tok_a"], Same); d != "" {
		t.Error("an older use came through:", d)
	}
	newer := u
	newer.At, newer.Agent, newer.Count = T0.Add(time.Hour), "new", 9
	must(t, s.RecordUses(t.Context(), []authn.LastUse{newer}, 60))
	must(t, s.Close())
	s = opened(t, open)
	if d := cmp.Diff(newer, read()["tok_a"], Same); d != "" || len(read()) != 2 {
		t.Error(d)
	}
	if n, err := s.UsesPosition(t.Context()); err != nil || n != 60 {
		t.Errorf("position %d, %v", n, err)
	}
	// Another node finds what was stored since it asked last, whenever that happened.
	stored := func(since time.Time) (n int) {
		must(t, s.UsesStored(t.Context(), since, func(authn.LastUse) error { n++; return nil }))
		return n
	}
	if all, none := stored(T0.Add(-time.Hour)), stored(T0.Add(time.Hour)); all != 2 || none != 0 {
		t.Errorf("%d uses were stored, and %d later", all, none)
	}
}

func listing(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	var want []principal.ID
	for i := range 5 {
		p := Person(fmt.Sprint("p", i))
		want = append(want, p.ID)
		commit(t, s, Add(&p), audit.UserCreate)
	}
	var got []principal.ID
	for after := principal.ID(""); ; {
		page, err := s.Principals(t.Context(), after, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, p := range page {
			got = append(got, p.ID)
		}
		after = got[len(got)-1]
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func revisions(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	last := int64(0)
	for i := range 6 {
		p := Person(fmt.Sprint("p", i))
		rev := commit(t, s, Add(&p), audit.UserCreate)
		if rev <= last {
			t.Errorf("revision %d after %d", rev, last)
		}
		last = rev
		if i == 2 {
			must(t, s.Close())
			s = opened(t, open)
		}
	}
}

func needsEvent(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann := Person("ann")
	if _, err := s.Commit(t.Context(), Add(&ann)); err == nil {
		t.Fatal("a decision without an event was taken")
	}
	if _, err := s.Principal(t.Context(), ann.ID); fault.KindOf(err) != fault.NotFound {
		t.Error("and it has an effect")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Commit(gone, Add(&ann), Event(audit.UserCreate, "x"))
	WantCode(t, err, fault.Unavailable, "store_unavailable")
}

func loading(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	want := map[string]int64{}
	for i := range 7 {
		p := Person(fmt.Sprint("p", i))
		d := Add(&p)
		for j := range 60 {
			k := Token(p, fmt.Sprint("n", j))
			want[string(k.ID)] = 1
			d.Tokens = append(d.Tokens, authority.TokenChange{New: k})
		}
		want[string(p.ID)] = 1
		commit(t, s, d, audit.TokenIssue)
	}
	got := map[string]int64{}
	must(t, s.Load(t.Context(), func(c authn.Change) error {
		for _, p := range c.Principals {
			got[string(p.ID)] = p.Version
		}
		for _, k := range c.Tokens {
			if got[string(k.Owner)] == 0 {
				t.Errorf("%s before its owner", k.ID)
			}
			got[string(k.ID)] = k.Version
		}
		return nil
	}))
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
