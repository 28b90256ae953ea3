package maintenance

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"sync"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/clock"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// Table is what the sweeper needs of the table in memory. It is safe for
// concurrent use, and calls do without holding a lock.
type Table interface {
	// Ended looks at most tokens, or a few more, from a place on, and hands over
	// those that have ended for good. next is where to go on; -1: nowhere.
	Ended(from, most int, now time.Time, do func(*token.Token, token.Over)) (next, looked int)
	// Over tells whether a token has ended for good, given what the store knows
	// of its uses.
	Over(k *token.Token, use token.Use, now time.Time) (token.Over, bool)
	// Ancestors are a token and what it was made from.
	Ancestors(id token.ID) []token.ID
	// Forget drops tokens that the store has no more.
	Forget(ids []token.ID)
}

// Jobs knows which tokens jobs hang on.
type Jobs interface {
	// Vias are the tokens with which those jobs were submitted that live, or
	// whose handle does.
	Vias(ctx context.Context) ([]token.ID, error)
}

// Config is what maintenance works with.
type Config struct {
	Store     Store
	Table     Table
	Jobs      Jobs
	Directory Directory
	Now       clock.Func
	// Doubt says why nothing irreversible may be done at the moment because time
	// has passed; empty: it may.
	Doubt func() string
	NewID func(prefix string) string
	// Pause is between two batches, so that others come in.
	Pause time.Duration
	// Keep is how long the archive's rows are whole.
	Keep time.Duration
	// Dir is the folder of the segments, and Key signs them.
	Dir string
	Key ed25519.PrivateKey
	Log *slog.Logger

	// Gauge measures, and Samples keeps what this node measured.
	Gauge   Gauge
	Samples Samples
	Node    string
}

// Maintenance moves what is over out of the way. It is safe for concurrent use;
// one sweep runs at a time, on one node.
type Maintenance struct {
	Config
	sign signer

	running sync.Mutex
	mu      sync.Mutex
	last    Report // of the last sweep that was no dry run
	moved   int64  // since the start
	growth  Growth // as it was measured last
}

// New makes it.
func New(c Config) (*Maintenance, error) {
	sign, err := newSigner(c.Key)
	return &Maintenance{Config: c, sign: sign}, err
}

// Last is the report of the last sweep of this process, and how many tokens it
// has moved since its start.
func (m *Maintenance) Last() (Report, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last, m.moved
}

// firstSweep is how long after the start the first sweep begins, and sweepEvery
// how long after the one before each of the next.
const (
	firstSweep = 10 * time.Minute
	sweepEvery = 24 * time.Hour
)

// Run sweeps by itself until ctx ends.
func (m *Maintenance) Run(ctx context.Context) {
	wait := firstSweep
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = sweepEvery
		r, err := m.sweep(ctx, system(), false, 0)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.Log.Warn("the sweep was not finished; it is tried again in an hour", "error", err)
			wait = time.Hour
		case r.Skipped != "":
			m.Log.Warn("nothing was swept", "why", r.Skipped)
			wait = time.Hour
		case r.Moved+r.Sealed > 0:
			m.Log.Info("swept", "archived", r.Moved, "reduced", r.Sealed)
		}
	}
}

// system is the server acting by itself.
func system() audit.Event { return audit.Event{Actor: "system"} }

// event begins the record of what is done.
func (m *Maintenance) event(by audit.Event, action audit.Action) audit.Event {
	e := by
	e.At = m.Now()
	e.ID, e.Action, e.Outcome = m.NewID("evt_"), action, audit.Done
	return e
}

// byline is who acts, as it stands in every event.
func byline(s *policy.Subject) audit.Event {
	e := audit.Event{Actor: s.Actor(), Token: string(s.Token), Request: s.Request, Agent: s.Agent}
	if s.Kind != 0 {
		e.Kind = s.Kind.String()
	}
	if s.Addr.IsValid() {
		e.Addr = s.Addr.String()
	}
	return e
}
