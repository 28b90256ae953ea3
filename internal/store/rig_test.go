package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/principal"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// rig is one installation that a test crashes, damages and opens again.
type rig struct {
	t    *testing.T
	cfg  TokensConfig
	now  *clock.Fake
	hook func(point) error
	s    *Tokens
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	return &rig{t: t, now: clock.NewFake(storetest.T0), cfg: TokensConfig{
		Dir: filepath.Join(dir, "data"), URL: filepath.Join(dir, "data", "tokens.db"), Ledger: filepath.Join(dir, "other disk", "ledger"),
		Keys: keys.New([32]byte{1}),
	}}
}

func newPostgresRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.cfg.URL = storetest.PostgresURL(t)
	return r
}

// each runs a test on both engines.
func eachEngine(t *testing.T, run func(t *testing.T, r *rig)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { t.Parallel(); run(t, newRig(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { t.Parallel(); run(t, newPostgresRig(t)) })
}

// try opens the installation as a new process would.
func (r *rig) try() error {
	r.cfg.Clock = clock.New(r.now.Now, storetest.T0)
	s, err := openTokens(r.t.Context(), r.cfg, &probe{at: func(p point) error {
		if r.hook == nil {
			return nil
		}
		return r.hook(p)
	}})
	if err == nil {
		r.s = s
		r.t.Cleanup(func() { abandon(s) })
	}
	return err
}

func (r *rig) open() Report {
	r.t.Helper()
	if err := r.try(); err != nil {
		r.t.Fatal(err)
	}
	return r.s.Report()
}

func (r *rig) close() {
	r.t.Helper()
	if err := r.s.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// abandon is the end of a process that was killed: nothing is finished. The
// journal stays as it is, since the kernel has what was written.
func abandon(s *Tokens) {
	s.w.test.dead.Store(true)
	s.closing.Do(func() { close(s.stop) })
	<-s.stopped
	s.feed.Wait()
	if db := s.db.Load(); db != nil {
		_ = db.Close()
	}
}

func (r *rig) commit(d authority.Decision, a audit.Action) error {
	_, err := r.s.Commit(r.t.Context(), d, storetest.Event(a, "x"))
	return err
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// ann is an acknowledged person with n acknowledged tokens.
func (r *rig) ann(n int) (principal.Principal, []token.Token) {
	r.t.Helper()
	p := storetest.Person(fmt.Sprint("ann", n))
	var ks []token.Token
	r.must(r.commit(storetest.Add(&p), audit.UserCreate))
	for i := range n {
		k := storetest.Token(p, fmt.Sprint("n", i))
		ks = append(ks, k)
		r.must(r.commit(storetest.Add(nil, k), audit.TokenIssue))
	}
	return p, ks
}

func (r *rig) revoke(k token.Token) error {
	ended, _ := k.Revoke(token.ByOwner, token.Keep, storetest.T0)
	return r.commit(storetest.Change(k, ended), audit.TokenRevoke)
}

func (r *rig) standing(id token.ID) token.Standing {
	r.t.Helper()
	k, err := r.s.Token(r.t.Context(), id)
	if fault.KindOf(err) == fault.NotFound && err != nil {
		return "absent"
	}
	r.must(err)
	return k.Standing
}

func (r *rig) want(id token.ID, s token.Standing) {
	r.t.Helper()
	if got := r.standing(id); got != s {
		r.t.Errorf("%s is %s, want %s", id, got, s)
	}
}

// dump is everything under MAC and ledger, as images.
func (r *rig) dump() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	db := r.s.db.Load()
	for _, t := range ledgerTables {
		err := each(r.t.Context(), db.read, t.selectAll, t, func(s stored) error {
			out[t.name+" "+key(s.row)] = string(image(s.row))
			return s.verify(r.cfg.Keys)
		})
		r.must(err)
	}
	return out
}

func (r *rig) same(want map[string]string) {
	r.t.Helper()
	if d := cmp.Diff(want, r.dump()); d != "" {
		r.t.Error("rows differ (-want +got):", d)
	}
}

// checked proves database and ledger against one another.
func (r *rig) checked() {
	r.t.Helper()
	report, err := r.s.Check(context.Background())
	if err != nil || report.Outcome != "clean" {
		r.t.Errorf("check: %+v, %v", report, err)
	}
}

// files copies or removes the three files of the database.
func (r *rig) copyFiles(to string) {
	r.t.Helper()
	for _, part := range []string{"", "-wal", "-shm"} {
		data, err := os.ReadFile(r.cfg.URL + part)
		if errors.Is(err, os.ErrNotExist) {
			_ = os.Remove(to + part)
			continue
		}
		r.must(err)
		r.must(os.WriteFile(to+part, data, 0o600))
	}
}

func (r *rig) removeFiles() {
	r.t.Helper()
	for _, part := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(r.cfg.URL + part); err != nil && !errors.Is(err, os.ErrNotExist) {
			r.t.Fatal(err)
		}
	}
}

// tamper changes the closed database behind our back.
func (r *rig) tamper(statement string, args ...any) {
	r.t.Helper()
	db, err := openDatabase(r.t.Context(), r.cfg.URL, tokensKind, false)
	r.must(err)
	res, err := db.write.ExecContext(r.t.Context(), statement, args...)
	r.must(err)
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		r.t.Fatalf("tampering changed nothing: %v", err)
	}
	r.must(db.Close())
}

func wantOutcome(t *testing.T, r Report, outcome string) {
	t.Helper()
	if r.Outcome != outcome {
		t.Errorf("opening: %s, want %s: %s", r.Outcome, outcome, strings.Join(r.Notes, " "))
	}
}

func principalChange(old, is principal.Principal) authority.PrincipalChange {
	return authority.PrincipalChange{Old: &old, New: is}
}

func tokenInsert(k token.Token) authority.TokenChange { return authority.TokenChange{New: k} }

func removeAll(dir string) error { return os.RemoveAll(dir) }
