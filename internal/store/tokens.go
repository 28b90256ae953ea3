package store

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// TokensConfig says where the tokens database is and with what it is proven.
type TokensConfig struct {
	// Dir is the data directory, which the caller has locked (see Lock).
	Dir string
	// URL is a path, "sqlite:PATH" or "postgres://…"; empty: tokens.db in Dir.
	URL string
	// Ledger is the folder of the ledger, best on another disk; empty: ledger in Dir.
	Ledger string
	Keys   *keys.Ring
	// KeyLost says that the root key is a new one although data exists. Nothing
	// stored can be proven then: tokens become unproven, revocations stay.
	KeyLost bool
	// Clock gives the time; its mark is raised to the one that was stored.
	Clock *clock.Clock
	// Follow, if set, is the first follower (see Tokens.Follow): it is told of
	// everything that is stored while it is opened, so that a separate Load,
	// which reads all of it once more, is not needed. It may be told of an older
	// version before the one that counts.
	Follow func(authn.Change)
	// Memory, if set, answers reads while the database is dead.
	Memory Memory
	// Fresh, if set, is called whenever everything that other nodes committed
	// up to that moment has reached the followers (PostgreSQL only).
	Fresh func()
	Log   *slog.Logger
}

// Memory is the table of everything in memory, which follows this store.
type Memory interface {
	Token(token.ID) (token.Token, bool)
	TokensOf(principal.ID) []token.Token
	Principal(principal.ID) (principal.Principal, bool)
	PrincipalByName(name string) (principal.Principal, bool)
	Consent(id string) (principal.Consent, bool)
	// ConsentsOf are those that somebody gave or was given.
	ConsentsOf(principal.ID) []principal.Consent
}

// Tokens is the tokens database with its ledger. It implements
// authority.Store. It is safe for concurrent use.
type Tokens struct {
	cfg    TokensConfig
	report Report
	db     atomic.Pointer[database] // nil while it is dead
	w      *writer

	queue   chan *request
	stop    chan struct{}
	stopped chan struct{}
	closing sync.Once
	feed    sync.WaitGroup

	// holds are the ids of all legal holds that were ever seen.
	holds sync.Map

	// acked holds what was acknowledged and is in the ledger, but not yet in
	// the database: reads lay it over what they find there.
	acked overlay

	followMu sync.Mutex
	follow   []func(authn.Change)

	wake chan struct{}
}

var _ authority.Store = (*Tokens)(nil)

// OpenTokens opens the tokens database, proves it against its ledger, and
// repairs what can be repaired without guessing. What was done is in Report.
// It never starts empty when anything says that data existed.
func OpenTokens(ctx context.Context, cfg TokensConfig) (*Tokens, error) {
	t, err := openTokens(ctx, cfg, nil)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func openTokens(ctx context.Context, cfg TokensConfig, test *probe) (*Tokens, error) {
	cfg = cfg.withDefaults()
	t := &Tokens{
		cfg: cfg, queue: make(chan *request), stop: make(chan struct{}), stopped: make(chan struct{}),
		wake: make(chan struct{}, 1),
	}
	if cfg.Follow != nil {
		t.follow = append(t.follow, cfg.Follow)
	}
	w, err := newWriter(ctx, t, test)
	if err != nil {
		return nil, err
	}
	t.w = w
	_, _ = t.Holds(ctx) // they were proven this moment; if they cannot be read, they are seen later
	go w.loop()
	if isPostgres(cfg.URL) {
		t.startFeed(w.head.Revision)
	}
	return t, nil
}

func (c TokensConfig) withDefaults() TokensConfig {
	if c.URL == "" {
		c.URL = c.Dir + "/tokens.db"
	}
	if c.Ledger == "" {
		c.Ledger = c.Dir + "/ledger"
	}
	if c.Clock == nil {
		c.Clock = clock.New(clock.Wall, time.Time{})
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Report says what opening found and did.
func (t *Tokens) Report() Report { return t.report }

// Close finishes the batch under way and closes the database and the ledger.
func (t *Tokens) Close() error {
	t.closing.Do(func() { close(t.stop) })
	<-t.stopped
	t.feed.Wait()
	err := t.w.ledger.close()
	if db := t.db.Load(); db != nil {
		if e := db.Close(); err == nil {
			err = e
		}
	}
	return err
}

// Follow registers who is told of every decision, in order, before it is
// acknowledged. Register before the first Commit.
func (t *Tokens) Follow(f func(authn.Change)) {
	t.followMu.Lock()
	defer t.followMu.Unlock()
	t.follow = append(t.follow, f)
}

func (t *Tokens) tell(c authn.Change) {
	t.followMu.Lock()
	defer t.followMu.Unlock()
	for _, f := range t.follow {
		f(c)
	}
}

// Commit implements authority.Store. A decision whose events all tighten is
// acknowledged as soon as it is durable in either the database or the ledger;
// any other only when it is in both.
func (t *Tokens) Commit(ctx context.Context, d authority.Decision, events ...audit.Event) (int64, error) {
	if len(events) == 0 {
		return 0, fault.New(fault.Internal, "event_missing", "A decision without an audit event is not taken.")
	}
	return t.enqueue(&request{ctx: ctx, decision: d, events: events, class: classOf(&d, events), done: make(chan struct{})})
}

// enqueue waits for the writer's answer.
func (t *Tokens) enqueue(r *request) (int64, error) {
	ctx := r.ctx
	select {
	case t.queue <- r:
	case <-ctx.Done():
		return 0, errStore.Caused(ctx.Err())
	case <-t.stopped:
		return 0, errClosed
	}
	// From here on the answer does not depend on ctx: it says what happened.
	select {
	case <-r.done:
	case <-t.stopped:
		select {
		case <-r.done:
		default:
			return 0, errClosed // the writer was stopped in the middle; only tests do that
		}
	}
	return r.revision, r.err
}

// classOf is tighten only if every event tightens and no row is given anything:
// a mixed decision, such as a rotation, gives as well as it takes.
func classOf(d *authority.Decision, events []audit.Event) string {
	for _, e := range events {
		if !e.Action.Tightens() {
			return loosen
		}
	}
	if d.Reply != nil || len(d.Levels)+len(d.Blocks) > 0 {
		return loosen
	}
	for _, c := range d.Principals {
		if c.Old == nil || !onlyTightens(*c.Old, c.New) {
			return loosen
		}
	}
	for _, c := range d.Consents {
		if c.Old == nil || !consentOnlyTightens(*c.Old, c.New) {
			return loosen
		}
	}
	for _, c := range d.Tokens {
		if c.Old == nil || !tokenOnlyTightens(*c.Old, c.New) {
			return loosen
		}
	}
	return tighten
}

func onlyTightens(old, is principal.Principal) bool {
	joined := old.Tighten(is)
	joined.Version, joined.ChangedAt = is.Version, is.ChangedAt
	return bytes.Equal(image(principalToRow(joined)), image(principalToRow(is)))
}

func consentOnlyTightens(old, is principal.Consent) bool {
	joined := old.Tighten(is)
	joined.Version = is.Version
	return bytes.Equal(image(consentToRow(joined)), image(consentToRow(is)))
}

func tokenOnlyTightens(old, is token.Token) bool {
	joined := old.Tighten(is)
	joined.Version = is.Version
	return bytes.Equal(image(tokenToRow(joined)), image(tokenToRow(is)))
}

// healthy gives the database, or the answer that there is none.
func (t *Tokens) healthy() (*database, error) {
	if db := t.db.Load(); db != nil {
		return db, nil
	}
	return nil, errStore
}

// State says whether the database and the ledger work, for health checks: nil
// or the trouble.
func (t *Tokens) State() (database, ledger error) {
	return t.w.state.load()
}
