package store

import (
	"context"
	"database/sql"
	"math"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
)

// commit runs one change with its event in one transaction, and tells the
// followers of the job, if any, before it returns.
func (j *Jobs) commit(ctx context.Context, e audit.Event, tell *job.Job, do func(tx *sql.Tx) error) error {
	j.order.Lock()
	defer j.order.Unlock()
	err := j.db.inTx(ctx, func(tx *sql.Tx) error {
		if err := do(tx); err != nil {
			return err
		}
		// Without a ledger there is no seq; the instant orders the outbox.
		return j.db.trouble(putEvent(ctx, tx, e.ID, clock.Micros(e.At), 0, e.Encode()))
	})
	if err != nil {
		return err
	}
	if tell != nil {
		j.tell(*tell)
	}
	poke(j.wake)
	return nil
}

// SetCompetition implements grading.Store.
func (j *Jobs) SetCompetition(ctx context.Context, old *grading.Competition, c grading.Competition, e audit.Event) error {
	body, err := competitionToBody(c)
	if err != nil {
		return j.db.trouble(err)
	}
	err = j.commit(ctx, e, nil, func(tx *sql.Tx) error {
		if old == nil {
			res, err := tx.ExecContext(ctx, "INSERT INTO competitions (name, version, body) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
				c.Name, c.Version, body)
			return j.oneRow(res, err, errNameTaken)
		}
		res, err := tx.ExecContext(ctx, "UPDATE competitions SET version = $2, body = $3 WHERE name = $1 AND version = $4",
			c.Name, c.Version, body, old.Version)
		return j.oneRow(res, err, authority.ErrMoved)
	})
	if err == nil {
		j.order.Lock()
		defer j.order.Unlock()
		j.tellCompetitions(c)
	}
	return err
}

// oneRow turns "nothing was changed" into the refusal that it means.
func (j *Jobs) oneRow(res sql.Result, err error, refusal *fault.Error) error {
	if err != nil {
		return j.db.conflict(err)
	}
	switch n, err := res.RowsAffected(); {
	case err != nil:
		return j.db.trouble(err)
	case n == 0:
		return refusal
	}
	return nil
}

// InsertJob implements grading.Store. Quotas and budgets are judged and taken in
// the same transaction as the job is admitted.
func (j *Jobs) InsertJob(ctx context.Context, x job.Job, s grading.Submission, q grading.Reservation, r *grading.JobReply, e audit.Event) error {
	row, err := jobToRow(x, x.CreatedAt)
	if err != nil {
		return err
	}
	return j.commit(ctx, e, &x, func(tx *sql.Tx) error {
		if r != nil {
			if err := j.insertReply(ctx, tx, r, x.CreatedAt); err != nil {
				return err
			}
		}
		if err := j.reserve(ctx, tx, &x, q); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO submissions ("+submissionColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
			s.ID, string(s.Owner), s.Competition, s.Digest, s.Size, s.Name, s.Kind, s.Entry, clock.Micros(s.CreatedAt))
		if err != nil {
			return j.db.conflict(err)
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO jobs ("+jobColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
			row.fields()...)
		if err != nil {
			return j.db.conflict(err)
		}
		return nil
	})
}

func (j *Jobs) insertReply(ctx context.Context, tx *sql.Tx, r *grading.JobReply, now time.Time) error {
	if _, err := tx.ExecContext(ctx, "DELETE FROM replies WHERE until <= $1", clock.Micros(now)); err != nil {
		return j.db.trouble(err)
	}
	sealed := r.Sealed
	if sealed == nil {
		sealed = []byte{}
	}
	res, err := tx.ExecContext(ctx, "INSERT INTO replies (key, request, job, sealed, until) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO NOTHING",
		r.Key[:], r.Request[:], string(r.Job), sealed, clock.Micros(r.Until))
	return j.oneRow(res, err, authority.ErrReplyExists)
}

// ReplaceJob implements grading.Store. The step into a final state settles the
// reservation and books the scores, once.
func (j *Jobs) ReplaceJob(ctx context.Context, old, is job.Job, settle *grading.Settlement, e audit.Event) error {
	row, err := jobToRow(is, e.At)
	if err != nil {
		return err
	}
	ends := is.State.Final() && !old.State.Final()
	var tell *job.Job
	if ends || is.HandleLeaked != old.HandleLeaked || is.RunLeaked != old.RunLeaked {
		tell = &is
	}
	return j.commit(ctx, e, tell, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE jobs SET version = $2, owner = $3, competition = $4, submission = $5, via = $6, person = $7,
			state = $8, live = $9, handle_id = $10, handle_digest = $11, run_id = $12, run_digest = $13, created_at = $14, ended_at = $15,
			changed_at = $16, body = $17, submitter = $18 WHERE id = $1 AND version = $19`, append(row.fields(), old.Version)...)
		if err := j.oneRow(res, err, authority.ErrMoved); err != nil || !ends {
			return err
		}
		if err := j.settle(ctx, tx, &is, settle, e.At); err != nil {
			return err
		}
		return j.score(ctx, tx, &is)
	})
}

func (j *Jobs) score(ctx context.Context, tx *sql.Tx, x *job.Job) error {
	if x.State != job.Succeeded {
		return nil
	}
	for metric, value := range x.Scores {
		if math.IsNaN(value) || math.IsInf(value, 0) {
			continue // no place on a leaderboard
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO scores (job, metric, competition, owner, value) VALUES ($1, $2, $3, $4, $5)",
			string(x.ID), metric, x.Competition, string(x.Owner), value)
		if err != nil {
			return j.db.conflict(err)
		}
	}
	return nil
}
