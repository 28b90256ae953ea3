package store

import (
	"context"
	"sync"
	"time"

	"gradegate/internal/clock"
)

// health is what others may see of the writer.
type health struct {
	mu               sync.Mutex
	database, ledger error
}

func (h *health) load() (database, ledger error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.database, h.ledger
}

func (h *health) store(database, ledger error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.database, h.ledger = database, ledger
}

// sweepEvery is how many batches pass between looking for what has lapsed;
// changesKept and batchesKept are how far back the feed and a recovering node
// may ask.
const (
	sweepEvery  = 256
	changesKept = 100_000
	batchesKept = 100_000
)

// sweep forgets what has lapsed. It is no decision: nobody has a right less.
func (w *writer) sweep(db *database, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	for _, s := range []struct {
		query string
		arg   int64
	}{
		{"DELETE FROM replies WHERE until <= $1", clock.Micros(now)},
		{"DELETE FROM changes WHERE revision <= $1", w.head.Revision - changesKept},
		{"DELETE FROM batches WHERE seq <= $1", w.head.Seq - batchesKept},
	} {
		if _, err := db.write.ExecContext(ctx, s.query, s.arg); err != nil {
			w.t.cfg.Log.Warn("sweeping the tokens database failed; the next time will do", "error", err)
			return
		}
	}
}
