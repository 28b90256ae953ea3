package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/maintenance"
	"gradegate/internal/token"
)

var _ maintenance.Store = (*Tokens)(nil)

// Archive implements maintenance.Store. A token that has changed since makes
// the whole of it a Conflict. The tokens leave the table in memory before it
// returns.
func (t *Tokens) Archive(ctx context.Context, moves []maintenance.Move, e audit.Event) error {
	return t.maintain(ctx, e, func(s *step) error {
		held, err := s.held()
		if err != nil {
			return err
		}
		for i := range moves {
			if held.Token(&moves[i].Old) {
				return errHeld
			}
			if err := s.archive(&moves[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Reduce implements maintenance.Store.
func (t *Tokens) Reduce(ctx context.Context, all []maintenance.Archived, segment string, e audit.Event) error {
	return t.maintain(ctx, e, func(s *step) error {
		held, err := s.held()
		if err != nil {
			return err
		}
		for _, a := range all {
			if held.Token(&a.Token) {
				return errHeld
			}
			if err := s.put(archivedToRow(a.Tombstone(segment)), true, a.Version); err != nil {
				return err
			}
		}
		return nil
	})
}

// PutHold implements maintenance.Store.
func (t *Tokens) PutHold(ctx context.Context, h maintenance.Hold, e audit.Event) error {
	err := t.maintain(ctx, e, func(s *step) error { return s.put(holdToRow(h), h.Version > 1, h.Version-1) })
	if err == nil {
		t.holds.Store(h.ID, true)
	}
	return err
}

// held is what legal holds are on at this moment: one may have been made since it
// was decided what goes. All who write hold the head, so that nobody comes between.
func (s *step) held() (maintenance.Held, error) {
	var all []maintenance.Hold
	err := each(s.ctx, s.tx, holdsTable.selectAll, holdsTable, func(r stored) error {
		all = append(all, r.row.(*holdRow).hold())
		return r.verify(s.keys)
	})
	return maintenance.HeldAt(all, s.now), s.db.trouble(err)
}

// maintain takes a decision that is not the authority's through the writer. It
// is one that needs both the database and the ledger: none of it is urgent.
func (t *Tokens) maintain(ctx context.Context, e audit.Event, do func(*step) error) error {
	_, err := t.enqueue(&request{ctx: ctx, do: do, events: []audit.Event{e}, class: loosen, done: make(chan struct{})})
	return err
}

// archive moves one token, if it stands as it was when that was decided.
func (s *step) archive(m *maintenance.Move) error {
	if s.size > batchBytes {
		return errTooLarge
	}
	old, err := s.current(tokenToRow(m.Old))
	if errors.Is(err, sql.ErrNoRows) || err == nil && versionOf(old.row) != m.Old.Version {
		return authority.ErrMoved
	}
	if err != nil {
		return s.db.trouble(err)
	}
	for _, statement := range []string{"DELETE FROM tokens WHERE id = $1", "DELETE FROM token_uses WHERE token = $1"} {
		if _, err := s.tx.ExecContext(s.ctx, statement, string(m.Old.ID)); err != nil {
			return s.db.trouble(err)
		}
	}
	s.sums = s.sums.minus(term(s.keys, tokensTable, old.image))
	return s.insert(archivedToRow(m.New))
}

// unused refuses a token whose id or digest is in the archive: neither is ever
// given out again. All who write hold the head, so that nobody comes between.
func (s *step) unused(id string, digest []byte) error {
	var there string
	err := s.tx.QueryRowContext(s.ctx, "SELECT id FROM archive WHERE id = $1 OR digest = $2", id, digest).Scan(&there)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return s.db.trouble(err)
	case there == id:
		return errIDTaken
	}
	return errSecretEnded.With("token", there)
}

// Kin implements maintenance.Store.
func (t *Tokens) Kin(ctx context.Context, of []token.Token) ([]token.Token, error) {
	var out []token.Token
	seen := map[token.ID]bool{}
	ids, families := make([]token.ID, len(of)), make([]token.Family, len(of))
	for i := range of {
		ids[i], families[i] = of[i].ID, of[i].Family
	}
	for _, q := range []struct {
		column string
		args   []any
	}{{"id", anys(ids)}, {"family", anys(families)}, {"parent", anys(ids)}} {
		where := " WHERE " + q.column + " <> '' AND " + q.column + " IN (" + places(len(q.args)) + ")"
		rows, err := many(ctx, t, tokensTable.selectAll+where, tokensTable, q.args...)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if k := r.(*tokenRow).token(); !seen[k.ID] {
				seen[k.ID] = true
				out = append(out, t.acked.token(k))
			}
		}
	}
	return out, nil
}

// LastUses implements maintenance.Store.
func (t *Tokens) LastUses(ctx context.Context, ids []token.ID) (map[token.ID]token.Use, error) {
	db, err := t.healthy()
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	out := make(map[token.ID]token.Use, len(ids))
	err = eachUse(ctx, db.read, " WHERE token IN ("+places(len(ids))+")", func(u authn.LastUse) error {
		out[u.Token] = u.Use
		return nil
	}, anys(ids)...)
	return out, db.trouble(err)
}

// Archived implements maintenance.Store.
func (t *Tokens) Archived(ctx context.Context, q maintenance.Query) ([]maintenance.Archived, error) {
	var where []string
	var args []any
	add := func(text string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			text = strings.Replace(text, "?", "$"+strconv.Itoa(len(args)), 1)
		}
		where = append(where, text)
	}
	if q.Owner != "" {
		add("owner = ? AND owner <> ''", string(q.Owner))
	}
	if q.Name != "" {
		add("name = ? AND name <> ''", q.Name)
	}
	if q.Kind != 0 {
		add("kind = ?", q.Kind.String())
	}
	if !q.EndedSince.IsZero() {
		add("ended_at >= ?", clock.Micros(q.EndedSince))
	}
	if !q.EndedUntil.IsZero() {
		add("ended_at < ?", clock.Micros(q.EndedUntil))
	}
	if q.Before.ID != "" {
		add("(ended_at, id) < (?, ?)", clock.Micros(q.Before.EndedAt), string(q.Before.ID))
	}
	text := archiveTable.selectAll
	if len(where) > 0 {
		text += " WHERE " + strings.Join(where, " AND ")
	}
	return t.archived(ctx, text+" ORDER BY ended_at DESC, id DESC LIMIT "+strconv.Itoa(q.Limit), args...)
}

// ArchivedToken is one token of the archive.
func (t *Tokens) ArchivedToken(ctx context.Context, id token.ID) (maintenance.Archived, error) {
	r, err := one(ctx, t, archiveTable.selectByKey, archiveTable, string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return maintenance.Archived{}, errNotArchived
	}
	if err != nil {
		return maintenance.Archived{}, err
	}
	return r.(*archiveRow).archived(), nil
}

// Due implements maintenance.Store.
func (t *Tokens) Due(ctx context.Context, before time.Time, after maintenance.Place, limit int) ([]maintenance.Archived, error) {
	return t.archived(ctx, archiveTable.selectAll+" WHERE segment = '' AND ended_at < $1 AND (ended_at, id) > ($2, $3) ORDER BY ended_at, id LIMIT $4",
		clock.Micros(before), clock.Micros(after.EndedAt), string(after.ID), limit)
}

func (t *Tokens) archived(ctx context.Context, text string, args ...any) ([]maintenance.Archived, error) {
	rows, err := many(ctx, t, text, archiveTable, args...)
	if err != nil {
		return nil, err
	}
	out := make([]maintenance.Archived, len(rows))
	for i, r := range rows {
		out[i] = r.(*archiveRow).archived()
	}
	return out, nil
}

// Holds implements maintenance.Store. None is ever deleted, so that one which was
// there before and is not is an error: what depends on it cannot be undone.
func (t *Tokens) Holds(ctx context.Context) ([]maintenance.Hold, error) {
	missing := map[string]bool{}
	t.holds.Range(func(id, _ any) bool { missing[id.(string)] = true; return true })
	rows, err := many(ctx, t, holdsTable.selectAll+" ORDER BY id", holdsTable)
	if err != nil {
		return nil, err
	}
	out := make([]maintenance.Hold, len(rows))
	for i, r := range rows {
		out[i] = r.(*holdRow).hold()
		delete(missing, out[i].ID)
		t.holds.Store(out[i].ID, true)
	}
	if len(missing) > 0 {
		return nil, errHoldsGone
	}
	return out, nil
}

const takeLease = `INSERT INTO leases (name, node, until) VALUES ($1, $2, $3)
	ON CONFLICT (name) DO UPDATE SET node = excluded.node, until = excluded.until
	WHERE leases.node = excluded.node OR leases.until < $4`

// Lease implements maintenance.Store. It only spares two nodes the same work:
// what they decide is right whoever does it.
func (t *Tokens) Lease(ctx context.Context, name string, until time.Time) (bool, error) {
	db, err := t.healthy()
	if err != nil {
		return false, err
	}
	res, err := db.write.ExecContext(ctx, takeLease, name, t.w.node, clock.Micros(until), clock.Micros(t.cfg.Clock.Now()))
	if err != nil {
		return false, db.trouble(err)
	}
	n, err := res.RowsAffected()
	return n == 1, db.trouble(err)
}

// places are n placeholders.
func places(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(i+1))
	}
	return b.String()
}

func anys[T ~string](list []T) []any {
	out := make([]any, len(list))
	for i, x := range list {
		out[i] = string(x)
	}
	return out
}
