package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/keys"
)

// request is one decision on its way through the writer.
type request struct {
	ctx      context.Context // only to leave the queue
	decision authority.Decision
	do       func(*step) error // in its place, where it is not the authority's
	events   []audit.Event
	class    string

	done     chan struct{} // closed when the answer below is final
	revision int64
	err      error
}

func (r *request) answer(revision int64, err error) {
	r.revision, r.err = revision, err
	close(r.done)
}

// batchMax and batchBytes bound a batch: nobody should wait for a thousand
// others, and its ledger record must stay far below the largest one possible.
// A decision that alone is larger than batchBytes is refused.
const (
	batchMax   = 256
	batchBytes = 2 << 20
)

// The places at which tests fail a batch, before or after the effect.
type point string

const (
	beforeLedger point = "before the ledger write"
	afterLedger  point = "after the ledger write"
	beforeCommit point = "before COMMIT"
	afterCommit  point = "after COMMIT"
)

// probe is what tests of this package put into a writer; nil outside of them.
// With one, trouble is looked at again at the next occasion, without back-off.
type probe struct {
	at   func(point) error
	dead atomic.Bool // stopping is the end of a killed process: nothing is finished
}

// errKilled is what a test's hook returns to stop the writer where it stands,
// as a crash would.
var errKilled = errors.New("killed")

// writer is the one goroutine that changes the tokens database. Its fields are
// its own.
type writer struct {
	t      *Tokens
	keys   *keys.Ring
	test   *probe
	node   string // id of this process
	ledger *ledger
	head   head // after the last batch
	last   int64
	state  health
	killed bool

	// What the next batch must carry: tightenings that are in the ledger and
	// not in the database, batches that were written and not committed, and
	// events of our own.
	pending []row
	events  []audit.Event
	void    []int64
	// doubt are batches whose COMMIT was not answered and cannot be asked about
	// while the database is away.
	doubt []*batch

	dead    error // why the database is not used; nil: it is
	retryAt time.Time
	backOff time.Duration
	batches int
}

const (
	firstBackOff = 50 * time.Millisecond
	lastBackOff  = 5 * time.Second
)

func (w *writer) loop() {
	defer close(w.t.stopped)
	for {
		w.state.store(w.dead, w.ledger.trouble())
		timer := w.retryTimer()
		select {
		case r := <-w.t.queue:
			w.run(w.collect(r))
		case <-timer:
			w.run(nil)
		case <-w.t.stop:
			w.flush()
			return
		}
		if w.killed {
			return
		}
	}
}

// flush leaves nothing for the next start to settle, if that is possible.
func (w *writer) flush() {
	if w.test != nil && w.test.dead.Load() {
		return
	}
	if w.dead != nil && w.reopen() == nil {
		w.dead = nil
	}
	if w.dead == nil && (w.owes() || !w.ledger.up()) {
		w.ledger.retry = time.Time{}
		w.run(nil)
	}
	if len(w.void) > 0 {
		w.writeVoid()
	}
}

// retryTimer fires when something waits for the database or the ledger to come back.
func (w *writer) retryTimer() <-chan time.Time {
	if w.test != nil || w.dead == nil && !w.owes() && w.ledger.up() {
		return nil
	}
	at := w.retryAt
	if w.dead == nil && !w.ledger.up() {
		at = w.ledger.retry
	}
	return time.After(max(time.Millisecond, time.Until(at)))
}

// collect takes what waits behind the first request: it shares one fsync.
func (w *writer) collect(first *request) []*request {
	all := []*request{first}
	for len(all) < batchMax {
		select {
		case r := <-w.t.queue:
			all = append(all, r)
		default:
			return all
		}
	}
	return all
}

// run takes one batch through database and ledger, or decides what still can
// be decided without them.
func (w *writer) run(reqs []*request) {
	waiting := reqs[:0]
	for _, r := range reqs {
		if err := r.ctx.Err(); err != nil {
			r.answer(0, errStore.Caused(err)) // its caller is gone; nothing was begun
			continue
		}
		waiting = append(waiting, r)
	}
	reqs = waiting
	if w.dead != nil && !w.revive() {
		w.degraded(reqs)
		return
	}
	if !w.ledger.up() && !w.restoreLedger() {
		reqs = refuseLoosening(reqs, errLedger.Caused(w.ledger.trouble()))
	}
	if len(reqs) > 0 || w.owes() {
		w.commit(reqs)
	}
}

// owes reports whether a batch is due without anybody asking.
func (w *writer) owes() bool { return len(w.pending) > 0 || len(w.events) > 0 }

// refuseLoosening answers what may not go on and returns the rest.
func refuseLoosening(reqs []*request, err error) (rest []*request) {
	for _, r := range reqs {
		if r.class == tighten {
			rest = append(rest, r)
			continue
		}
		r.answer(0, err)
	}
	return rest
}

// commit is one batch: transaction, ledger, COMMIT, followers, answers.
func (w *writer) commit(reqs []*request) {
	b, refused, rest, err := w.prepare(reqs)
	if err != nil {
		w.lose(err)
		w.degraded(reqs)
		return
	}
	for r, err := range refused {
		r.answer(0, err)
	}
	w.complete(b)
	if len(rest) > 0 && !w.killed {
		w.run(rest)
	}
}

// complete takes a prepared batch through the ledger and COMMIT.
func (w *writer) complete(b *batch) {
	if len(b.ops) == 0 {
		_ = b.tx.Rollback()
		return
	}
	ledgered := w.ledger.up()
	if ledgered {
		if err := w.writeLedger(b); err != nil {
			_ = b.tx.Rollback()
			// The record may be on the disk all the same: it is void.
			w.last, w.void = b.head.Seq, append(w.void, b.head.Seq)
			if w.killed {
				return
			}
			w.commitWithout(b, errLedger.Caused(err))
			return
		}
	} else {
		w.ledger.stale = true
	}
	w.last = b.head.Seq
	if err := w.finish(b); err != nil {
		w.failed(b, err, ledgered)
		return
	}
	w.committed(b, ledgered)
}

// commitWithout goes on after the ledger failed under a batch: nothing is
// granted, what tightens is committed to the database alone.
func (w *writer) commitWithout(b *batch, cause error) {
	reqs := refuseLoosening(b.requests(), cause)
	if len(reqs) > 0 || w.owes() {
		w.commit(reqs)
	}
}

func (b *batch) requests() (out []*request) {
	for _, a := range b.ops {
		if a.req != nil {
			out = append(out, a.req)
		}
	}
	return out
}

// prepare applies the decisions in a transaction whose head row is locked.
// refused holds those that were turned down, each by its own fault, and rest
// those for which the batch has no room. An error is trouble with the
// database: the transaction is rolled back then.
func (w *writer) prepare(reqs []*request) (b *batch, refused map[*request]error, rest []*request, err error) {
	db, err := w.t.healthy()
	if err != nil {
		return nil, nil, nil, err
	}
	if db.file != nil {
		if err := db.file.intact(); err != nil {
			return nil, nil, nil, unavailable(err)
		}
	}
	b, err = w.begin(db)
	if err != nil {
		return nil, nil, nil, err
	}
	tx := b.tx
	defer func() {
		if err != nil {
			_ = tx.Rollback()
		}
	}()
	if w.owes() {
		if err = b.guarded(nil, tighten, w.events, func(s *step) error { return s.tightenAll(w.pending) }); err != nil {
			return nil, nil, nil, err
		}
	}
	refused = map[*request]error{}
	for i, r := range reqs {
		if b.bytes > batchBytes {
			return b, refused, reqs[i:], nil
		}
		e := b.decide(r)
		if isTrouble(e) {
			return nil, nil, nil, e
		}
		if e != nil {
			refused[r] = e
		}
	}
	return b, refused, nil, nil
}

func (s *step) tightenAll(images []row) error {
	for _, image := range images {
		if err := s.tighten(image); err != nil {
			return err
		}
	}
	return nil
}

// begin starts a batch on the head as it is in the database. On SQLite nobody
// else may have moved it; on PostgreSQL other nodes do.
func (w *writer) begin(db *database) (*batch, error) {
	tx, err := db.write.BeginTx(context.Background(), nil)
	if err != nil {
		return nil, db.trouble(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	h, err := db.lockHead(ctx, tx, w.keys)
	if err == nil && db.file != nil && !h.same(&w.head) {
		err = unavailable(fmt.Errorf("the head of the database moved from %s to %s without us", seqText(w.head.Seq), seqText(h.Seq)))
	}
	if err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	b := &batch{db: db, keys: w.keys, tx: tx, id: newBatchID(), node: w.node, now: w.t.cfg.Clock.Now(), head: h, from: h.Digest}
	b.head.Seq = max(h.Seq, w.last) + 1
	b.head.Revision = max(h.Revision, w.head.Revision)
	b.head.Batch = b.id
	b.head.Mark = max(h.Mark, b.now.UnixMicro())
	b.head.Base, b.head.At = w.head.Base, w.head.At
	return b, nil
}

func newBatchID() string {
	var id [12]byte
	_, _ = rand.Read(id[:]) // never fails: the runtime stops the process instead
	return hex.EncodeToString(id[:])
}

// writeLedger makes the batch's record durable, before its COMMIT.
func (w *writer) writeLedger(b *batch) error {
	if err := w.at(beforeLedger); err != nil {
		w.ledger.fail(err)
		return err
	}
	pos, err := w.ledger.write(b.record(w.void))
	if err != nil {
		return err
	}
	b.head.Chain, b.head.At = pos.Chain, int64(pos.Next)-1
	if err := w.at(afterLedger); err != nil {
		w.ledger.fail(err)
		return err
	}
	return nil
}

func (b *batch) record(void []int64) *record {
	r := &record{
		Kind: recordBatch, Seq: b.head.Seq, Batch: b.id, Boot: b.node, At: clock.Micros(b.now),
		Revision: b.head.Revision, Before: &b.from, After: &b.head.Digest, Void: void, Pending: b.pending(),
	}
	for _, a := range b.ops {
		r.Ops = append(r.Ops, a.op)
	}
	return r
}

// pending is the lowest seq whose events are still on their way to the trail.
// A rebuild takes events from there on; zero means all of them.
func (b *batch) pending() (seq int64) {
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	var n sql.NullInt64
	if err := b.tx.QueryRowContext(ctx, "SELECT MIN(seq) FROM outbox").Scan(&n); err != nil || !n.Valid {
		return 0
	}
	return n.Int64
}

// finish moves the head and commits. The COMMIT is bound to no context.
func (w *writer) finish(b *batch) error {
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	_, err := b.tx.ExecContext(ctx, "INSERT INTO batches (id, seq, at) VALUES ($1, $2, $3)", b.id, b.head.Seq, clock.Micros(b.now))
	if err == nil {
		err = b.head.write(ctx, b.tx, w.keys, updateHead)
	}
	if err == nil {
		err = b.db.notify(ctx, b.tx, feedChannel)
	}
	if err == nil {
		err = w.at(beforeCommit)
	}
	if err != nil {
		_ = b.tx.Rollback()
		return err
	}
	if err := b.tx.Commit(); err != nil {
		return err
	}
	return w.at(afterCommit)
}

// writeVoid says at once which batches were not committed, so that no rebuild
// takes them for real. Where it cannot, the next record says it.
func (w *writer) writeVoid() bool {
	if w.ledger.file == nil {
		return false
	}
	_, err := w.ledger.write(&record{Kind: recordDelta, Boot: w.node, At: clock.Micros(w.t.cfg.Clock.Now()), Void: w.void})
	return err == nil
}

// at is where a test may fail a batch.
func (w *writer) at(p point) error {
	crashPoint(p)
	if w.test == nil {
		return nil
	}
	err := w.test.at(p)
	w.killed = w.killed || errors.Is(err, errKilled)
	return err
}

// committed tells followers in order, then answers. Nobody is answered before
// every follower in this process has applied the whole batch.
func (w *writer) committed(b *batch, ledgered bool) {
	w.head = b.head
	w.pending, w.events = nil, nil
	if ledgered {
		w.void = nil
		w.ledger.ack(b.head.Seq)
	}
	for i := range b.ops {
		w.t.tell(b.ops[i].change())
	}
	w.t.acked.clear()
	for _, a := range b.ops {
		if a.req != nil {
			a.req.answer(a.Revision, nil)
		}
	}
	poke(w.t.wake)
	if w.batches++; w.batches%sweepEvery == 0 {
		w.sweep(b.db, b.now)
	}
}

func seqText(seq int64) string { return fmt.Sprintf("batch %d", seq) }
