package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/principal"
)

var (
	errNoJob         = fault.New(fault.NotFound, "job_not_found", "There is no such job.").WithFix("gradegate job list")
	errNoCompetition = fault.New(fault.NotFound, "competition_not_found", "There is no such competition.").WithFix("gradegate competition list")
	errNoSubmission  = fault.New(fault.NotFound, "submission_not_found", "There is no such submission.")
)

// absent replaces "no rows" by the fault that names what is missing.
func (j *Jobs) absent(err error, missing error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return missing
	}
	return j.db.trouble(err)
}

// Competition implements grading.Store.
func (j *Jobs) Competition(ctx context.Context, name string) (grading.Competition, error) {
	c, err := scanCompetition(j.db.read.QueryRowContext(ctx, "SELECT name, version, body FROM competitions WHERE name = $1", name))
	return c, j.absent(err, errNoCompetition)
}

// Competitions implements grading.Store: all of them, by name.
func (j *Jobs) Competitions(ctx context.Context) (out []grading.Competition, err error) {
	err = query(ctx, j.db.read, "SELECT name, version, body FROM competitions ORDER BY name", func(s scanner) error {
		c, err := scanCompetition(s)
		out = append(out, c)
		return err
	})
	return out, j.db.trouble(err)
}

// query streams the rows of a SELECT.
func query(ctx context.Context, q querier, text string, do func(scanner) error, args ...any) error {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (j *Jobs) eachJob(ctx context.Context, where string, do func(job.Job) error, args ...any) error {
	return query(ctx, j.db.read, "SELECT "+jobColumns+" FROM jobs"+where, func(s scanner) error {
		x, err := scanJob(s)
		if err != nil {
			return err
		}
		return do(x)
	}, args...)
}

// Job implements grading.Store.
func (j *Jobs) Job(ctx context.Context, id job.ID) (job.Job, error) {
	x, err := scanJob(j.db.read.QueryRowContext(ctx, "SELECT "+jobColumns+" FROM jobs WHERE id = $1", string(id)))
	return x, j.absent(err, errNoJob)
}

// defaultPage is how many jobs are listed when nobody says how many.
const defaultPage = 100

// Jobs implements grading.Store: newest first, which is the order of ids.
func (j *Jobs) Jobs(ctx context.Context, f grading.Filter) (out []job.Job, err error) {
	var where []string
	var args []any
	add := func(condition, value string) {
		if value != "" {
			args = append(args, value)
			where = append(where, condition+" $"+strconv.Itoa(len(args)))
		}
	}
	add("owner =", string(f.Owner))
	add("submitter =", string(f.Submitter))
	add("competition =", f.Competition)
	add("state =", string(f.State))
	add("id <", string(f.Before))
	text := ""
	if len(where) > 0 {
		text = " WHERE " + strings.Join(where, " AND ")
	}
	limit := f.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	args = append(args, limit)
	err = j.eachJob(ctx, text+" ORDER BY id DESC LIMIT $"+strconv.Itoa(len(args)), func(x job.Job) error {
		out = append(out, x)
		return nil
	}, args...)
	return out, j.db.trouble(err)
}

// LiveJobs implements grading.Store.
func (j *Jobs) LiveJobs(ctx context.Context) (out []job.Job, err error) {
	err = j.eachJob(ctx, " WHERE live = 1 ORDER BY id", func(x job.Job) error {
		out = append(out, x)
		return nil
	})
	return out, j.db.trouble(err)
}

// best ranks each owner's graded jobs; of equal ones the earlier counts.
const best = `SELECT s.owner, s.value, s.n, s.job FROM (
	SELECT owner, value, job,
	  COUNT(*) OVER (PARTITION BY owner) AS n,
	  ROW_NUMBER() OVER (PARTITION BY owner ORDER BY value DIRECTION, job) AS place
	FROM scores WHERE competition = $1 AND metric = $2) AS s
	WHERE s.place = 1 ORDER BY s.value DIRECTION, s.job LIMIT $3`

var (
	bestHigher = strings.ReplaceAll(best, "DIRECTION", "DESC")
	bestLower  = strings.ReplaceAll(best, "DIRECTION", "ASC")
)

// noLimit is for listings without a limit of their own.
const noLimit = 1 << 30

// Best implements grading.Store.
func (j *Jobs) Best(ctx context.Context, competition, metric string, higher bool, limit int) (out []grading.Standing, err error) {
	if limit <= 0 {
		limit = noLimit
	}
	text := bestLower
	if higher {
		text = bestHigher
	}
	err = query(ctx, j.db.read, text, func(s scanner) error {
		var owner, id string
		var st grading.Standing
		if err := s.Scan(&owner, &st.Value, &st.Count, &id); err != nil {
			return err
		}
		st.Owner, st.Job.ID = principal.ID(owner), job.ID(id)
		out = append(out, st)
		return nil
	}, competition, metric, limit)
	for i := 0; err == nil && i < len(out); i++ {
		out[i].Job, err = j.Job(ctx, out[i].Job.ID)
	}
	return out, j.db.trouble(err)
}

// Submission implements grading.Store.
func (j *Jobs) Submission(ctx context.Context, id string) (grading.Submission, error) {
	s, err := scanSubmission(j.db.read.QueryRowContext(ctx, "SELECT "+submissionColumns+" FROM submissions WHERE id = $1", id))
	return s, j.absent(err, errNoSubmission)
}

// JobReply implements grading.Store. A missing or lapsed one is NotFound.
func (j *Jobs) JobReply(ctx context.Context, key [32]byte, now time.Time) (grading.JobReply, error) {
	r := grading.JobReply{Key: key}
	var request []byte
	var id string
	var until int64
	err := j.db.read.QueryRowContext(ctx, "SELECT request, job, sealed, until FROM replies WHERE key = $1 AND until > $2",
		key[:], clock.Micros(now)).Scan(&request, &id, &r.Sealed, &until)
	if err != nil {
		return grading.JobReply{}, j.absent(err, errNoReply)
	}
	copy(r.Request[:], request)
	r.Job, r.Until = job.ID(id), clock.Micro(until)
	return r, nil
}
