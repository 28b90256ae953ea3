package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"gradegate/internal/authn"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
)

// baseEvery is how many records the ledger may hold behind its base before the
// next start writes a new one, unless a base would be larger than that: it
// bounds what a rebuild has to read.
const baseEvery = 10_000

// newWriter opens ledger and database, and settles what the last process left.
func newWriter(ctx context.Context, t *Tokens, test *probe) (*writer, error) {
	var report Report
	l, err := openLedger(t.cfg.Ledger, t.cfg.Keys, &report)
	if err != nil {
		return nil, err
	}
	l.eager = test != nil
	found, err := recoverTokens(ctx, t.cfg, l)
	if err != nil {
		_ = l.close()
		return nil, err
	}
	found.report.Notes = append(report.Notes, found.report.Notes...)
	w := &writer{t: t, keys: t.cfg.Keys, test: test, node: newBatchID(), ledger: l}
	w.adopt(found)
	t.report = found.report
	w.settleStart()
	if w.killed {
		_ = l.close()
		_ = found.db.Close()
		return nil, errKilled
	}
	return w, nil
}

// settleStart brings what recovery found to database and ledger before anybody
// is served. What fails here is tried again by the loop; it is durable already.
func (w *writer) settleStart() {
	if !w.ledger.up() {
		w.restoreLedger()
	}
	if w.owes() {
		w.commit(nil)
	}
	if len(w.void) > 0 {
		w.writeVoid()
	}
	if w.ledger.up() && !isPostgres(w.t.cfg.URL) && w.head.At-w.head.Base > int64(max(baseEvery, w.t.report.Tokens)) {
		_ = w.writeBase() // if it fails, what is there still does
	}
}

// adopt takes over what recovery found.
func (w *writer) adopt(found *recovered) {
	w.t.db.Store(found.db)
	mark := found.head.Mark
	ctx, cancel := context.WithTimeout(context.Background(), statementTime)
	defer cancel()
	if n, err := readMeta(ctx, found.db.read, metaMark); err == nil {
		mark = max(mark, n)
	}
	w.t.cfg.Clock.Resume(clock.Micro(mark))
	revision := w.head.Revision
	w.head = found.head
	w.head.Revision = max(w.head.Revision, revision)
	w.last = max(w.last, found.last, found.head.Seq)
	w.pending = append(found.pending, w.pending...)
	w.events = append(found.events, w.events...)
	w.void = append(w.void, found.void...)
	w.doubt = nil
	w.ledger.stale = w.ledger.stale || found.stale
}

// trouble is why the ledger cannot be written; nil if it can.
func (l *ledger) trouble() error {
	switch {
	case l.cause != nil:
		return l.cause
	case l.stale:
		return errors.New("the ledger begins anew and has no base yet")
	}
	return nil
}

// restoreLedger tries to bring the ledger back. If the database went on without
// it, it continues with the whole state.
func (w *writer) restoreLedger() bool {
	l := w.ledger
	if l.cause != nil && time.Now().Before(l.retry) {
		return false
	}
	if l.file == nil {
		if err := l.open(nil); err != nil {
			l.fail(err)
			return false
		}
	}
	if l.stale && w.owes() {
		w.commit(nil) // to the database alone: the base must hold it
		if w.owes() {
			return false
		}
	}
	if l.stale {
		if err := w.writeBase(); err != nil {
			l.fail(err)
			return false
		}
	}
	if l.cause != nil {
		if len(w.void) > 0 && !w.writeVoid() {
			return false
		}
		w.t.cfg.Log.Warn("the ledger is written again", "dir", l.dir)
	}
	l.cause, l.stale = nil, false
	return true
}

// writeBase writes the whole state to the ledger. The head stays locked
// meanwhile, so that the base is the state at exactly one batch.
func (w *writer) writeBase() error {
	db, err := w.t.healthy()
	if err != nil {
		return err
	}
	start := w.ledger.file.Position().Next
	err = db.inTx(context.Background(), func(tx *sql.Tx) error {
		ctx := context.Background()
		h, err := db.lockHead(ctx, tx, w.keys)
		if err != nil {
			return err
		}
		p := baseParts{w: w, head: h}
		for _, t := range ledgerTables {
			err := each(ctx, tx, t.selectAll, t, func(s stored) error {
				if err := s.verify(w.keys); err != nil {
					return err
				}
				return p.add(t, s.image)
			})
			if err != nil {
				return err
			}
		}
		return p.flush(true)
	})
	if err != nil {
		return err
	}
	w.head.Base, w.void = int64(start), nil
	return nil
}

// baseParts writes a base in parts, each far below the largest record.
type baseParts struct {
	w    *writer
	head head
	part int
	rows []rowImage
}

func (p *baseParts) add(t *table, image []byte) error {
	p.rows = append(p.rows, rowImage{Table: t.name, Row: json.RawMessage(image)})
	if len(p.rows) < ledgerPartRows {
		return nil
	}
	return p.flush(false)
}

func (p *baseParts) flush(last bool) error {
	p.part++
	r := &record{
		Kind: recordBase, Seq: p.head.Seq, Batch: p.head.Batch, Boot: p.w.node, At: clock.Micros(p.w.t.cfg.Clock.Now()),
		Revision: p.head.Revision, After: &p.head.Digest, Part: p.part, Last: last, Rows: p.rows, Pending: p.head.Seq + 1,
	}
	if err := p.w.at(beforeLedger); err != nil {
		return err
	}
	_, err := p.w.ledger.write(r)
	p.rows = p.rows[:0]
	return err
}

// Load streams all policies, principals and then tokens, each proven by its MAC and
// together by the digest of the head: the content of one moment.
func (t *Tokens) Load(ctx context.Context, do func(authn.Change) error) error {
	db, err := t.healthy()
	if err != nil {
		return err
	}
	return t.load(ctx, db, do)
}

func (t *Tokens) load(ctx context.Context, db *database, do func(authn.Change) error) error {
	tx, err := db.read.BeginTx(ctx, db.snapshot)
	if err != nil {
		return db.trouble(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing is written
	h, s, err := readHead(ctx, tx, "")
	if err != nil {
		return db.trouble(err)
	}
	if !h.proven(s, t.cfg.Keys) {
		return errForgedRow(errForged)
	}
	var digest sum
	for _, of := range followed {
		part, _, err := proveTable(ctx, tx, of, t.cfg.Keys, func(rows []row) error { return do(changeOf(rows, h.Revision)) })
		if errors.Is(err, errForged) {
			return errForgedRow(err)
		}
		if err != nil {
			return db.trouble(err)
		}
		digest = digest.plus(part)
	}
	if digest != h.Digest {
		return errForgedRow(errors.New("the digest over the tables is not the one in the head"))
	}
	return nil
}

// errForgedRow is the answer while a forged row is in the database: recovery
// rebuilds it at the next start.
func errForgedRow(err error) error {
	return fault.Wrap(fault.Unavailable, "store_forged", "The tokens database was changed by somebody else.", err).
		WithFix("Restart gradegate: it rebuilds the database from the ledger.")
}
