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
	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/maintenance"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// TokensStore is what the suite asks of a tokens database.
type TokensStore interface {
	authority.Store
	maintenance.Store
	Load(context.Context, func(authn.Change) error) error
	Follow(func(authn.Change))
	Uses(context.Context, func(authn.LastUse) error) error
	RecordUses(ctx context.Context, uses []authn.LastUse, trailPos uint64) error
	RecordGuesses(ctx context.Context, list []authn.Guessed) error
	Guesses(ctx context.Context, do func(authn.Guessed) error) error
	UsesStored(ctx context.Context, since time.Time, do func(authn.LastUse) error) error
	UsesPosition(context.Context) (uint64, error)
	Beat(ctx context.Context, able, now time.Time) (token.Outages, error)
	Outages(context.Context) (token.Outages, error)
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
		{"one token of a name", oneOfAName},
		{"policies come back whole", levels},
		{"blocks come back whole", blocks},
		{"guesses add up", guesses},
		{"consents come back whole", consents},
		{"an outage is remembered", outages},
		{"replies", replies},
		{"a decision is whole or nothing", wholeDecision},
		{"followers are told before the answer", followers},
		{"events wait for the trail", outbox},
		{"uses never go back", uses},
		{"principals are listed by id", listing},
		{"an owner's tokens come in pages", pages},
		{"a question is about some of them", among},
		{"revisions rise", revisions},
		{"a decision needs an event", needsEvent},
		{"what is archived stays so", archive},
		{"the archive is listed", archiveLists},
		{"holds", holds},
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
	k.EnforceRotation, k.Observe = true, true
	k.RenewedAt = T0.Add(4 * time.Second)
	k.Budget, k.Account = budget.Budget{GPU: 8 * time.Hour, Per: 2 * budget.Day, Jobs: 3}, "fam_before"
	ann.CancelBefore, ann.Groups = 3, []string{"interns", "ml"}
	ann.Left, ann.InactiveSince = []principal.Departure{{Group: "old", At: T0.Add(-time.Hour)}, {Group: "older", At: T0.Add(-2 * time.Hour)}}, T0.Add(-time.Minute)
	ann.Owners, ann.OwnerGroup, ann.OwnedSince = []principal.ID{"usr_1", "usr_2"}, "vision", T0.Add(-time.Second)
	ann.Budget = budget.Budget{GPU: 90 * time.Minute, Per: budget.Day, Jobs: 1}
	ann.Grants = []budget.Grant{{ID: "grt_1", GPU: time.Hour, Jobs: 2, At: T0, Until: T0.Add(time.Hour), Reason: "<&> why", By: "local:0"}}
	allSet(t, k)
	allSet(t, ann)
	k.RevokedAt = T0.Add(time.Microsecond)
	bare := token.Token{ID: "tok_bare", Version: 1, Kind: token.Invite, Owner: ann.ID, Standing: token.Standard, Digest: token.Digest{Sum: [32]byte{1}}}
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
		list, err := s.TokensOf(t.Context(), ann.ID, authority.Among{})
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
	list, err := s.TokensOf(t.Context(), "usr_none", authority.Among{})
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
	suspended, err := k.Suspend(token.ByOwner)
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
	old, next, err := k.Rotate(token.Rotation{Grace: time.Hour}, p, &token.Holder{}, token.History{}, T0)
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
	list, err := s.TokensOf(t.Context(), ann.ID, authority.Among{})
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
	suspended, err := k.Suspend(token.ByOwner)
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
	d.Counts = func(t *token.Token) bool { return t.Epochs == cut.Epochs }
	commit(t, s, d, audit.TokenIssue) // nor what an epoch has ended, says who asks
}

// What lies between two notes is an outage, unless uses were recorded all the
// while or it was no longer than a restart; it survives one.
func outages(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	known := 0
	beat := func(able, now time.Duration) bool {
		t.Helper()
		all, err := s.Beat(t.Context(), T0.Add(able), T0.Add(now))
		must(t, err)
		before := known
		known = len(all)
		return known != before
	}
	if beat(0, 0) || beat(0, time.Hour) || beat(time.Hour+30*time.Second, time.Hour+time.Minute) {
		t.Error("an outage where there is none")
	}
	if !beat(3*time.Hour, 4*time.Hour) || beat(3*time.Hour, 5*time.Hour) || !beat(7*time.Hour, 7*time.Hour) {
		t.Error("an outage is not seen, or twice")
	}
	must(t, s.Close())
	s = opened(t, open)
	got, err := s.Outages(t.Context())
	must(t, err)
	want := token.Outages{{From: T0.Add(time.Hour + time.Minute), Until: T0.Add(3 * time.Hour)}, {From: T0.Add(5 * time.Hour), Until: T0.Add(7 * time.Hour)}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// A policy is kept whole, and replaced only by who has seen it.
func levels(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	rules := policy.Rules{
		Terms: token.Terms{
			Level: "group:ml", MaxLifetime: token.Limit{Span: 5}, Idle: token.Limit{Span: 6}, ServiceIdle: token.Limit{Span: 7},
			Unused: token.Limit{Span: 8}, RotateAfter: token.Limit{Span: 9}, Enforced: token.Limit{Span: 9}, SessionsOnly: token.Flag{On: true},
		},
		Lifetime: 4, MaxPersonal: 3, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Observe: true, Quarantine: true,
		Budget: budget.Budget{GPU: time.Hour, Per: budget.Day, Jobs: 2},
	}
	for _, d := range []*time.Duration{
		&rules.MaxLifetime.Span, &rules.Idle.Span, &rules.ServiceIdle.Span, &rules.Unused.Span, &rules.RotateAfter.Span, &rules.Enforced.Span, &rules.Lifetime,
	} {
		*d *= time.Hour
	}
	level := policy.Level{Name: "group:ml"}.Set(rules, policy.Rules{}, T0, T0).Set(rules, policy.Rules{}, T0.Add(time.Hour), T0)
	level.Version = 1
	shown := level.Rules
	shown.Until = T0 // computed where it is used, and never stored
	allSet(t, shown)
	shown.Since = level.Coming.Since
	_, err := s.Commit(t.Context(), authority.Decision{Levels: []authority.LevelChange{{New: level}}}, Event(audit.PolicySet, "x"))
	must(t, err)
	next := level.Set(policy.Rules{}, policy.Rules{}, T0, T0)
	for range 2 {
		got, err := s.Levels(t.Context())
		must(t, err)
		if d := cmp.Diff([]policy.Level{level}, got, Same); d != "" {
			t.Error(d)
		}
		must(t, s.Close())
		s = opened(t, open)
	}
	change := authority.Decision{Levels: []authority.LevelChange{{Old: &level, New: next}}}
	_, err = s.Commit(t.Context(), change, Event(audit.PolicySet, "x"))
	must(t, err)
	_, err = s.Commit(t.Context(), change, Event(audit.PolicySet, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
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
	list, err := s.TokensOf(t.Context(), ann.ID, authority.Among{})
	if err != nil || len(list) != 21 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
}
