package store

import (
	"context"
	"database/sql"
	"time"

	"gradegate/internal/authn"
	"gradegate/internal/clock"
	"gradegate/internal/token"
)

// putGuesses adds what is new, so that several nodes may write of one token.
const putGuesses = `INSERT INTO token_guesses (token, count, since, last, s0, s1, s2, s3) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
	ON CONFLICT (token) DO UPDATE SET
	  count = token_guesses.count + excluded.count,
	  since = CASE WHEN excluded.since < token_guesses.since THEN excluded.since ELSE token_guesses.since END,
	  last = CASE WHEN excluded.last > token_guesses.last THEN excluded.last ELSE token_guesses.last END,
	  s0 = token_guesses.s0 | excluded.s0, s1 = token_guesses.s1 | excluded.s1,
	  s2 = token_guesses.s2 | excluded.s2, s3 = token_guesses.s3 | excluded.s3`

const (
	// guessesKept is how long guesses are remembered after the last one.
	guessesKept = 400 * 24 * time.Hour
	// guessesRead is how many tokens with guesses a start reads, the last ones.
	guessesRead = 1 << 14
)

// RecordGuesses adds guesses to what is stored of their tokens. They are
// outside of MAC and ledger: they carry no right, and the trail has them too.
func (t *Tokens) RecordGuesses(ctx context.Context, list []authn.Guessed) error {
	db, err := t.healthy()
	if err != nil {
		return err
	}
	return db.inTx(ctx, func(tx *sql.Tx) error {
		for _, g := range list {
			_, err := tx.ExecContext(ctx, putGuesses, string(g.Token), g.Count, clock.Micros(g.Since), clock.Micros(g.Last),
				g.Sources[0], g.Sources[1], g.Sources[2], g.Sources[3])
			if err != nil {
				return db.trouble(err)
			}
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM token_guesses WHERE last < $1", t.cfg.Clock.Now().Add(-guessesKept).UnixMicro())
		return db.trouble(err)
	})
}

// Guesses streams what is stored of guesses, the last ones first.
func (t *Tokens) Guesses(ctx context.Context, do func(authn.Guessed) error) error {
	db, err := t.healthy()
	if err != nil {
		return err
	}
	rows, err := db.read.QueryContext(ctx, "SELECT token, count, since, last, s0, s1, s2, s3 FROM token_guesses ORDER BY last DESC LIMIT $1", guessesRead)
	if err != nil {
		return db.trouble(err)
	}
	defer rows.Close()
	for rows.Next() {
		var g authn.Guessed
		var id string
		var since, last int64
		s := &g.Sources
		if err := rows.Scan(&id, &g.Count, &since, &last, &s[0], &s[1], &s[2], &s[3]); err != nil {
			return db.trouble(err)
		}
		g.Token, g.Since, g.Last = token.ID(id), clock.Micro(since), clock.Micro(last)
		if err := do(g); err != nil {
			return err
		}
	}
	return db.trouble(rows.Err())
}
