package store

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// reserve takes from the quota and from every budget, or refuses with what is
// left and when there is more. It holds a row of each account that it books on,
// so that no two admissions judge the same account at a time.
func (j *Jobs) reserve(ctx context.Context, tx *sql.Tx, x *job.Job, q grading.Reservation) error {
	accounts := accountsOf(x.Owner, q.Bounds)
	for _, a := range accounts { // in order, so that two never wait for each other
		_, err := tx.ExecContext(ctx, `INSERT INTO quota_gates (account, n) VALUES ($1, 1)
			ON CONFLICT (account) DO UPDATE SET n = quota_gates.n + 1`, a)
		if err != nil {
			return j.db.trouble(err)
		}
	}
	if err := j.judge(ctx, tx, x, q); err != nil {
		return err
	}
	for _, b := range q.Bounds {
		t, err := taken(ctx, tx, b, x.CreatedAt)
		if err != nil {
			return j.db.trouble(err)
		}
		if err := b.Admit(t, micros(q.GPUSeconds*1e6), x.CreatedAt); err != nil {
			return err
		}
	}
	for _, a := range accounts {
		l := line{account: a, kind: "reserve", reason: "submitted", family: q.Family, at: x.CreatedAt, submissions: 1, gpu: q.GPUSeconds}
		if err := j.book(ctx, tx, x, l); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO quota_open (account, job, gpu_seconds, span) VALUES ($1, $2, $3, $4)",
			a, string(x.ID), q.GPUSeconds, seconds(x.Resources.TimeLimit))
		if err != nil {
			return j.db.conflict(err)
		}
	}
	return nil
}

// accountsOf are those that a job is booked on, in order.
func accountsOf(owner principal.ID, bounds []budget.Bound) []string {
	out := []string{string(owner)}
	for _, b := range bounds {
		out = append(out, b.Account)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// judge asks the quota of the competition.
func (j *Jobs) judge(ctx context.Context, tx *sql.Tx, x *job.Job, q grading.Reservation) error {
	u, err := usage(ctx, tx, x.Owner, x.Competition, q.Since)
	if err != nil {
		return j.db.trouble(err)
	}
	exceeded := func(detail string, args ...any) *fault.Error {
		return fault.New(fault.Limited, "quota_exceeded", detail, args...).With("budget", "competition").With("competition", x.Competition)
	}
	resets := q.Since.Add(24 * time.Hour)
	who := "You have"
	if q.For != "" {
		who = q.For + " has"
	}
	switch {
	case q.PerDay > 0 && u.Submissions >= q.PerDay:
		f := exceeded("%s used all submissions of this day in %s: %d of %d.", who, x.Competition, u.Submissions, q.PerDay).
			With("resource", "submissions").With("limit", q.PerDay).With("used", u.Submissions).With("frees_at", resets).
			WithRetry(max(time.Second, resets.Sub(x.CreatedAt))).
			WithFix("Wait until %s; what you have left is shown by: gradegate quota show %s", resets.UTC().Format("2006-01-02 15:04 MST"), x.Competition)
		if q.For != "" {
			f = f.WithFix("Wait until %s: it is %s's quota, and what others hand in for %s counts too. Your own is another one: gradegate quota show %s",
				resets.UTC().Format("2006-01-02 15:04 MST"), q.For, q.For, x.Competition)
		}
		return f
	case q.Concurrent > 0 && u.Concurrent >= q.Concurrent:
		f := exceeded("%s as many jobs under way in %s as are allowed at once: %d.", who, x.Competition, u.Concurrent).
			With("resource", "concurrent").With("limit", q.Concurrent).With("used", u.Concurrent).With("frees_at", nil).
			WithFix("Wait for one to end (gradegate job list) or cancel one: gradegate cancel JOB")
		if q.For != "" {
			f = f.WithFix("%s", budget.OneOfTheirs(q.For))
		}
		return f
	}
	return nil
}

// taken is what an account has taken, as far as it matters for a bound. It is
// one statement, so that no job ends between two looks and is in neither.
func taken(ctx context.Context, q querier, b budget.Bound, now time.Time) (t budget.Taken, err error) {
	since := now.Add(-max(b.Per, budget.Day))
	err = query(ctx, q, `SELECT 1, gpu_seconds, span FROM quota_open WHERE account = $1
		UNION ALL SELECT 0, used, booked_at FROM quota_lines WHERE account = $1 AND used > 0 AND booked_at > $2`,
		func(s scanner) error {
			var open, gpu, when int64
			if err := s.Scan(&open, &gpu, &when); err != nil {
				return err
			}
			if open == 1 {
				t.Held = append(t.Held, budget.Held{GPU: micros(gpu * 1e6), Most: micros(when * 1e6)})
			} else {
				t.Spent = append(t.Spent, budget.Spent{GPU: micros(gpu * 1e6), At: clock.Micro(when)})
			}
			return nil
		}, b.Account, clock.Micros(since))
	return t, err
}

// line is one line of the quota ledger beside what it has from its job.
type line struct {
	account, kind, reason string
	family                token.Family
	at                    time.Time
	submissions           int
	gpu, used             int64
	closes                bool
}

func (j *Jobs) book(ctx context.Context, tx *sql.Tx, x *job.Job, l line) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO quota_lines
		(job, closes, account, kind, reason, owner, family, competition, at, booked_at, submissions, gpu_seconds, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		string(x.ID), bit(l.closes), l.account, l.kind, l.reason, string(x.Owner), string(l.family), x.Competition, clock.Micros(x.CreatedAt),
		clock.Micros(l.at), l.submissions, l.gpu, l.used)
	if err != nil {
		return j.db.conflict(err)
	}
	return nil
}

// settle closes what the job had reserved: on each account one line with the
// difference to what it really took.
func (j *Jobs) settle(ctx context.Context, tx *sql.Tx, x *job.Job, s *grading.Settlement, now time.Time) error {
	var open []line
	err := query(ctx, tx, "SELECT account, family, gpu_seconds FROM quota_lines WHERE job = $1 AND closes = 0 ORDER BY account", func(from scanner) error {
		var family string
		l := line{kind: "settle", reason: string(x.State), at: now, closes: true}
		err := from.Scan(&l.account, &family, &l.used)
		l.family = token.Family(family)
		open = append(open, l)
		return err
	}, string(x.ID))
	if err != nil {
		return j.db.trouble(err)
	}
	for _, l := range open {
		reserved := l.used
		if s != nil {
			l.used, l.reason = min(s.GPUSeconds, reserved), s.Reason
			if s.Refund {
				l.kind, l.submissions, l.used = "refund", -1, 0
			}
		}
		l.gpu = l.used - reserved
		if err := j.book(ctx, tx, x, l); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM quota_open WHERE job = $1", string(x.ID))
	return j.db.trouble(err)
}

// Usage implements grading.Store.
func (j *Jobs) Usage(ctx context.Context, owner principal.ID, competition string, since time.Time) (grading.Usage, error) {
	u, err := usage(ctx, j.db.read, owner, competition, since)
	return u, j.db.trouble(err)
}

// usage sums the quota ledger over the window; what runs now counts whenever
// it was admitted.
func usage(ctx context.Context, q querier, owner principal.ID, competition string, since time.Time) (u grading.Usage, err error) {
	err = q.QueryRowContext(ctx, `SELECT COALESCE(SUM(submissions), 0), COALESCE(SUM(gpu_seconds), 0)
		FROM quota_lines WHERE account = $1 AND competition = $2 AND at >= $3`,
		string(owner), competition, clock.Micros(since)).Scan(&u.Submissions, &u.GPUSeconds)
	if err != nil {
		return u, err
	}
	err = q.QueryRowContext(ctx, "SELECT COUNT(*) FROM jobs WHERE owner = $1 AND competition = $2 AND live = 1",
		string(owner), competition).Scan(&u.Concurrent)
	return u, err
}

// Spending implements grading.Store.
func (j *Jobs) Spending(ctx context.Context, bounds []budget.Bound, now time.Time) ([]grading.Spending, error) {
	out := make([]grading.Spending, 0, len(bounds))
	for _, b := range bounds {
		t, err := taken(ctx, j.db.read, b, now)
		if err != nil {
			return nil, j.db.trouble(err)
		}
		s := grading.Spending{State: b.State(t, now)}
		if s.GPU > 0 && s.Used+s.Reserved > 0 {
			s.FreeAt = b.Frees(t, b.GPU, now)
		}
		out = append(out, s)
	}
	return out, nil
}

// QuotaLines implements grading.Store.
func (j *Jobs) QuotaLines(ctx context.Context, f grading.LineFilter) (out []grading.QuotaLine, err error) {
	where, args := []string{"account = $1"}, []any{f.Account}
	add := func(condition string, values ...any) {
		for _, v := range values {
			args = append(args, v)
			condition = strings.Replace(condition, "?", "$"+strconv.Itoa(len(args)), 1)
		}
		where = append(where, condition)
	}
	if f.Before > 0 {
		add("n < ?", f.Before)
	}
	if f.Job != "" {
		add("job = ?", string(f.Job))
	}
	if len(f.Competitions) > 0 {
		list := make([]any, len(f.Competitions))
		for i, c := range f.Competitions {
			list[i] = c
		}
		add("competition IN ("+strings.TrimSuffix(strings.Repeat("?, ", len(list)), ", ")+")", list...)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	args = append(args, limit)
	text := "SELECT n, kind, reason, job, owner, family, competition, booked_at, submissions, gpu_seconds FROM quota_lines WHERE " +
		strings.Join(where, " AND ") + " ORDER BY n DESC LIMIT $" + strconv.Itoa(len(args))
	err = query(ctx, j.db.read, text, func(s scanner) error {
		var l grading.QuotaLine
		var id, owner, family string
		var at int64
		err := s.Scan(&l.N, &l.Kind, &l.Reason, &id, &owner, &family, &l.Competition, &at, &l.Submissions, &l.GPUSeconds)
		l.Job, l.Owner, l.Family, l.At = job.ID(id), principal.ID(owner), token.Family(family), clock.Micro(at)
		out = append(out, l)
		return err
	}, args...)
	return out, j.db.trouble(err)
}
