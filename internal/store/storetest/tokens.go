package storetest

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
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

// TokensStore is what the suite asks of a tokens database.
type TokensStore interface {
	authority.Store
	Load(context.Context, func(authn.Change) error) error
	Follow(func(authn.Change))
	Uses(context.Context, func(authn.LastUse) error) error
	RecordUses(ctx context.Context, uses []authn.LastUse, trailPos uint64) error
	UsesPosition(context.Context) (uint64, error)
	PendingEvents(ctx context.Context, limit int) ([]audit.Event, error)
	EventsWritten(ctx context.Context, ids []string) error
	Wake() <-chan struct{}
	Close() error
}

// TokensPlace opens the same database each time it is called; the test closes
// what it opened.
type TokensPlace func() TokensStore

// Same compares records; prefixes and times by value.
var Same = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})}

// RunTokens runs the suite; fresh makes a place with nothing in it.
func RunTokens(t *testing.T, fresh func(t *testing.T) TokensPlace) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, open TokensPlace)
	}{
		{"records come back whole", wholeRecords},
		{"absent things are NotFound", absentTokens},
		{"a version decides a race", versionDecides},
		{"one successor per generation", oneSuccessor},
		{"names are unique among those who are here", uniqueNames},
		{"the limit of personal tokens", personalLimit},
		{"replies", replies},
		{"a decision is whole or nothing", wholeDecision},
		{"followers are told before the answer", followers},
		{"events wait for the trail", outbox},
		{"uses never go back", uses},
		{"principals are listed by id", listing},
		{"revisions rise", revisions},
		{"a decision needs an event", needsEvent},
		{"loading gives everything", loading},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, fresh(t))
		})
	}
}

// opened opens the place and closes it with the test.
func opened(t *testing.T, open TokensPlace) TokensStore {
	t.Helper()
	s := open()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, s authority.Store, d authority.Decision, action audit.Action) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), d, Event(action, "x"))
	must(t, err)
	return rev
}

// WantCode fails unless err is a fault with the code.
func WantCode(t *testing.T, err error, kind fault.Kind, code string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || fault.CodeOf(err) != code {
		t.Fatalf("error is %v, want %v %s", err, kind, code)
	}
}

func wholeRecords(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann := Person("ann")
	k := Token(ann, "laptop")
	k.Parent, k.Predecessor, k.Successor = "tok_parent", "tok_before", "tok_after"
	k.Standing, k.Reason, k.Jobs = token.Quarantined, token.Leaked, token.CancelAll
	k.RevokedAt, k.GraceUntil, k.FixedEnd = T0.Add(1), T0.Add(2*time.Second), T0.Add(3*time.Second)
	k.EnforceRotation = true
	ann.CancelJobs = true
	allSet(t, k)
	allSet(t, ann)
	k.RevokedAt = T0.Add(time.Microsecond)
	bare := token.Token{ID: "tok_bare", Version: 1, Kind: token.Invite, Owner: ann.ID, Standing: token.Standard, Digest: token.Digest{1}}
	commit(t, s, Add(&ann, k, bare), audit.TokenIssue)
	for range 2 {
		got, err := s.Token(t.Context(), k.ID)
		must(t, err)
		if d := cmp.Diff(k, got, Same); d != "" {
			t.Error("token:", d)
		}
		if got, err = s.Token(t.Context(), bare.ID); err != nil || cmp.Diff(bare, got, Same) != "" {
			t.Error("bare token:", err, cmp.Diff(bare, got, Same))
		}
		p, err := s.Principal(t.Context(), ann.ID)
		must(t, err)
		if d := cmp.Diff(ann, p, Same); d != "" {
			t.Error("principal:", d)
		}
		list, err := s.TokensOf(t.Context(), ann.ID)
		must(t, err)
		if len(list) != 2 {
			t.Errorf("%d tokens of ann, want 2", len(list))
		}
		must(t, s.Close())
		s = opened(t, open)
	}
}

// allSet keeps the suite honest when a record gains a field: its round trip
// must be tested with a value.
func allSet(t *testing.T, record any) {
	t.Helper()
	v := reflect.ValueOf(record)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%T.%s is not set, so that nothing shows whether it is stored", record, v.Type().Field(i).Name)
		}
	}
}

func absentTokens(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	_, err := s.Token(t.Context(), "tok_none")
	WantCode(t, err, fault.NotFound, "token_not_found")
	_, err = s.Principal(t.Context(), "usr_none")
	WantCode(t, err, fault.NotFound, "user_not_found")
	_, err = s.PrincipalByName(t.Context(), "nobody")
	WantCode(t, err, fault.NotFound, "user_not_found")
	_, err = s.Reply(t.Context(), authority.ReplyKey{1}, T0)
	WantCode(t, err, fault.NotFound, "reply_not_found")
	list, err := s.TokensOf(t.Context(), "usr_none")
	if err != nil || len(list) != 0 {
		t.Errorf("TokensOf nobody: %v, %v", list, err)
	}
	ann := Person("ann")
	_, err = s.Commit(t.Context(), authority.Decision{Principals: []authority.PrincipalChange{{Old: &ann, New: ann}}}, Event(audit.UserSuspend, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
	_, err = s.Commit(t.Context(), Add(nil, Token(ann, "orphan")), Event(audit.TokenIssue, "x"))
	if err == nil || fault.KindOf(err) == fault.Unavailable || fault.KindOf(err) == fault.Internal {
		t.Errorf("a token without an owner: %v", err)
	}
}

func versionDecides(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann := Person("ann")
	k := Token(ann, "laptop")
	commit(t, s, Add(&ann, k), audit.TokenIssue)
	suspended, err := k.Suspend()
	must(t, err)
	commit(t, s, Change(k, suspended), audit.TokenSuspend)
	revoked, _ := k.Revoke(token.ByOwner, token.Keep, T0)
	_, err = s.Commit(t.Context(), Change(k, revoked), Event(audit.TokenRevoke, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
	got, err := s.Token(t.Context(), k.ID)
	must(t, err)
	if got.Standing != token.Suspended {
		t.Errorf("standing is %s", got.Standing)
	}
	again := k
	again.Family = "fam_other"
	_, err = s.Commit(t.Context(), Add(nil, again), Event(audit.TokenIssue, "x"))
	WantCode(t, err, fault.Conflict, "id_taken")
	other := Token(ann, "other")
	other.Digest = k.Digest
	_, err = s.Commit(t.Context(), Add(nil, other), Event(audit.TokenIssue, "x"))
	WantCode(t, err, fault.Conflict, "id_taken")
}

// Successor is what a rotation of k would commit.
func Successor(k token.Token, owner principal.Principal) (authority.Decision, token.Token) {
	fresh := Token(owner, k.Name)
	p := token.Presented{Kind: token.Personal, Digest: fresh.Digest}
	copy(p.Public[:], fresh.ID[len("tok_"):])
	old, next, err := k.Rotate(token.Rotation{Grace: time.Hour}, p, time.Time{}, T0)
	if err != nil {
		panic(err)
	}
	return authority.Decision{Tokens: []authority.TokenChange{{Old: &k, New: old}, {New: next}}}, next
}

func oneSuccessor(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann := Person("ann")
	k := Token(ann, "laptop")
	commit(t, s, Add(&ann, k), audit.TokenIssue)
	const racers = 100
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			d, _ := Successor(k, ann)
			_, errs[i] = s.Commit(t.Context(), d, Event(audit.TokenRotate, "x"))
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		WantCode(t, err, fault.Conflict, "version_moved")
	}
	list, err := s.TokensOf(t.Context(), ann.ID)
	must(t, err)
	if won != 1 || len(list) != 2 {
		t.Fatalf("%d rotations won and there are %d tokens, want 1 and 2", won, len(list))
	}
	// Not even a decision that forgets the predecessor makes a second one …
	_, second := Successor(k, ann)
	_, err = s.Commit(t.Context(), Add(nil, second), Event(audit.TokenIssue, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
	// … but one whose secret was lost can be replaced, in one decision.
	old, err := s.Token(t.Context(), k.ID)
	must(t, err)
	lost, err := s.Token(t.Context(), old.Successor)
	must(t, err)
	ended, _ := lost.Revoke(token.Superseded, token.Keep, T0)
	d, next := Successor(old, ann)
	d.Tokens = []authority.TokenChange{d.Tokens[0], {Old: &lost, New: ended}, d.Tokens[1]}
	commit(t, s, d, audit.TokenRotate)
	if got, err := s.Token(t.Context(), next.ID); err != nil || got.Generation != 2 {
		t.Errorf("the replacement: %+v, %v", got, err)
	}
}

func uniqueNames(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann, second := Person("ann"), Person("ann")
	commit(t, s, Add(&ann), audit.UserCreate)
	_, err := s.Commit(t.Context(), Add(&second), Event(audit.UserCreate, "x"))
	WantCode(t, err, fault.Conflict, "name_taken")
	gone, _ := ann.Offboard(false, T0)
	commit(t, s, authority.Decision{Principals: []authority.PrincipalChange{{Old: &ann, New: gone}}}, audit.UserOffboard)
	if p, err := s.PrincipalByName(t.Context(), "ann"); err != nil || p.ID != ann.ID {
		t.Errorf("the leaver is found by name as long as nobody else has it: %v, %v", p.ID, err)
	}
	commit(t, s, Add(&second), audit.UserCreate)
	if p, err := s.PrincipalByName(t.Context(), "ann"); err != nil || p.ID != second.ID {
		t.Errorf("the new ann: %v, %v", p.ID, err)
	}
	_, err = s.Commit(t.Context(), authority.Decision{Principals: []authority.PrincipalChange{{Old: &gone, New: gone.Reenrol(T0)}}}, Event(audit.UserReenrol, "x"))
	WantCode(t, err, fault.Conflict, "name_taken")
}

func personalLimit(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann := Person("ann")
	k := Token(ann, "laptop")
	d := Add(&ann, k)
	d.MaxPersonal = 1
	commit(t, s, d, audit.TokenIssue)
	d = Add(nil, Token(ann, "second"))
	d.MaxPersonal = 1
	_, err := s.Commit(t.Context(), d, Event(audit.TokenIssue, "x"))
	WantCode(t, err, fault.Conflict, "token_limit")
	suspended, err := k.Suspend()
	must(t, err)
	commit(t, s, Change(k, suspended), audit.TokenSuspend)
	_, err = s.Commit(t.Context(), d, Event(audit.TokenIssue, "x"))
	WantCode(t, err, fault.Conflict, "token_limit") // a suspended one counts
	session := Token(ann, "session")
	session.Kind = token.Session
	d = Add(nil, session)
	d.MaxPersonal = 1
	commit(t, s, d, audit.TokenIssue) // a session does not
	revoked, _ := suspended.Revoke(token.Replaced, token.Keep, T0)
	replaced := Token(ann, "third")
	d = authority.Decision{MaxPersonal: 1, Tokens: []authority.TokenChange{{Old: &suspended, New: revoked}, {New: replaced}}}
	commit(t, s, d, audit.TokenIssue)
	d, _ = Successor(replaced, ann)
	d.MaxPersonal = 1
	commit(t, s, d, audit.TokenRotate) // the predecessor in grace does not count
	cut := ann.RevokeAll(T0)
	commit(t, s, authority.Decision{Principals: []authority.PrincipalChange{{Old: &ann, New: cut}}}, audit.UserRevokeAll)
	d = Add(nil, Token(cut, "fourth"))
	d.MaxPersonal = 1
	commit(t, s, d, audit.TokenIssue) // nor what an epoch has ended
}

func replies(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann := Person("ann")
	k := Token(ann, "laptop")
	d := Add(&ann, k)
	d.Reply = Reply("one", T0.Add(10*time.Minute))
	commit(t, s, d, audit.TokenIssue)
	got, err := s.Reply(t.Context(), d.Reply.Key, T0)
	must(t, err)
	if diff := cmp.Diff(*d.Reply, got); diff != "" {
		t.Error(diff)
	}
	_, err = s.Reply(t.Context(), d.Reply.Key, T0.Add(10*time.Minute))
	WantCode(t, err, fault.NotFound, "reply_not_found")
	again := Add(nil, Token(ann, "again"))
	again.Reply = Reply("one", T0.Add(time.Hour))
	_, err = s.Commit(t.Context(), again, Event(audit.TokenIssue, "x"))
	WantCode(t, err, fault.Conflict, "reply_exists")
	if _, err := s.Token(t.Context(), again.Tokens[0].New.ID); err == nil {
		t.Error("the token of a repeated request was made")
	}
	// A reply outranks a moved version: the repetition learns that it is one.
	moved := Change(k, k)
	old := *moved.Tokens[0].Old
	old.Version = 77
	moved.Tokens[0].Old, moved.Reply = &old, Reply("one", T0.Add(time.Hour))
	_, err = s.Commit(t.Context(), moved, Event(audit.TokenRotate, "x"))
	WantCode(t, err, fault.Conflict, "reply_exists")
	lapsed := Add(nil, Token(ann, "lapsed"))
	lapsed.Reply = Reply("old", T0.Add(-time.Minute))
	commit(t, s, lapsed, audit.TokenIssue)
	renewed := Add(nil, Token(ann, "renewed"))
	renewed.Reply = Reply("old", T0.Add(time.Minute))
	commit(t, s, renewed, audit.TokenIssue)
}

func wholeDecision(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann := Person("ann")
	k := Token(ann, "laptop")
	commit(t, s, Add(&ann, k), audit.TokenIssue)
	bob, stale := Person("bob"), k
	stale.Version = 9
	d := Add(&bob, Token(bob, "first"))
	d.Tokens = append(d.Tokens, authority.TokenChange{Old: &stale, New: stale})
	_, err := s.Commit(t.Context(), d, Event(audit.TokenIssue, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
	if _, err := s.Principal(t.Context(), bob.ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("bob is there: %v", err)
	}
	if _, err := s.Token(t.Context(), d.Tokens[0].New.ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("his token is there: %v", err)
	}
	// The refusal of one decision is nothing to its neighbours in a batch.
	var wg sync.WaitGroup
	errs := make([]error, 40)
	for i := range errs {
		wg.Go(func() {
			if i%2 == 0 {
				_, errs[i] = s.Commit(t.Context(), Change(stale, stale), Event(audit.TokenResume, "x"))
				return
			}
			_, errs[i] = s.Commit(t.Context(), Add(nil, Token(ann, fmt.Sprint("n", i))), Event(audit.TokenIssue, "x"))
		})
	}
	wg.Wait()
	for i, err := range errs {
		if i%2 == 0 {
			WantCode(t, err, fault.Conflict, "version_moved")
		} else if err != nil {
			t.Errorf("decision %d: %v", i, err)
		}
	}
	list, err := s.TokensOf(t.Context(), ann.ID)
	if err != nil || len(list) != 21 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
}

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
