package store

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

var allPoints = []point{beforeLedger, afterLedger, beforeCommit, afterCommit}

// TestKilledAtEachPoint stops the process around each step of a batch. What was
// in the ledger: revocations are kept, the rest is void unless the database has
// it.
func TestKilledAtEachPoint(t *testing.T) {
	t.Parallel()
	for _, p := range allPoints {
		t.Run(string(p), func(t *testing.T) {
			eachEngine(t, func(t *testing.T, r *rig) {
				r.open()
				ann, ks := r.ann(2)
				kill := func(q point) error {
					if q == p {
						return errKilled
					}
					return nil
				}
				r.hook = kill
				if err := r.revoke(ks[0]); err == nil {
					t.Fatal("a killed process answered")
				}
				abandon(r.s)
				r.hook = nil
				report := r.open()
				revoked := token.Revoked
				if p == beforeLedger {
					revoked = token.Standard
				}
				r.want(ks[0].ID, revoked)
				r.want(ks[1].ID, token.Standard)
				if want := map[point]string{afterLedger: "reapplied", beforeCommit: "reapplied"}[p]; want != "" {
					wantOutcome(t, report, want)
				} else {
					wantOutcome(t, report, "clean")
				}
				r.checked()

				fresh := storetest.Token(ann, "fresh")
				r.hook = kill
				if err := r.commit(storetest.Add(nil, fresh), audit.TokenIssue); err == nil {
					t.Fatal("a killed process answered")
				}
				abandon(r.s)
				r.hook = nil
				r.open()
				issued := token.Standing("absent")
				if p == afterCommit {
					issued = token.Standard
				}
				r.want(fresh.ID, issued)
				r.want(ks[0].ID, revoked)
				r.checked()
				r.close()
				wantOutcome(t, r.open(), "clean")
			})
		})
	}
}

// TestFailedAtEachPoint lets each step fail, before or after its effect, in a
// process that lives on.
func TestFailedAtEachPoint(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for _, p := range allPoints {
		t.Run(string(p), func(t *testing.T) {
			eachEngine(t, func(t *testing.T, r *rig) {
				r.open()
				ann, ks := r.ann(2)
				fail := func(q point) error {
					if q == p {
						return boom
					}
					return nil
				}
				r.hook = fail
				r.must(r.revoke(ks[0])) // a revocation is never held up by one failure
				r.want(ks[0].ID, token.Revoked)
				fresh := storetest.Token(ann, "fresh")
				err := r.commit(storetest.Add(nil, fresh), audit.TokenIssue)
				issued := token.Standing("absent")
				switch p {
				case beforeLedger, afterLedger:
					storetest.WantCode(t, err, fault.Unavailable, "ledger_unavailable")
				case beforeCommit:
					storetest.WantCode(t, err, fault.Unavailable, "store_unavailable")
				case afterCommit:
					r.must(err) // it was asked for once more, and is there
					issued = token.Standard
				}
				r.want(fresh.ID, issued)
				r.hook = nil
				r.must(r.commit(storetest.Add(nil, storetest.Token(ann, "later")), audit.TokenIssue))
				check := func() {
					t.Helper()
					r.want(ks[0].ID, token.Revoked)
					r.want(ks[1].ID, token.Standard)
					r.want(fresh.ID, issued)
					r.checked()
				}
				check()
				r.close()
				wantOutcome(t, r.open(), "clean")
				check()
				if isPostgres(r.cfg.URL) {
					return
				}
				rows := r.dump()
				r.close()
				r.removeFiles()
				wantOutcome(t, r.open(), "rebuilt")
				r.same(rows)
			})
		})
	}
}

// TestCommitFailsAgainAndAgain: revocations pile up in the ledger and arrive in
// the database in the end, also when the process dies in between.
func TestCommitFailsAgainAndAgain(t *testing.T) {
	t.Parallel()
	for _, dies := range []bool{false, true} {
		t.Run(fmt.Sprint("dies=", dies), func(t *testing.T) {
			eachEngine(t, func(t *testing.T, r *rig) {
				r.open()
				ann, ks := r.ann(6)
				var broken atomic.Bool
				broken.Store(true)
				r.hook = func(p point) error {
					if p == beforeCommit && broken.Load() {
						return errors.New("boom")
					}
					return nil
				}
				for _, k := range ks[:4] {
					r.must(r.revoke(k))
					r.want(k.ID, token.Revoked)
					err := r.commit(storetest.Add(nil, storetest.Token(ann, "void"+string(k.ID))), audit.TokenIssue)
					storetest.WantCode(t, err, fault.Unavailable, "store_unavailable")
				}
				broken.Store(false)
				if dies {
					abandon(r.s)
					wantOutcome(t, r.open(), "reapplied")
				} else {
					r.must(r.revoke(ks[4]))
					r.want(ks[4].ID, token.Revoked)
				}
				for _, k := range ks[:4] {
					r.want(k.ID, token.Revoked)
				}
				r.want(ks[5].ID, token.Standard)
				list, err := r.s.TokensOf(t.Context(), ann.ID, authority.Among{})
				if err != nil || len(list) != 6 {
					t.Errorf("%d tokens, %v: void ones are there", len(list), err)
				}
				r.checked()
				events, err := r.s.PendingEvents(t.Context(), 1000)
				r.must(err)
				n := 0
				for _, e := range events {
					if e.Action == audit.TokenRevoke {
						n++
					}
				}
				if want := 4 + map[bool]int{false: 1}[dies]; n != want {
					t.Errorf("%d revocations on their way to the trail, want %d", n, want)
				}
			})
		})
	}
}
