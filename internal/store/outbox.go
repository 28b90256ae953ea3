package store

import (
	"context"
	"database/sql"

	"gradegate/internal/audit"
)

// Events of a transaction are stored with it and copied to the trail
// afterwards, so that a change never lacks its record: the trail takes them
// from PendingEvents, makes them durable, and says so with EventsWritten. An
// event may come twice; the trail knows it by its id.

func pendingEvents(ctx context.Context, db *database, limit int) ([]audit.Event, error) {
	rows, err := db.read.QueryContext(ctx, "SELECT line FROM outbox ORDER BY seq, n, id LIMIT $1", limit)
	if err != nil {
		return nil, db.trouble(err)
	}
	defer rows.Close()
	var out []audit.Event
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, db.trouble(err)
		}
		e, err := audit.Decode([]byte(line))
		if err != nil {
			return nil, db.trouble(err)
		}
		out = append(out, e)
	}
	return out, db.trouble(rows.Err())
}

func eventsWritten(ctx context.Context, db *database, ids []string) error {
	return db.inTx(ctx, func(tx *sql.Tx) error {
		drop, err := tx.PrepareContext(ctx, "DELETE FROM outbox WHERE id = $1")
		if err != nil {
			return db.trouble(err)
		}
		defer drop.Close()
		for _, id := range ids {
			if _, err := drop.ExecContext(ctx, id); err != nil {
				return db.trouble(err)
			}
		}
		return nil
	})
}

// PendingEvents are the oldest events that the trail may not have yet, in order.
func (t *Tokens) PendingEvents(ctx context.Context, limit int) ([]audit.Event, error) {
	db, err := t.healthy()
	if err != nil {
		return nil, err
	}
	return pendingEvents(ctx, db, limit)
}

// EventsWritten forgets events that are durable in the trail.
func (t *Tokens) EventsWritten(ctx context.Context, ids []string) error {
	db, err := t.healthy()
	if err != nil {
		return err
	}
	return eventsWritten(ctx, db, ids)
}

// Wake receives a value after events were added. It holds one; who reads it
// drains until PendingEvents is empty.
func (t *Tokens) Wake() <-chan struct{} { return t.wake }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
