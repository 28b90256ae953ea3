package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/token"
)

// batch is one transaction in the making.
type batch struct {
	db   *database
	keys *keys.Ring
	tx   *sql.Tx
	id   string
	node string
	now  time.Time
	head head // as it will be
	from sum  // the digest before
	ops  []applied
	// bytes is about how large the ledger's record is.
	bytes int
}

// applied is one decision that the batch holds.
type applied struct {
	op
	req  *request // nil for what recovery applies
	rows []row
}

// change is what followers are told.
func (a *applied) change() authn.Change {
	return changeOf(a.rows, a.Revision)
}

func changeOf(rows []row, revision int64) authn.Change {
	c := authn.Change{Revision: revision}
	for _, r := range rows {
		addTo(&c, r)
	}
	return c
}

func addTo(c *authn.Change, r row) {
	switch r := r.(type) {
	case *principalRow:
		c.Principals = append(c.Principals, r.principal())
	case *tokenRow:
		c.Tokens = append(c.Tokens, r.token())
	case *consentRow:
		c.Consents = append(c.Consents, r.consent())
	case *levelRow:
		c.Levels = append(c.Levels, r.level())
	case *blockRow:
		c.Blocks = append(c.Blocks, r.block())
	case *archiveRow:
		c.Archived = append(c.Archived, token.ID(r.ID))
	}
}

// step is one decision while it is being applied. It is thrown away whole when
// the decision is refused.
type step struct {
	*batch
	ctx  context.Context
	rows []row
	sums sum
	out  op
	size int
}

// decide applies one decision inside a savepoint. A refusal is a fault of the
// decision; isTrouble tells it from trouble with the database.
func (b *batch) decide(r *request) error {
	do := r.do
	if do == nil {
		do = func(s *step) error { return s.decision(&r.decision) }
	}
	return b.guarded(r, r.class, r.events, do)
}

// guarded runs do in a savepoint and books what it did.
func (b *batch) guarded(r *request, class string, events []audit.Event, do func(*step) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), decisionTime)
	defer cancel()
	if _, err := b.tx.ExecContext(ctx, "SAVEPOINT decision"); err != nil {
		return b.db.trouble(err)
	}
	s := &step{batch: b, ctx: ctx, sums: b.head.Digest}
	s.out = op{Class: class, Revision: b.head.Revision + 1}
	err := do(s)
	if err == nil {
		err = s.record(events)
	}
	if err != nil {
		if isTrouble(err) {
			return err // the whole batch is rolled back
		}
		if _, e := b.tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT decision"); e != nil {
			return b.db.trouble(e)
		}
	}
	if _, e := b.tx.ExecContext(ctx, "RELEASE SAVEPOINT decision"); e != nil {
		return b.db.trouble(e)
	}
	if err != nil {
		return err
	}
	b.head.Digest, b.head.Revision = s.sums, s.out.Revision
	b.ops = append(b.ops, applied{op: s.out, req: r, rows: s.rows})
	b.bytes += s.size
	return nil
}

// decision writes the rows of a decision. The reply comes first: a repeated
// request is told that it is one, and not that a version moved.
func (s *step) decision(d *authority.Decision) error {
	if d.Reply != nil {
		if err := s.reply(d.Reply); err != nil {
			return err
		}
	}
	for i := range d.Levels {
		c := &d.Levels[i]
		old := int64(0)
		if c.Old != nil {
			old = c.Old.Version
		}
		if err := s.put(levelToRow(c.New), c.Old != nil, old); err != nil {
			return err
		}
	}
	for i := range d.Blocks {
		c := &d.Blocks[i]
		old := int64(0)
		if c.Old != nil {
			old = c.Old.Version
		}
		if err := s.put(blockToRow(c.New), c.Old != nil, old); err != nil {
			return err
		}
	}
	for i := range d.Principals {
		c := &d.Principals[i]
		old := int64(0)
		if c.Old != nil {
			old = c.Old.Version
		}
		if err := s.put(principalToRow(c.New), c.Old != nil, old); err != nil {
			return err
		}
	}
	for i := range d.Consents {
		c := &d.Consents[i]
		old := int64(0)
		if c.Old != nil {
			old = c.Old.Version
		}
		if err := s.put(consentToRow(c.New), c.Old != nil, old); err != nil {
			return err
		}
	}
	for i := range d.Tokens {
		c := &d.Tokens[i]
		old := int64(0)
		if c.Old != nil {
			old = c.Old.Version
		}
		for _, d := range c.Forms {
			if err := s.unused("", d.Bytes()); err != nil {
				return err
			}
		}
		if err := s.put(tokenToRow(c.New), c.Old != nil, old); err != nil {
			return err
		}
	}
	return s.limit(d)
}

// put inserts a row, or replaces the one whose version still stands.
func (s *step) put(r row, replaces bool, version int64) error {
	if s.size > batchBytes {
		return errTooLarge
	}
	if !replaces {
		return s.insert(r)
	}
	old, err := s.current(r)
	if errors.Is(err, sql.ErrNoRows) {
		return authority.ErrMoved
	}
	if err != nil {
		return s.db.trouble(err)
	}
	if versionOf(old.row) != version {
		return authority.ErrMoved
	}
	return s.replace(old, r)
}

func (s *step) insert(r row) error {
	if k, ok := r.(*tokenRow); ok {
		if err := s.unused(k.ID, k.Digest); err != nil {
			return err
		}
	}
	made := sealed(s.keys, r)
	if _, err := s.tx.ExecContext(s.ctx, r.spec().insert, made.args()...); err != nil {
		return s.db.conflict(err)
	}
	s.book(made, nil)
	return nil
}

func (s *step) replace(old stored, r row) error {
	made := sealed(s.keys, r)
	res, err := s.tx.ExecContext(s.ctx, r.spec().update, made.args(versionOf(old.row))...)
	if err != nil {
		return s.db.conflict(err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return errors.Join(authority.ErrMoved, err)
	}
	s.book(made, old.image)
	return nil
}

// current reads the row of the same key as it stands, and proves it: what is
// replaced must be what the digest counted.
func (s *step) current(r row) (stored, error) {
	old, err := scan(r.spec(), s.tx.QueryRowContext(s.ctx, r.spec().selectByKey, r.fields()[0]))
	if err == nil {
		err = old.verify(s.keys)
	}
	return old, err
}

// book counts a written row in the digest and in the ledger's record.
func (s *step) book(made stored, old []byte) {
	t := made.row.spec()
	if t.counted {
		if old != nil {
			s.sums = s.sums.minus(term(s.keys, t, old))
		}
		s.sums = s.sums.plus(term(s.keys, t, made.image))
	}
	s.size += len(made.image)
	s.rows = append(s.rows, made.row)
	s.out.Rows = append(s.out.Rows, rowImage{Table: t.name, Row: made.image})
}

func (s *step) reply(r *authority.Reply) error {
	_, err := s.tx.ExecContext(s.ctx, "DELETE FROM replies WHERE key = $1 AND until <= $2", r.Key[:], clock.Micros(s.now))
	if err != nil {
		return s.db.trouble(err)
	}
	return s.insert(replyToRow(*r))
}

// record writes what tells others of the decision: the change feed and the
// events on their way to the trail.
func (s *step) record(events []audit.Event) error {
	_, err := s.tx.ExecContext(s.ctx, "INSERT INTO changes (revision, seq, node, ids) VALUES ($1, $2, $3, $4)",
		s.out.Revision, s.head.Seq, s.node, names(s.rows))
	if err != nil {
		return s.db.trouble(err)
	}
	for i, e := range events {
		e.Seq = s.head.Seq
		line := e.Encode()
		if err := putEvent(s.ctx, s.tx, e.ID, s.head.Seq, int64(len(s.ops))<<16+int64(i), line); err != nil {
			return s.db.trouble(err)
		}
		s.out.Actions = append(s.out.Actions, e.Action)
		s.out.Events = append(s.out.Events, json.RawMessage(line))
		s.size += len(line)
	}
	if s.size > batchBytes {
		return errTooLarge
	}
	return nil
}

// putEvent stores an event until the trail has it. One that is there already
// is the same one, after a recovery.
func putEvent(ctx context.Context, q querier, id string, seq, n int64, line []byte) error {
	_, err := q.ExecContext(ctx, "INSERT INTO outbox (id, seq, n, line) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
		id, seq, n, string(line))
	return err
}

// limit refuses the decision if an owner would have too many personal tokens, or
// two of one name.
func (s *step) limit(d *authority.Decision) error {
	for i := range d.Tokens {
		c := &d.Tokens[i]
		if c.Old != nil {
			continue
		}
		if d.Named != nil {
			if n, err := s.inUse(d.Named, openNamed, string(c.New.Owner), c.New.Kind.String(), c.New.Name); err != nil || n > 1 {
				return cmp.Or(err, error(authority.ErrMoved))
			}
		}
		if d.MaxPersonal > 0 && c.New.Kind == token.Personal {
			if n, err := s.inUse(d.Counts, openOfKind, string(c.New.Owner), c.New.Kind.String()); err != nil || n > d.MaxPersonal {
				return cmp.Or(err, error(errTokenLimit.With("limit", d.MaxPersonal)))
			}
		}
	}
	return nil
}

// openOfKind and openNamed find those that might be in use; what is so is for
// token.State to say, since no clock is kept in a column. Predecessors in grace
// are not among them: their successor is.
var (
	openOfKind = tokensTable.selectAll + " WHERE owner = $1 AND kind = $2 AND " + open
	openNamed  = openOfKind + " AND name = $3"
)

// inUse counts the tokens of a query that are, as says whoever decides.
func (s *step) inUse(says func(*token.Token) bool, query string, args ...any) (n int, err error) {
	err = each(s.ctx, s.tx, query, tokensTable, func(k stored) error {
		if t := k.row.(*tokenRow).token(); says == nil || says(&t) {
			n++
		}
		return nil
	}, args...)
	return n, s.db.trouble(err)
}

// tighten applies an image by join: what it takes away is taken away from the
// row as it stands, and nothing is given back. A row that is gone is skipped.
func (s *step) tighten(image row) error {
	old, err := s.current(image)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return s.db.trouble(err)
	}
	if joined := join(old.row, image); joined != nil {
		return s.replace(old, joined)
	}
	return nil
}

// join is the tighter of two records of one thing; nil if the image adds
// nothing to what stands.
func join(now, image row) row {
	switch image := image.(type) {
	case *tokenRow:
		was := now.(*tokenRow).token()
		is := was.Tighten(image.token())
		if is.Standing == was.Standing && is.Reason == was.Reason && is.Jobs == was.Jobs {
			return nil
		}
		return tokenToRow(is)
	case *principalRow:
		was := now.(*principalRow).principal()
		is := was.Tighten(image.principal())
		if is.Status == was.Status && is.Epochs == was.Epochs && is.CancelBefore == was.CancelBefore {
			return nil
		}
		return principalToRow(is)
	case *consentRow:
		was := now.(*consentRow).consent()
		is := was.Tighten(image.consent())
		if is.EndedAt.Equal(was.EndedAt) {
			return nil
		}
		return consentToRow(is)
	}
	return nil // a reply takes nothing away, and a policy or a block is set anew
}

func versionOf(r row) int64 {
	switch r := r.(type) {
	case *tokenRow:
		return r.Version
	case *principalRow:
		return r.Version
	case *consentRow:
		return r.Version
	case *levelRow:
		return r.Version
	case *blockRow:
		return r.Version
	case *archiveRow:
		return r.Version
	case *holdRow:
		return r.Version
	}
	return 0
}
