package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
	"gradegate/internal/keys"
)

// state is the content of the tables under MAC, on its way from the ledger to
// a database.
type state struct {
	rows   map[string]map[string]row // by table and key
	events []eventAt
}

type eventAt struct {
	seq, n int64
	line   json.RawMessage
}

func newState() *state {
	s := &state{rows: map[string]map[string]row{}}
	for _, t := range ledgerTables {
		s.rows[t.name] = map[string]row{}
	}
	return s
}

// put takes a row over. What is in the archive is no longer among the tokens.
func (s *state) put(r row) {
	s.rows[r.spec().name][key(r)] = r
	if _, ok := r.(*archiveRow); ok {
		delete(s.rows[tokensTable.name], key(r))
	}
}

func (s *state) join(image row) {
	now, ok := s.rows[image.spec().name][key(image)]
	if !ok {
		return
	}
	if joined := join(now, image); joined != nil {
		s.put(joined)
	}
}

// sorted gives a table's rows by key, so that a rebuild is the same each time.
func (s *state) sorted(t *table) []row {
	rows := s.rows[t.name]
	ids := make([]string, 0, len(rows))
	for id := range rows {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	out := make([]row, len(ids))
	for i, id := range ids {
		out[i] = rows[id]
	}
	return out
}

func (s *state) digest(k *keys.Ring) (total sum) {
	for _, t := range ledgerTables {
		if !t.counted {
			continue
		}
		for _, r := range s.rows[t.name] {
			total = total.plus(term(k, t, image(r)))
		}
	}
	return total
}

// replay applies the ledger's batches to the state: those behind seq, up to the
// end. Voided ones are left out, and so are deltas: what they took away is in
// the batch that followed, or still to be applied (see book.after). pending is
// the lowest seq whose events the trail may lack. With a nil ring nothing is
// proven.
func (s *state) replay(dir string, k *keys.Ring, b *book, behind, pending int64) error {
	stands := b.standing()
	_, err := journal.Batches(dir, b.start, func(first uint64, records [][]byte, _ journal.Position) error {
		for i, line := range records {
			if first+uint64(i) < b.start {
				continue
			}
			r, err := decodeRecord(line, k)
			if err == nil {
				err = s.replayOne(r, stands, behind, pending)
			}
			if err != nil {
				return fmt.Errorf("record %d of the ledger: %w", first+uint64(i), err)
			}
		}
		return nil
	})
	return err
}

func (s *state) replayOne(r *record, stands map[string]bool, behind, pending int64) error {
	switch {
	case r.Kind == recordBase && behind < 0: // else we start from a database that is past it
		return s.replayBase(r)
	case r.Kind != recordBatch || r.Seq <= behind || !stands[r.Batch]:
		return nil
	}
	for i, o := range r.Ops {
		for _, ri := range o.Rows {
			made, err := ri.decode()
			if err != nil {
				return err
			}
			s.put(made)
		}
		if r.Seq >= pending {
			s.addEvents(o, r.Seq, int64(i))
		}
	}
	return nil
}

func (s *state) replayBase(r *record) error {
	if r.Part == 1 {
		*s = *newState()
	}
	for _, ri := range r.Rows {
		made, err := ri.decode()
		if err != nil {
			return err
		}
		s.put(made)
	}
	return nil
}

func (s *state) addEvents(o op, seq, n int64) {
	for i, line := range o.Events {
		s.events = append(s.events, eventAt{seq: seq, n: n<<16 + int64(i), line: line})
	}
}

// readState reads the tables; prove checks the seals.
func readState(ctx context.Context, q querier, prove *keys.Ring) (*state, error) {
	s := newState()
	for _, t := range ledgerTables {
		err := each(ctx, q, t.selectAll, t, func(r stored) error {
			if prove != nil {
				if err := r.verify(prove); err != nil {
					return err
				}
			}
			s.put(r.row)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// write replaces what the tables hold by the state, in one transaction, and
// tells the change feed that everything may have changed.
func (s *state) write(ctx context.Context, db *database, k *keys.Ring, h *head, node string) error {
	return db.inTx(ctx, func(tx *sql.Tx) error {
		for _, t := range slices.Backward(ledgerTables) {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+t.name); err != nil {
				return db.trouble(err)
			}
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM head"); err != nil {
			return db.trouble(err)
		}
		for _, t := range ledgerTables {
			if err := insertAll(ctx, tx, t, k, s.sorted(t)); err != nil {
				return db.trouble(err)
			}
		}
		for _, e := range s.events {
			ev, err := audit.Decode(e.line)
			if err == nil {
				err = putEvent(ctx, tx, ev.ID, e.seq, e.n, e.line)
			}
			if err != nil {
				return db.trouble(err)
			}
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM changes WHERE revision >= $1", h.Revision)
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT INTO changes (revision, seq, node, ids) VALUES ($1, $2, $3, $4)", h.Revision, h.Seq, node, everything)
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT INTO batches (id, seq, at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING", h.Batch, h.Seq, h.Mark)
		}
		if err == nil {
			err = h.write(ctx, tx, k, insertHead)
		}
		return db.trouble(err)
	})
}

// everything, in place of ids, tells a follower to read all of it again.
const everything = "*"

func insertAll(ctx context.Context, tx *sql.Tx, t *table, k *keys.Ring, rows []row) error {
	put, err := tx.PrepareContext(ctx, t.insert)
	if err != nil {
		return err
	}
	defer put.Close()
	for _, r := range rows {
		made := sealed(k, r)
		if _, err := put.ExecContext(ctx, made.args()...); err != nil {
			return fmt.Errorf("%s %s: %w", t.name, key(r), err)
		}
	}
	return nil
}
