package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
)

// failed settles a batch whose COMMIT did not succeed. The database is asked
// once more whether it has the batch: a COMMIT may fail after its effect.
func (w *writer) failed(b *batch, cause error, ledgered bool) {
	if w.killed {
		return
	}
	committed, known := w.settle(b)
	if known && committed {
		w.committed(b, ledgered)
		return
	}
	w.t.cfg.Log.Error("a batch was not committed", "seq", b.head.Seq, "known", known, "error", cause)
	if !known {
		w.lose(cause)
	}
	switch {
	case !ledgered:
	case known:
		w.void = append(w.void, b.head.Seq)
		w.writeVoid()
	default:
		w.doubt = append(w.doubt, b)
	}
	w.wait(firstBackOff)
	for i := range b.ops {
		w.stand(&b.ops[i], ledgered, cause)
	}
}

// stand answers one decision of a batch that was not committed. A tightening
// stands: it is in the ledger, and the next batch brings it to the database.
// Everything else is void.
func (w *writer) stand(a *applied, ledgered bool, cause error) {
	if a.req == nil {
		return // recovery's own; it is still pending
	}
	if a.Class != tighten {
		a.req.answer(0, unavailable(cause))
		return
	}
	w.pending = append(w.pending, a.rows...)
	w.events = append(w.events, a.req.events...)
	w.head.Revision = max(w.head.Revision, a.Revision)
	w.t.acked.add(a.rows)
	w.t.tell(a.change())
	if !ledgered {
		a.req.answer(0, errNotDurable.Caused(cause))
		return
	}
	a.req.answer(a.Revision, nil)
}

// settle finds out whether a batch is in the database. The head row is locked
// for the question, so that a transaction whose connection broke has ended.
func (w *writer) settle(b *batch) (committed, known bool) {
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	if b.db.file != nil && b.db.file.intact() != nil {
		return false, false
	}
	tx, err := b.db.write.BeginTx(ctx, nil)
	if err != nil {
		return false, false
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	if _, err := b.db.lockHead(ctx, tx, w.keys); err != nil {
		return false, false
	}
	committed, err = hasBatch(ctx, tx, b.id)
	return committed, err == nil
}

func hasBatch(ctx context.Context, q querier, id string) (bool, error) {
	var seq int64
	err := q.QueryRowContext(ctx, "SELECT seq FROM batches WHERE id = $1", id).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// lose stops using the database until it has been looked at again.
func (w *writer) lose(cause error) {
	if w.dead != nil || w.killed {
		return
	}
	w.dead, w.backOff = cause, firstBackOff
	w.wait(w.backOff)
	w.t.cfg.Log.Error("the tokens database is not used until it answers again; verification and revocation go on", "error", cause)
	w.state.store(w.dead, w.ledger.trouble())
}

// wait sets when the database is tried again.
func (w *writer) wait(d time.Duration) {
	if w.test == nil {
		w.retryAt = time.Now().Add(d)
	}
}

// revive tries to use the database again, not more often than the back-off
// allows: as it is, if it is just what it was, else through recovery.
func (w *writer) revive() bool {
	if time.Now().Before(w.retryAt) {
		return false
	}
	if err := w.reopen(); err != nil {
		w.backOff = min(2*w.backOff, lastBackOff)
		w.wait(w.backOff)
		return false
	}
	w.dead = nil
	w.t.cfg.Log.Warn("the tokens database is used again", "seq", w.head.Seq)
	return true
}

// reopen: the quick way is for trouble that went away by itself, such as a full
// disk or a restarted server. Anything else is recovery as at start.
func (w *writer) reopen() error {
	if db := w.t.db.Load(); db != nil && w.unharmed(db) == nil {
		return nil
	}
	if old := w.t.db.Swap(nil); old != nil {
		_ = old.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	found, err := recoverTokens(ctx, w.t.cfg, w.ledger)
	if err != nil {
		return err
	}
	w.adopt(found)
	for _, note := range found.report.Notes {
		w.t.cfg.Log.Warn(note)
	}
	// What followers know is never newer than what was acknowledged, but the
	// database may hold what a lost COMMIT brought: tell them all of it.
	return w.t.load(ctx, found.db, func(c authn.Change) error { w.t.tell(c); return nil })
}

// unharmed reports whether the database is still at the head we know, and
// settles the batches that were in doubt.
func (w *writer) unharmed(db *database) error {
	if db.file != nil {
		if err := db.file.intact(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	h, err := db.lockHead(ctx, tx, w.keys)
	if err != nil {
		return err
	}
	for _, b := range w.doubt {
		committed, err := hasBatch(ctx, tx, b.id)
		if err != nil {
			return err
		}
		if !committed {
			w.void = append(w.void, b.head.Seq)
			continue
		}
		for i := range b.ops {
			w.t.tell(b.ops[i].change())
		}
		if db.file != nil {
			w.head = b.head
		}
	}
	w.doubt = nil
	if db.file != nil && !h.same(&w.head) {
		return errors.New("the database is not at the head that we know")
	}
	// Decisions made meanwhile have used up revisions.
	w.head.Revision = max(h.Revision, w.head.Revision)
	return nil
}

// degraded decides without the database: what tightens goes to the ledger as a
// delta and takes effect at once; everything else has to wait.
func (w *writer) degraded(reqs []*request) {
	if w.killed {
		return
	}
	reqs = refuseLoosening(reqs, unavailable(w.dead))
	var deltas []applied
	for _, r := range reqs {
		a, err := w.delta(r)
		if err != nil {
			r.answer(0, err)
			continue
		}
		deltas = append(deltas, a)
	}
	if len(deltas) == 0 {
		return
	}
	err := w.writeDeltas(deltas)
	for i := range deltas {
		w.stand(&deltas[i], err == nil, errors.Join(w.dead, err))
	}
}

// delta is a tightening as it stands in the ledger. Its versions are compared
// with what is known outside the database; an unknown row is taken as it is,
// because applying it later is a join.
func (w *writer) delta(r *request) (applied, error) {
	a := applied{req: r}
	a.Class, a.Revision = tighten, w.head.Revision+1
	add := func(made row, old int64) error {
		if v, known := w.t.knownVersion(made); known && v != old {
			return authority.ErrMoved
		}
		a.rows = append(a.rows, made)
		a.Rows = append(a.Rows, rowImage{Table: made.spec().name, Row: image(made)})
		return nil
	}
	for _, c := range r.decision.Principals {
		if err := add(principalToRow(c.New), c.Old.Version); err != nil {
			return a, err
		}
	}
	for _, c := range r.decision.Consents {
		if err := add(consentToRow(c.New), c.Old.Version); err != nil {
			return a, err
		}
	}
	for _, c := range r.decision.Tokens {
		if err := add(tokenToRow(c.New), c.Old.Version); err != nil {
			return a, err
		}
	}
	for _, e := range r.events {
		a.Actions = append(a.Actions, e.Action)
		a.Events = append(a.Events, e.Encode())
	}
	w.head.Revision = a.Revision
	return a, nil
}

func (w *writer) writeDeltas(deltas []applied) error {
	if w.ledger.file == nil {
		return w.ledger.trouble()
	}
	now := w.t.cfg.Clock.Now()
	r := &record{Kind: recordDelta, Boot: w.node, At: clock.Micros(now), Void: w.void}
	for _, a := range deltas {
		r.Ops = append(r.Ops, a.op)
	}
	if err := w.at(beforeLedger); err != nil {
		return err
	}
	if _, err := w.ledger.write(r); err != nil {
		return err
	}
	return w.at(afterLedger)
}
