package maintenance_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
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

const day = 24 * time.Hour

var (
	t0    = storetest.T0
	addr  = netip.MustParseAddr("192.0.2.7")
	admin = &policy.Subject{Local: true, Request: "req_1"}
)

// world is a store with its table and a sweeper over both.
type world struct {
	t      testing.TB
	clock  *clock.Fake
	table  *authn.Table
	tokens *store.Tokens
	sweep  *maintenance.Maintenance
	vias   []token.ID
	doubt  string
	n      int
	ann    principal.Principal
	dir    string
	keys   *keys.Ring
	known  map[token.ID]token.Secret
}

// engines runs a test on both engines.
func engines(t *testing.T, run func(t *testing.T, w *world)) {
	t.Run("SQLite", func(t *testing.T) { t.Parallel(); run(t, build(t, "")) })
	t.Run("PostgreSQL", func(t *testing.T) { t.Parallel(); run(t, build(t, storetest.PostgresURL(t))) })
}

func build(t testing.TB, url string) *world {
	t.Helper()
	w := &world{t: t, clock: clock.NewFake(t0), dir: t.TempDir(), keys: keys.New([32]byte{1}), known: map[token.ID]token.Secret{}}
	w.table = authn.New(w.clock.Now, 0, policy.Rules{})
	var err error
	w.tokens, err = store.OpenTokens(context.Background(), store.TokensConfig{
		Dir: filepath.Join(w.dir, "data"), URL: url, Keys: w.keys, Clock: clock.New(w.clock.Now, t0), Follow: w.table.Apply, Memory: w.table,
	})
	w.must(err)
	t.Cleanup(func() { _ = w.tokens.Close() })
	w.sweep, err = maintenance.New(maintenance.Config{
		Store: w.tokens, Table: w.table, Jobs: w, Directory: w, Now: w.clock.Now, Doubt: func() string { return w.doubt }, NewID: w.newID,
		Keep: 365 * day, Dir: filepath.Join(w.dir, "archive"), Key: w.keys.Trail(), Gauge: w, Samples: w.tokens, Node: "here",
	})
	w.must(err)
	w.ann = storetest.Person(fmt.Sprint("ann", w.newID("")))
	w.ann.Role, w.ann.ChangedAt = principal.User, t0
	w.commit(storetest.Add(&w.ann), audit.UserCreate)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) newID(prefix string) string {
	w.n++
	return fmt.Sprintf("%s9%025d", prefix, w.n) // none of those that storetest makes
}

func (w *world) commit(d authority.Decision, a audit.Action) {
	w.t.Helper()
	_, err := w.tokens.Commit(context.Background(), d, storetest.Event(a, "x"))
	w.must(err)
}

// Vias implements maintenance.Jobs.
func (w *world) Vias(context.Context) ([]token.ID, error) { return w.vias, nil }

// The directory knows ann, and the competition iris.
func (w *world) User(_ context.Context, name string) (string, string, error) {
	if name != "ann" && name != "iris-and-user" {
		return "", "", fault.New(fault.NotFound, "user_not_found", "no")
	}
	return string(w.ann.ID), "ann", nil
}

func (w *world) Competition(_ context.Context, name string) error {
	if name != "iris" && name != "iris-and-user" {
		return fault.New(fault.NotFound, "competition_not_found", "no")
	}
	return nil
}

func (w *world) TokenName(ctx context.Context, id token.ID) (string, error) {
	k, err := w.tokens.Token(ctx, id)
	return k.Name, err
}

// Measure implements maintenance.Gauge: a disk that fills by one part in a hundred each day.
func (w *world) Measure(_ context.Context, now time.Time) (maintenance.Sample, error) {
	used := int64(now.Sub(t0) / (day / 100))
	return maintenance.Sample{
		At: now, Rows: map[string]int64{"tokens": 900_000}, Bytes: map[string]int64{"tokens.db": 1 << 20},
		Disks: map[string]maintenance.Disk{"data": {Total: 10_000, Free: 10_000 - used}},
	}, nil
}

func (w *world) Made(time.Time) map[principal.ID]int { return nil }

// give stores a token of ann's as change leaves it.
func (w *world) give(change func(*token.Token)) token.Token {
	w.t.Helper()
	secret := token.NewSecret(token.Personal)
	p := secret.Presented()
	k := token.Token{
		ID: p.Public.ID(), Version: 1, Kind: p.Kind, Digest: p.Digest, Name: "laptop", Owner: w.ann.ID, Epochs: w.ann.Epochs, Scopes: policy.UserScopes,
		Standing: token.Standard, Family: token.Family(w.newID("fam_")), Generation: 1, IssuedAt: w.clock.Now(), IssuedBy: string(w.ann.ID),
		Lifetime: 90 * day, Renewal: token.Sliding, Idle: 30 * day, Unused: 14 * day, BornAt: w.clock.Now(), MaxLifetime: 365 * day,
	}
	if change != nil {
		change(&k)
	}
	w.known[k.ID] = secret
	w.commit(storetest.Add(nil, k), audit.TokenIssue)
	return k
}

func (w *world) run(dry bool) maintenance.Report {
	w.t.Helper()
	r, err := w.sweep.Sweep(context.Background(), admin, dry)
	w.must(err)
	return r
}

// answer is what the holder of a token is told.
func (w *world) answer(id token.ID) string {
	s := w.known[id]
	sub, _, err := w.table.Authenticate(s.Presented(), addr)
	if err != nil {
		return fault.CodeOf(err)
	}
	return fmt.Sprint(sub.Token, sub.Mode, sub.Scopes, sub.Competitions, sub.Until, sub.By)
}

func (w *world) archived(id token.ID) bool {
	w.t.Helper()
	_, err := w.tokens.ArchivedToken(context.Background(), id)
	_, hot := w.tokens.Token(context.Background(), id)
	if (err == nil) == (hot == nil) {
		w.t.Errorf("%s is in both or in neither: %v %v", id, err, hot)
	}
	return err == nil
}
