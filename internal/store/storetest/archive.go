package storetest

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/fault"
	"gradegate/internal/maintenance"
	"gradegate/internal/token"
)

// ArchiveMove takes a token to the archive.
func ArchiveMove(k token.Token) maintenance.Move {
	return maintenance.Move{Old: k, New: maintenance.Archived{
		Version: 1, Token: k, EndedAt: T0.Add(time.Hour), Why: token.StateExpired, ArchivedAt: T0.Add(40 * 24 * time.Hour),
		Use: token.Use{At: T0.Add(time.Minute), Addr: netip.MustParseAddr("192.0.2.7"), Agent: "curl", Count: 7},
	}}
}

func archive(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	var told []token.ID
	s.Follow(func(c authn.Change) { told = append(told, c.Archived...) })
	ann := Person("ann")
	a, b := Token(ann, "laptop"), Token(ann, "desk")
	b.Kind = token.Session
	commit(t, s, Add(&ann, a, b), audit.TokenIssue)
	must(t, s.RecordUses(t.Context(), []authn.LastUse{{Token: a.ID, Use: token.Use{At: T0, Count: 1}}}, 1))

	changed := b
	changed.Version = 9
	err := s.Archive(t.Context(), []maintenance.Move{ArchiveMove(a), ArchiveMove(changed)}, Event(audit.TokenArchive, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
	if _, err := s.Token(t.Context(), a.ID); err != nil || len(told) > 0 {
		t.Fatalf("a decision was carried out in part: %v %v", err, told)
	}
	must(t, s.Archive(t.Context(), []maintenance.Move{ArchiveMove(a)}, Event(audit.TokenArchive, "x")))
	if len(told) != 1 || told[0] != a.ID {
		t.Errorf("followers were told %v", told)
	}
	must(t, s.Close())
	s = opened(t, open)

	_, err = s.Token(t.Context(), a.ID)
	WantCode(t, err, fault.NotFound, "token_not_found")
	must(t, s.Uses(t.Context(), func(u authn.LastUse) error { t.Errorf("its use is still there: %v", u); return nil }))
	got, err := s.ArchivedToken(t.Context(), a.ID)
	must(t, err)
	if d := cmp.Diff(ArchiveMove(a).New, got, Same); d != "" {
		t.Error("archived:", d)
	}
	_, err = s.ArchivedToken(t.Context(), b.ID)
	WantCode(t, err, fault.NotFound, "token_not_archived")

	stays := func() {
		t.Helper()
		again := a
		again.Digest = token.Digest{Sum: [32]byte{9}}
		_, err := s.Commit(t.Context(), Add(nil, again), Event(audit.TokenIssue, "x"))
		WantCode(t, err, fault.Conflict, "id_taken")
		again = a
		again.ID = "tok_another"
		_, err = s.Commit(t.Context(), Add(nil, again), Event(audit.TokenIssue, "x"))
		WantCode(t, err, fault.Conflict, "secret_ended")
		d := Add(nil, again)
		d.Tokens[0].New.Digest = token.Digest{Sum: [32]byte{8}} // it was kept otherwise then
		d.Tokens[0].Forms = []token.Digest{d.Tokens[0].New.Digest, a.Digest}
		_, err = s.Commit(t.Context(), d, Event(audit.TokenIssue, "x"))
		WantCode(t, err, fault.Conflict, "secret_ended")
		ended, _ := a.Revoke(token.Leaked, token.CancelAll, T0)
		_, err = s.Commit(t.Context(), Change(a, ended), Event(audit.TokenRevoke, "x"))
		WantCode(t, err, fault.Conflict, "version_moved")
	}
	stays()
	must(t, s.Reduce(t.Context(), []maintenance.Archived{got}, "seg", Event(audit.ArchiveReduce, "x")))
	WantCode(t, s.Reduce(t.Context(), []maintenance.Archived{got}, "seg", Event(audit.ArchiveReduce, "x")), fault.Conflict, "version_moved")
	stone, err := s.ArchivedToken(t.Context(), a.ID)
	must(t, err)
	if d := cmp.Diff(got.Tombstone("seg"), stone, Same); d != "" || stone.Token.Owner != "" {
		t.Error("tombstone:", d)
	}
	stays()
}

// archiveLists: pages of the archive, what is due in it, and kin.
func archiveLists(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	ann, bob := Person("ann"), Person("bob")
	commit(t, s, Add(&ann), audit.UserCreate)
	commit(t, s, Add(&bob), audit.UserCreate)
	var all []maintenance.Move
	for i := range 7 {
		owner := ann
		if i == 3 {
			owner = bob
		}
		k := Token(owner, []string{"odd", "even"}[i%2])
		k.Kind = token.Session
		m := ArchiveMove(k)
		m.New.EndedAt = T0.Add(time.Duration(i/2) * time.Hour) // two share an instant
		all = append(all, m)
		commit(t, s, Add(nil, k), audit.TokenIssue)
	}
	must(t, s.Archive(t.Context(), all, Event(audit.TokenArchive, "x")))
	pages := func(q maintenance.Query) (n int) {
		t.Helper()
		q.Limit = 2
		var last maintenance.Place
		for {
			page, err := s.Archived(t.Context(), q)
			must(t, err)
			for _, a := range page {
				if !last.EndedAt.IsZero() && (a.EndedAt.After(last.EndedAt) || a.EndedAt.Equal(last.EndedAt) && a.Token.ID >= last.ID) {
					t.Errorf("%v after %v", a.Token.ID, last)
				}
				last = maintenance.Place{EndedAt: a.EndedAt, ID: a.Token.ID}
			}
			if n += len(page); len(page) < q.Limit {
				return n
			}
			q.Before = last
		}
	}
	for want, q := range map[int]maintenance.Query{
		7: {}, 6: {Owner: ann.ID}, 1: {Owner: bob.ID}, 4: {Name: "odd"}, 3: {EndedSince: T0.Add(2 * time.Hour)}, 2: {Kind: token.Session, EndedUntil: T0.Add(time.Hour)},
	} {
		if n := pages(q); n != want {
			t.Errorf("%+v: %d, want %d", q, n, want)
		}
	}
	due, err := s.Due(t.Context(), T0.Add(time.Hour), maintenance.Place{}, 10)
	must(t, err)
	if len(due) != 2 {
		t.Fatalf("%d are due", len(due))
	}
	must(t, s.Reduce(t.Context(), due[:1], "seg", Event(audit.ArchiveReduce, "x")))
	if left, err := s.Due(t.Context(), T0.Add(time.Hour), maintenance.Place{}, 10); err != nil || len(left) != 1 || left[0].Token.ID != due[1].Token.ID {
		t.Errorf("due: %v %v", left, err)
	}
	if left, err := s.Due(t.Context(), T0.Add(time.Hour), maintenance.Place{EndedAt: due[1].EndedAt, ID: due[1].Token.ID}, 10); err != nil || len(left) != 0 {
		t.Errorf("due behind: %v %v", left, err)
	}

	k := Token(ann, "kin")
	child, sibling, other := Token(ann, "child"), Token(ann, "sibling"), Token(ann, "other")
	child.Parent, sibling.Family, sibling.Generation = k.ID, k.Family, 2
	commit(t, s, Add(nil, k, child, sibling, other), audit.TokenIssue)
	kin, err := s.Kin(t.Context(), []token.Token{k})
	must(t, err)
	if len(kin) != 3 {
		t.Errorf("kin: %v", kin)
	}
}

func holds(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	heldMeanwhile(t, s)
	h := maintenance.Hold{
		ID: "hold_1", Version: 1, Kind: maintenance.HoldUser, Subject: "usr_1", Name: "ann", Reason: "case", By: "local:0", At: T0, Until: T0.Add(time.Hour),
	}
	must(t, s.PutHold(t.Context(), h, Event(audit.HoldAdd, "x")))
	WantCode(t, s.PutHold(t.Context(), h, Event(audit.HoldAdd, "x")), fault.Conflict, "id_taken")
	h.Version, h.RemovedAt, h.RemovedBy = 2, T0.Add(time.Minute), "local:1"
	must(t, s.PutHold(t.Context(), h, Event(audit.HoldRemove, "x")))
	WantCode(t, s.PutHold(t.Context(), h, Event(audit.HoldRemove, "x")), fault.Conflict, "version_moved")
	must(t, s.Close())
	s = opened(t, open)
	got, err := s.Holds(t.Context())
	must(t, err)
	if d := cmp.Diff([]maintenance.Hold{h}, slices.DeleteFunc(got, func(h maintenance.Hold) bool { return h.ID != "hold_1" }), Same); d != "" {
		t.Error(d)
	}
}

// heldMeanwhile: a hold that was made after it was decided what goes is in time.
func heldMeanwhile(t *testing.T, s TokensStore) {
	t.Helper()
	ann := Person("ann")
	a, b := Token(ann, "laptop"), Token(ann, "desk")
	b.Kind = token.Session
	commit(t, s, Add(&ann, a, b), audit.TokenIssue)
	must(t, s.Archive(t.Context(), []maintenance.Move{ArchiveMove(b)}, Event(audit.TokenArchive, "x")))
	due, err := s.Due(t.Context(), T0.Add(9000*time.Hour), maintenance.Place{}, 10)
	must(t, err)
	h := maintenance.Hold{ID: "hold_0", Version: 1, Kind: maintenance.HoldUser, Subject: string(ann.ID), At: T0}
	must(t, s.PutHold(t.Context(), h, Event(audit.HoldAdd, "x")))
	WantCode(t, s.Archive(t.Context(), []maintenance.Move{ArchiveMove(a)}, Event(audit.TokenArchive, "x")), fault.Conflict, "hold_moved")
	WantCode(t, s.Reduce(t.Context(), due, "seg", Event(audit.ArchiveReduce, "x")), fault.Conflict, "hold_moved")
	h.Version, h.RemovedAt = 2, T0
	must(t, s.PutHold(t.Context(), h, Event(audit.HoldRemove, "x")))
	must(t, s.Archive(t.Context(), []maintenance.Move{ArchiveMove(a)}, Event(audit.TokenArchive, "x")))
	must(t, s.Reduce(t.Context(), due, "seg", Event(audit.ArchiveReduce, "x")))
}
