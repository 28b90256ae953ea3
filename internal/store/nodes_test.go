package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/budget"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/principal"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// second is another node on the same PostgreSQL, with a ledger of its own.
func (r *rig) second() *rig {
	r.t.Helper()
	dir := r.t.TempDir()
	o := &rig{t: r.t, now: r.now, cfg: r.cfg}
	o.cfg.Dir, o.cfg.Ledger = filepath.Join(dir, "data"), filepath.Join(dir, "ledger")
	return o
}

// TestNodesFollowEachOther: what one node acknowledges reaches the followers of
// the other, and a version decides between them.
func TestNodesFollowEachOther(t *testing.T) {
	t.Parallel()
	a := newPostgresRig(t)
	b := a.second()
	seen := make(chan token.Token, 100)
	fresh := make(chan struct{}, 1)
	b.cfg.Fresh = func() { poke(fresh) }
	a.open()
	b.open()
	b.s.Follow(func(c authn.Change) {
		for _, k := range c.Tokens {
			seen <- k
		}
	})
	_, ks := a.ann(1)
	until := func(ok func(token.Token) bool) {
		t.Helper()
		for {
			select {
			case k := <-seen:
				if ok(k) {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the other node was not told")
			}
		}
	}
	until(func(k token.Token) bool { return k.ID == ks[0].ID })
	a.must(a.revoke(ks[0]))
	until(func(k token.Token) bool { return k.ID == ks[0].ID && k.Standing == token.Revoked })
	<-fresh
	<-fresh
	b.want(ks[0].ID, token.Revoked)
	if err := b.revoke(ks[0]); err == nil {
		t.Error("the other node replaced a version that no longer stands")
	}
}

// TestNodesRace: both nodes decide at once; the sequence is one, and each
// node's ledger proves what it wrote.
func TestNodesRace(t *testing.T) {
	t.Parallel()
	a := newPostgresRig(t)
	b := a.second()
	a.open()
	b.open()
	ann, ks := a.ann(1)
	nodes := []*rig{a, b}
	var wg sync.WaitGroup
	won := make([]error, 40)
	for i := range won {
		wg.Go(func() {
			d, _ := storetest.Successor(ks[0], ann)
			won[i] = nodes[i%2].commit(d, audit.TokenRotate)
		})
		wg.Go(func() {
			k := storetest.Token(ann, fmt.Sprint("n", i))
			if err := nodes[i%2].commit(storetest.Add(nil, k), audit.TokenIssue); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for _, err := range won {
		if err == nil {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d rotations won", n)
	}
	a.same(b.dump())
	a.checked()
	b.checked()
	a.close()
	b.close()
	wantOutcome(t, a.open(), "clean")
	wantOutcome(t, b.open(), "clean")
}

// TestNodeDiesWhileOthersGoOn: its last batch is not in the database, which has
// moved on. What it took away is taken away; the rest never happened.
func TestNodeDiesWhileOthersGoOn(t *testing.T) {
	t.Parallel()
	a := newPostgresRig(t)
	b := a.second()
	a.open()
	ann, ks := a.ann(3)
	b.open()
	suspended, err := ks[1].Suspend(token.ByOwner)
	a.must(err)
	a.hook = func(p point) error {
		if p == beforeCommit {
			return errKilled
		}
		return nil
	}
	if err := a.revoke(ks[0]); err == nil {
		t.Fatal("a killed process answered")
	}
	abandon(a.s)
	a.hook = nil
	b.must(b.commit(storetest.Change(ks[0], mustSuspend(t, ks[0])), audit.TokenSuspend))
	b.must(b.commit(storetest.Change(ks[1], suspended), audit.TokenSuspend))
	b.must(b.commit(storetest.Add(nil, storetest.Token(ann, "more")), audit.TokenIssue))
	b.want(ks[0].ID, token.Suspended)
	wantOutcome(t, a.open(), "reapplied")
	a.want(ks[0].ID, token.Revoked)
	a.want(ks[1].ID, token.Suspended)
	b.want(ks[0].ID, token.Revoked)
	a.checked()
	a.close()
	wantOutcome(t, a.open(), "clean")
}

func mustSuspend(t *testing.T, k token.Token) token.Token {
	t.Helper()
	is, err := k.Suspend(token.ByOwner)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

// TestEpochsJoin: recovery joins principals as it joins tokens.
func TestEpochsJoin(t *testing.T) {
	t.Parallel()
	for action, change := range map[audit.Action]func(principal.Principal) principal.Principal{
		audit.UserOffboard: func(p principal.Principal) principal.Principal {
			gone, _ := p.Offboard(true, storetest.T0)
			return gone
		},
		audit.UserRevokeAll: func(p principal.Principal) principal.Principal { return p.RevokeAll(storetest.T0) },
	} {
		t.Run(string(action), func(t *testing.T) {
			eachEngine(t, func(t *testing.T, r *rig) {
				r.open()
				ann, _ := r.ann(1)
				want := change(ann)
				r.hook = func(p point) error {
					if p == beforeCommit {
						return errKilled
					}
					return nil
				}
				d := storetest.Add(nil)
				d.Principals = append(d.Principals, principalChange(ann, want))
				if err := r.commit(d, action); err == nil {
					t.Fatal("a killed process answered")
				}
				abandon(r.s)
				r.hook = nil
				wantOutcome(t, r.open(), "reapplied")
				p, err := r.s.Principal(t.Context(), ann.ID)
				if err != nil || p.Status != want.Status || p.Epochs != want.Epochs || p.CancelBefore != want.CancelBefore {
					t.Errorf("%+v, %v", p, err)
				}
			})
		})
	}
}

// TestMixedDecisionsLoosen: what gives something along with what it takes is
// no tightening, whatever its event is called, and waits for the ledger.
func TestMixedDecisionsLoosen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	ann, ks := r.ann(1)
	r.hook = func(p point) error {
		if p == beforeLedger {
			return errKilledDisk
		}
		return nil
	}
	cut := ann.RevokeAll(storetest.T0)
	keep := storetest.Change(ks[0], ks[0].Restamp(cut.Epochs))
	keep.Principals = append(keep.Principals, principalChange(ann, cut))
	storetest.WantCode(t, r.commit(keep, audit.UserRevokeAll), fault.Unavailable, "ledger_unavailable")
	raised := ann
	raised.Version, raised.Role = 2, principal.Admin
	d := storetest.Add(nil)
	d.Principals = append(d.Principals, principalChange(ann, raised))
	storetest.WantCode(t, r.commit(d, audit.UserSuspend), fault.Unavailable, "ledger_unavailable")
	d = storetest.Add(nil, storetest.Token(ann, "new"))
	storetest.WantCode(t, r.commit(d, audit.TokenRevoke), fault.Unavailable, "ledger_unavailable")
	d = storetest.Add(nil)
	d.Principals = append(d.Principals, principalChange(ann, cut))
	r.must(r.commit(d, audit.UserRevokeAll))
	r.must(r.revoke(ks[0]))
}

// errKilledDisk is a ledger's disk that is gone.
var errKilledDisk = errors.New("no such disk")

// TestQuotaAcrossNodes: quotas and budgets hold although the nodes know nothing
// of one another (B9): of two people the one is stopped by the competition, the
// other by his token.
func TestQuotaAcrossNodes(t *testing.T) {
	t.Parallel()
	url := storetest.PostgresURL(t)
	var nodes []*Jobs
	for range 2 {
		j, err := OpenJobs(t.Context(), JobsConfig{Dir: t.TempDir(), URL: url, Now: clock.NewFake(storetest.T0).Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = j.Close() })
		nodes = append(nodes, j)
	}
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for i := range 120 {
		wg.Go(func() {
			x, sub := storetest.Job(principal.ID(fmt.Sprint("usr_", i/2%2)), "mnist")
			q := grading.Reservation{Since: storetest.T0, PerDay: 15}
			code := "quota_exceeded"
			if x.Owner == "usr_1" {
				code, q.PerDay, q.GPUSeconds = "budget_exceeded", 0, 600
				q.Bounds = []budget.Bound{{Account: string(x.Owner)}, {Account: "fam_1", Level: budget.TokenLevel, Budget: budget.Budget{GPU: 150 * time.Minute, Per: budget.Day}}}
			}
			err := nodes[i%2].InsertJob(t.Context(), x, sub, q, nil, storetest.Event(audit.JobSubmit, "x"))
			if err == nil {
				admitted.Add(1)
				return
			}
			storetest.WantCode(t, err, fault.Limited, code)
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != 30 {
		t.Errorf("%d admitted, want 30", n)
	}
}

// TestAnswerWaitsForFollowers: nobody hears of a revocation while a follower
// may still allow the token.
func TestAnswerWaitsForFollowers(t *testing.T) {
	r := newRig(t)
	synctest.Test(t, func(t *testing.T) {
		r.t = t
		r.open()
		_, ks := r.ann(1)
		entered, leave := make(chan struct{}), make(chan struct{})
		r.s.Follow(func(authn.Change) {
			close(entered)
			<-leave
		})
		var answered atomic.Bool
		go func() {
			r.must(r.revoke(ks[0]))
			answered.Store(true)
		}()
		<-entered
		synctest.Wait()
		if answered.Load() {
			t.Error("the answer came before the followers had applied it")
		}
		close(leave)
		synctest.Wait()
		if !answered.Load() {
			t.Error("no answer")
		}
		r.close()
	})
}

// TestLargeDecisions are split into batches, or refused, and never break the
// ledger.
func TestLargeDecisions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	ann, _ := r.ann(0)
	var wg sync.WaitGroup
	for range 8 {
		d := storetest.Add(nil)
		for i := range 1500 {
			d.Tokens = append(d.Tokens, tokenInsert(storetest.Token(ann, fmt.Sprint("n", i))))
		}
		wg.Go(func() {
			if err := r.commit(d, audit.TokenIssue); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	d := storetest.Add(nil)
	for i := range 4000 {
		d.Tokens = append(d.Tokens, tokenInsert(storetest.Token(ann, fmt.Sprint("n", i))))
	}
	err := r.commit(d, audit.TokenIssue)
	storetest.WantCode(t, err, errTooLarge.Kind, errTooLarge.Code)
	rows := r.dump()
	r.close()
	r.removeFiles()
	wantOutcome(t, r.open(), "rebuilt")
	r.same(rows)
	r.close()
	// A base in many parts.
	r.must(removeAll(r.cfg.Ledger))
	wantOutcome(t, r.open(), "rebased")
	r.close()
	r.removeFiles()
	wantOutcome(t, r.open(), "rebuilt")
	r.same(rows)
}
