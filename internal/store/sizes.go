package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"time"

	"gradegate/internal/clock"
	"gradegate/internal/maintenance"
)

var _ maintenance.Samples = (*Tokens)(nil)

// The tables that can grow, of the two databases. Of the others, each has so many
// places, or a row for each node or name.
var (
	growing = []string{
		"principals", "tokens", "token_uses", "token_guesses", "archive", "holds", "consents", "levels", "outages", "replies", "outbox", "changes", "batches",
	}
	growingJobs = []string{"competitions", "submissions", "jobs", "scores", "quota_lines", "quota_open", "quota_gates", "replies", "outbox"}
)

// Sizes are the rows of the tables that grow, and the bytes of the database.
func (t *Tokens) Sizes(ctx context.Context) (rows map[string]int64, bytes int64, err error) {
	db, err := t.healthy()
	if err != nil {
		return nil, 0, err
	}
	return db.sizes(ctx, growing...)
}

// Sizes are the rows of the tables that grow, and the bytes of the database.
func (j *Jobs) Sizes(ctx context.Context) (rows map[string]int64, bytes int64, err error) {
	rows, bytes, err = j.db.sizes(ctx, growingJobs...)
	if err != nil {
		return nil, 0, err
	}
	for _, both := range []string{"replies", "outbox"} { // which the other database has too
		rows["jobs."+both] = rows[both]
		delete(rows, both)
	}
	return rows, bytes, nil
}

func (d *database) sizes(ctx context.Context, tables ...string) (rows map[string]int64, bytes int64, err error) {
	rows = map[string]int64{}
	for _, t := range tables {
		var n int64
		if err := d.read.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+t).Scan(&n); err != nil {
			return nil, 0, d.trouble(err)
		}
		rows[t] = n
	}
	if d.file == nil {
		err = d.read.QueryRowContext(ctx, "SELECT pg_database_size(current_database())").Scan(&bytes)
		return rows, bytes, d.trouble(err)
	}
	for _, part := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(d.file.path + part)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, unavailable(err)
		}
		bytes += info.Size()
	}
	return rows, bytes, nil
}

// SaveSample implements maintenance.Samples.
func (t *Tokens) SaveSample(ctx context.Context, node string, at time.Time, body string, drop []time.Time) error {
	db, err := t.healthy()
	if err != nil {
		return err
	}
	return db.inTx(ctx, func(tx *sql.Tx) error {
		for _, d := range drop {
			if _, err := tx.ExecContext(ctx, "DELETE FROM samples WHERE node = $1 AND at = $2", node, clock.Micros(d)); err != nil {
				return db.trouble(err)
			}
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO samples (node, at, body) VALUES ($1, $2, $3) ON CONFLICT (node, at) DO NOTHING", node, clock.Micros(at), body)
		return db.trouble(err)
	})
}

// Samples implements maintenance.Samples.
func (t *Tokens) Samples(ctx context.Context, node string) (map[time.Time]string, error) {
	db, err := t.healthy()
	if err != nil {
		return nil, err
	}
	out := map[time.Time]string{}
	err = query(ctx, db.read, "SELECT at, body FROM samples WHERE node = $1", func(s scanner) error {
		var at int64
		var body string
		err := s.Scan(&at, &body)
		out[clock.Micro(at)] = body
		return err
	}, node)
	return out, db.trouble(err)
}
