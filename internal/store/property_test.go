package store

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/principal"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// world is what a random run expects of the store: what was acknowledged, and
// for each record in doubt what it may be as well.
type world struct {
	*rig
	rng    *rand.Rand
	mu     sync.Mutex
	owners []principal.Principal
	tokens map[token.ID]*expect
	ids    []token.ID
}

// expect is one token as it was last acknowledged. It is absent if its version
// is zero. maybe is what an unanswered decision would have made of it.
type expect struct {
	is    token.Token
	maybe []token.Token
}

// How many random runs there are, and the first seed: make torture asks for more.
var (
	seeds     = flag.Uint64("store.seeds", 8, "random runs per engine")
	firstSeed = flag.Uint64("store.seed", 0, "seed of the first random run")
)

// TestRandomRuns does random decisions with random failures, crashes and loss
// of files, and compares after every start: acknowledged ones are there,
// refused ones are not, and what was taken away stays away.
func TestRandomRuns(t *testing.T) {
	t.Parallel()
	for i := range *seeds {
		seed := *firstSeed + i
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			eachEngine(t, func(t *testing.T, r *rig) {
				rounds := 30
				if isPostgres(r.cfg.URL) {
					rounds = 10
				}
				randomRun(t, r, seed, rounds)
			})
		})
	}
}

func randomRun(t *testing.T, r *rig, seed uint64, rounds int) {
	w := &world{rig: r, rng: rand.New(rand.NewPCG(seed, 1)), tokens: map[token.ID]*expect{}}
	r.open()
	for i := range 3 {
		p := storetest.Person(fmt.Sprint("p", i))
		r.must(r.commit(storetest.Add(&p), audit.UserCreate))
		w.owners = append(w.owners, p)
	}
	for range rounds {
		killed := w.round()
		if t.Failed() {
			return
		}
		if killed || w.rng.IntN(4) == 0 {
			w.restart(killed)
		}
		w.compare()
	}
	// The last failure may have left the ledger to be tried again.
	p := storetest.Person("last")
	w.must(w.commit(storetest.Add(&p), audit.UserCreate))
	w.checked()
}

// round runs a few decisions at once, on different tokens, with at most one
// failure.
func (w *world) round() (killed bool) {
	fail := []error{nil, nil, errors.New("boom"), errKilled}[w.rng.IntN(4)]
	at, skip := allPoints[w.rng.IntN(len(allPoints))], w.rng.IntN(3)
	w.hook = func(p point) error {
		if p != at || fail == nil {
			return nil
		}
		if skip--; skip >= 0 {
			return nil
		}
		err := fail
		if !errors.Is(err, errKilled) {
			fail = nil
		}
		return err
	}
	var wg sync.WaitGroup
	var all []func()
	busy := map[token.ID]bool{}
	for range 1 + w.rng.IntN(5) {
		decision, action, changes := w.draw(busy)
		all = append(all, func() { w.book(w.commit(decision, action), changes) })
	}
	for _, f := range all {
		wg.Go(f)
	}
	wg.Wait()
	w.t.Log("round", at, fail, skip, len(all))
	w.hook = nil
	return errors.Is(fail, errKilled) && skip < 0
}

// draw picks a decision on tokens that nobody else in this round touches.
func (w *world) draw(busy map[token.ID]bool) (authority.Decision, audit.Action, []token.Token) {
	var k token.Token
	if len(w.ids) > 0 {
		k = w.tokens[w.ids[w.rng.IntN(len(w.ids))]].is
	}
	if k.Version == 0 || busy[k.ID] || w.rng.IntN(3) == 0 {
		fresh := storetest.Token(w.owners[w.rng.IntN(len(w.owners))], "n")
		fresh.Kind = token.Service
		w.ids = append(w.ids, fresh.ID)
		w.tokens[fresh.ID] = &expect{}
		busy[fresh.ID] = true
		return storetest.Add(nil, fresh), audit.TokenIssue, []token.Token{fresh}
	}
	busy[k.ID] = true
	if k.Standing == token.Suspended && w.rng.IntN(2) == 0 {
		is, err := k.Resume(token.ByOwner)
		w.must(err)
		return storetest.Change(k, is), audit.TokenResume, []token.Token{is}
	}
	if k.Standing == token.Standard && w.rng.IntN(2) == 0 {
		is, err := k.Suspend(token.ByOwner)
		w.must(err)
		return storetest.Change(k, is), audit.TokenSuspend, []token.Token{is}
	}
	if k.Standing == token.Standard && k.Successor == "" && w.rng.IntN(2) == 0 {
		d, next := storetest.Successor(k, w.owners[0])
		w.ids = append(w.ids, next.ID)
		w.tokens[next.ID] = &expect{}
		busy[next.ID] = true
		return d, audit.TokenRotate, []token.Token{d.Tokens[0].New, next}
	}
	is, _ := k.Revoke(token.ByAdmin, token.CancelQueued, storetest.T0)
	return storetest.Change(k, is), audit.TokenRevoke, []token.Token{is}
}

// book notes what an answer promises.
func (w *world) book(err error, changes []token.Token) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, is := range changes {
		e := w.tokens[is.ID]
		switch fault.CodeOf(err) {
		case "store_closed", "revoked_not_durable": // no promise either way
			e.maybe = append(e.maybe, is)
		case "version_moved", "store_unavailable", "ledger_unavailable":
			if err == nil {
				panic("unreachable")
			}
		default:
			if err != nil {
				w.t.Errorf("%s: %v", is.ID, err)
				continue
			}
			e.is, e.maybe = is, nil
		}
	}
}

// restart ends the process and starts the next one, sometimes with something
// gone.
func (w *world) restart(killed bool) {
	w.t.Helper()
	what := w.rng.IntN(6)
	w.t.Log("restart", killed, what)
	if killed {
		abandon(w.s)
	} else {
		w.close()
	}
	if w.s.w.ledger.trouble() != nil {
		what = -1 // one side is down already; losing the other as well is too much for anybody
	}
	if !isPostgres(w.cfg.URL) {
		switch what {
		case 0:
			w.removeFiles()
		case 1:
			if !killed {
				w.must(os.RemoveAll(w.cfg.Ledger))
			}
		case 2:
			if _, err := os.Stat(w.old()); err == nil {
				w.removeFiles()
				w.swapIn()
			}
		case 3:
			w.copyFiles(w.old())
		}
	}
	w.t.Log(w.open())
}

func (w *world) old() string { return filepath.Join(filepath.Dir(w.cfg.Dir), "old.db") }

// swapIn puts an older copy in the place of the database. It is used once: a
// copy from before a new ledger would be a different story.
func (w *world) swapIn() {
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(w.old()+part, w.cfg.URL+part); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.t.Fatal(err)
		}
	}
}

// compare looks at every token. A version may be ahead of what was told, since
// recovery counts one more; what matters is what it decides.
func (w *world) compare() {
	w.t.Helper()
	for _, id := range w.ids {
		e := w.tokens[id]
		got, err := w.s.Token(w.t.Context(), id)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			w.t.Fatalf("%s: %v", id, err)
		}
		if !matches(got, e.is) {
			ok := false
			for _, m := range e.maybe {
				ok = ok || matches(got, m)
			}
			if !ok {
				w.t.Errorf("%s is %s (successor %q), acknowledged was %s (successor %q), %d unanswered", id, got.Standing, got.Successor, e.is.Standing, e.is.Successor, len(e.maybe))
			}
		}
		e.is, e.maybe = got, nil // what is there now is what counts from here on
	}
}

func matches(got, want token.Token) bool {
	return got.ID == want.ID && got.Standing == want.Standing && got.Successor == want.Successor && got.Reason == want.Reason
}
