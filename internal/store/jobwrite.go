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
	return j.commit(ctx, e, nil, func(tx *sql.Tx) error {
		if old == nil {
			res, err := tx.ExecContext(ctx, "INSERT INTO competitions (name, version, body) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
				c.Name, c.Version, body)
			return j.oneRow(res, err, errNameTaken)
		}
		res, err := tx.ExecContext(ctx, "UPDATE competitions SET version = $2, body = $3 WHERE name = $1 AND version = $4",
			c.Name, c.Version, body, old.Version)
		return j.oneRow(res, err, authority.ErrMoved)
	})
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

// InsertJob implements grading.Store. The quota is judged and taken in the same
// transaction as the job is admitted, behind a row that only one admission of
// this person in this competition holds at a time.
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

// reserve takes from the quota, or refuses with what is left and when there is
// more.
func (j *Jobs) reserve(ctx context.Context, tx *sql.Tx, x *job.Job, q grading.Reservation) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO quota_gates (owner, competition, n) VALUES ($1, $2, 1)
		ON CONFLICT (owner, competition) DO UPDATE SET n = quota_gates.n + 1`, string(x.Owner), x.Competition)
	if err != nil {
		return j.db.trouble(err)
	}
	u, err := usage(ctx, tx, x.Owner, x.Competition, q.Since)
	if err != nil {
		return j.db.trouble(err)
	}
	resets := q.Since.Add(24 * time.Hour)
	switch {
	case q.PerDay > 0 && u.Submissions >= q.PerDay:
		return fault.New(fault.Limited, "quota_submissions", "You have used all %d submissions of this day in %s.", q.PerDay, x.Competition).
			With("limit", q.PerDay).With("used", u.Submissions).With("resets_at", resets).
			WithRetry(max(time.Second, resets.Sub(x.CreatedAt))).
			WithFix("Wait until %s; what you have left is shown by: gradegate job quota %s", resets.UTC().Format("2006-01-02 15:04 MST"), x.Competition)
	case q.Concurrent > 0 && u.Concurrent >= q.Concurrent:
		return fault.New(fault.Limited, "quota_concurrent", "You have %d jobs under way in %s, and no more are allowed at once.", u.Concurrent, x.Competition).
			With("limit", q.Concurrent).With("used", u.Concurrent).With("resets_at", nil).
			WithFix("Wait for one to end (gradegate job list) or cancel one: gradegate cancel JOB")
	}
	return j.book(ctx, tx, x, 0, "reserve", 1, q.GPUSeconds)
}

func (j *Jobs) book(ctx context.Context, tx *sql.Tx, x *job.Job, closes int, kind string, submissions int, gpuSeconds int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO quota (job, closes, kind, owner, competition, at, submissions, gpu_seconds)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		string(x.ID), closes, kind, string(x.Owner), x.Competition, clock.Micros(x.CreatedAt), submissions, gpuSeconds)
	if err != nil {
		return j.db.conflict(err)
	}
	return nil
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
		if err := j.settle(ctx, tx, &is, settle); err != nil {
			return err
		}
		return j.score(ctx, tx, &is)
	})
}

// settle appends what the job really took, as the difference to what it had
// reserved.
func (j *Jobs) settle(ctx context.Context, tx *sql.Tx, x *job.Job, s *grading.Settlement) error {
	if s == nil {
		return j.book(ctx, tx, x, 1, "settle", 0, 0)
	}
	var reserved int64
	err := tx.QueryRowContext(ctx, "SELECT COALESCE(SUM(gpu_seconds), 0) FROM quota WHERE job = $1 AND closes = 0", string(x.ID)).Scan(&reserved)
	if err != nil {
		return j.db.trouble(err)
	}
	kind, submissions := "settle", 0
	if s.Refund {
		kind, submissions = "refund", -1
	}
	return j.book(ctx, tx, x, 1, kind, submissions, s.GPUSeconds-reserved)
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
