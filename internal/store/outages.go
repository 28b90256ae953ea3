package store

import (
	"context"
	"database/sql"
	"time"

	"gradegate/internal/clock"
	"gradegate/internal/token"
)

const (
	// outageFrom is the shortest silence that counts: what is shorter is a
	// restart, and moves no clock that anybody could notice.
	outageFrom = time.Minute
	// outageKept is how long an outage is remembered: no idle clock is as long.
	outageKept = 400 * 24 * time.Hour

	metaAble    = "uses_able"
	metaRebuilt = "rebuilt_at"
)

// RebuiltAt is when the database was last made again from the ledger, which
// holds no uses; zero: never.
func (t *Tokens) RebuiltAt(ctx context.Context) (time.Time, error) {
	db, err := t.healthy()
	if err != nil {
		return time.Time{}, err
	}
	at, err := readMeta(ctx, db.read, metaRebuilt)
	return clock.Micro(at), db.trouble(err)
}

// Beat notes that uses could be recorded from able until now without a break.
// What lies between the last such note and able is an outage, in which the idle
// clocks stood still. It gives all outages: another node may have noted one.
func (t *Tokens) Beat(ctx context.Context, able, now time.Time) (token.Outages, error) {
	db, err := t.healthy()
	if err != nil {
		return nil, err
	}
	err = db.inTx(ctx, func(tx *sql.Tx) error {
		mark, err := readMeta(ctx, tx, metaAble)
		if err != nil {
			return db.trouble(err)
		}
		if last := clock.Micro(mark); mark != 0 && able.Sub(last) > outageFrom {
			_, err = tx.ExecContext(ctx, "INSERT INTO outages (began, ended) VALUES ($1, $2) ON CONFLICT (began) DO NOTHING", mark, able.UnixMicro())
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, "DELETE FROM outages WHERE ended < $1", now.Add(-outageKept).UnixMicro())
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, putMeta, metaAble, now.UnixMicro())
		}
		if err == nil { // time passes even when nothing is decided; the mark must know
			_, err = tx.ExecContext(ctx, putMeta, metaMark, now.UnixMicro())
		}
		return db.trouble(err)
	})
	if err != nil {
		return nil, err
	}
	return t.Outages(ctx)
}

// Outages are the spans in which uses could not be recorded, in order and apart.
func (t *Tokens) Outages(ctx context.Context) (token.Outages, error) {
	db, err := t.healthy()
	if err != nil {
		return nil, err
	}
	rows, err := db.read.QueryContext(ctx, "SELECT began, ended FROM outages ORDER BY began")
	if err != nil {
		return nil, db.trouble(err)
	}
	defer rows.Close()
	var out token.Outages
	for rows.Next() {
		var began, ended int64
		if err := rows.Scan(&began, &ended); err != nil {
			return nil, db.trouble(err)
		}
		out = out.Add(token.Span{From: clock.Micro(began), Until: clock.Micro(ended)}, time.Time{})
	}
	return out, db.trouble(rows.Err())
}
