package store

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"time"

	"gradegate/internal/authn"
	"gradegate/internal/clock"
	"gradegate/internal/token"
)

// putUse never moves a use back, so that two nodes, or a replay of the trail,
// may write in any order.
const putUse = `INSERT INTO token_uses (token, at, addr, agent, count, stored_at) VALUES ($1, $2, $3, $4, $5, $6)
	ON CONFLICT (token) DO UPDATE SET
	  stored_at = excluded.stored_at,
	  addr = CASE WHEN excluded.at > token_uses.at THEN excluded.addr ELSE token_uses.addr END,
	  agent = CASE WHEN excluded.at > token_uses.at THEN excluded.agent ELSE token_uses.agent END,
	  count = CASE WHEN excluded.count > token_uses.count THEN excluded.count ELSE token_uses.count END,
	  at = CASE WHEN excluded.at > token_uses.at THEN excluded.at ELSE token_uses.at END`

const (
	putMeta = `INSERT INTO meta (name, value) VALUES ($1, $2)
	ON CONFLICT (name) DO UPDATE SET value = CASE WHEN excluded.value > meta.value THEN excluded.value ELSE meta.value END`
	metaUses = "uses_position"
	metaMark = "clock_mark"
)

// RecordUses stores the last uses of tokens and the position of the trail that
// they reach, in one transaction. Neither ever goes back. They are outside of
// MAC and ledger: the trail has every use, and is replayed from the position.
func (t *Tokens) RecordUses(ctx context.Context, uses []authn.LastUse, trailPos uint64) error {
	db, err := t.healthy()
	if err != nil {
		return err
	}
	return db.inTx(ctx, func(tx *sql.Tx) error {
		put, err := tx.PrepareContext(ctx, putUse)
		if err != nil {
			return db.trouble(err)
		}
		defer put.Close()
		now := clock.Micros(t.cfg.Clock.Now())
		for _, u := range uses {
			addr := ""
			if u.Addr.IsValid() {
				addr = u.Addr.String()
			}
			if _, err := put.ExecContext(ctx, string(u.Token), clock.Micros(u.At), addr, u.Agent, u.Count, now); err != nil {
				return db.trouble(err)
			}
		}
		if _, err := tx.ExecContext(ctx, putMeta, metaUses, int64(trailPos)); err != nil {
			return db.trouble(err)
		}
		// Time passes even when nothing is decided; the mark must know.
		_, err = tx.ExecContext(ctx, putMeta, metaMark, t.cfg.Clock.Now().UnixMicro())
		return db.trouble(err)
	})
}

// UsesPosition is the position of the trail that the stored uses reach.
func (t *Tokens) UsesPosition(ctx context.Context) (uint64, error) {
	db, err := t.healthy()
	if err != nil {
		return 0, err
	}
	n, err := readMeta(ctx, db.read, metaUses)
	return uint64(n), db.trouble(err)
}

func readMeta(ctx context.Context, q querier, name string) (n int64, err error) {
	err = q.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = $1", name).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return n, err
}

// Uses streams the last use of every token that was ever used.
func (t *Tokens) Uses(ctx context.Context, do func(authn.LastUse) error) error {
	db, err := t.healthy()
	if err != nil {
		return err
	}
	return db.trouble(eachUse(ctx, db.read, "", do))
}

// UsesStored streams the last uses that were stored since an instant, by this
// node or another one.
func (t *Tokens) UsesStored(ctx context.Context, since time.Time, do func(authn.LastUse) error) error {
	db, err := t.healthy()
	if err != nil {
		return err
	}
	return db.trouble(eachUse(ctx, db.read, " WHERE stored_at >= $1", do, clock.Micros(since)))
}

func eachUse(ctx context.Context, q querier, where string, do func(authn.LastUse) error, args ...any) error {
	rows, err := q.QueryContext(ctx, "SELECT token, at, addr, agent, count FROM token_uses"+where, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var u authn.LastUse
		var id, addr string
		var at int64
		if err := rows.Scan(&id, &at, &addr, &u.Agent, &u.Count); err != nil {
			return err
		}
		u.Token, u.At = token.ID(id), clock.Micro(at)
		u.Addr, _ = netip.ParseAddr(addr) // an unknown address stays unknown
		if err := do(u); err != nil {
			return err
		}
	}
	return rows.Err()
}
