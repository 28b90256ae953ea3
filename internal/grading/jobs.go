package grading

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/policy"
)

var errNoJob = fault.New(fault.NotFound, "job_not_found", "There is no such job, or it is not yours.").
	WithFix("gradegate job list")

// Job gives one job. Somebody else's is NotFound.
func (g *Grading) Job(ctx context.Context, s *policy.Subject, id job.ID) (Detail, error) {
	return g.see(ctx, s, policy.JobRead, id)
}

func (g *Grading) see(ctx context.Context, s *policy.Subject, a policy.Action, id job.ID) (Detail, error) {
	d, err := g.detail(ctx, id)
	if err != nil {
		return Detail{}, err
	}
	if err := policy.Decide(s, a, g.Resource(s, &d.Job)); err != nil {
		if fault.KindOf(err) == fault.NotFound {
			return Detail{}, errNoJob
		}
		return Detail{}, err
	}
	return d, nil
}

// Resource is what an action on a job is aimed at: the subject's own, that of a
// service that it answers for, or one that it handed in for its owner.
func (g *Grading) Resource(s *policy.Subject, j *job.Job) policy.Resource {
	r := policy.Resource{Owner: j.Owner, Competition: j.Competition, Job: string(j.ID), Submitted: j.CreatedAt}
	me := s.Principal.ID
	r.CoOwned = me != "" && me != j.Owner && (me == j.Submitter || g.Gate.Controls(me, j.Owner) || j.Submitter != "" && g.Gate.Controls(me, j.Submitter))
	return r
}

func (g *Grading) detail(ctx context.Context, id job.ID) (Detail, error) {
	j, err := g.Store.Job(ctx, id)
	if err != nil {
		if fault.KindOf(err) == fault.NotFound {
			err = errNoJob
		}
		return Detail{}, err
	}
	sub, err := g.Store.Submission(ctx, j.Submission)
	return Detail{Job: j, Submission: sub}, err
}

// Jobs lists jobs, newest first: the subject's own, or, for those who may read
// everything, those of f.Owner or of all when f.Owner is "*".
func (g *Grading) Jobs(ctx context.Context, s *policy.Subject, f Filter) ([]Detail, error) {
	switch {
	case f.Submitter != "":
		f.Submitter, f.Owner = s.Principal.ID, "" // what the subject handed in for others
	case f.Owner == "":
		f.Owner = s.Principal.ID
	case f.Owner == "*":
		f.Owner = ""
	}
	if f.Submitter != "" && s.Mode != "" {
		return nil, policy.Decide(s, policy.JobRead, policy.Resource{Owner: "usr_others"}) // others' jobs are not its own
	}
	r := policy.Resource{Owner: f.Owner, Competition: f.Competition, CoOwned: f.Owner != "" && g.Gate.Controls(s.Principal.ID, f.Owner)}
	if s.Mode == policy.ModeExpiredRead {
		r.Submitted = s.Ended.Add(-time.Microsecond) // only what is older is listed
	}
	switch {
	case f.Submitter != "":
		r.Owner = s.Principal.ID
	case f.Owner == "":
		// Everybody's jobs: nobody owns that, so only a role can open it.
		r.Owner = "usr_everybody"
	}
	if err := policy.Decide(s, policy.JobRead, r); err != nil {
		if fault.KindOf(err) == fault.NotFound {
			err = fault.New(fault.Denied, "denied", "Only your own jobs can be listed.").WithFix("gradegate job list")
		}
		return nil, err
	}
	list, err := g.Store.Jobs(ctx, f)
	if err != nil {
		return nil, err
	}
	out := make([]Detail, 0, len(list))
	for _, j := range list {
		if outside(s, j.Competition) || s.Mode == policy.ModeExpiredRead && !j.CreatedAt.Before(s.Ended) {
			continue
		}
		sub, err := g.Store.Submission(ctx, j.Submission)
		if err != nil {
			return nil, err
		}
		out = append(out, Detail{Job: j, Submission: sub})
	}
	return out, nil
}

// Cancel asks for the end of a job. It is idempotent: already is the state the
// job had reached before, if there was nothing left to do.
func (g *Grading) Cancel(ctx context.Context, s *policy.Subject, id job.ID) (d Detail, already job.State, err error) {
	for range 5 {
		if d, err = g.see(ctx, s, policy.JobCancel, id); err != nil {
			return d, "", err
		}
		now := g.Now()
		next, changed, err := d.Job.Cancel("owner", now)
		if err != nil {
			return d, "", err
		}
		if !changed {
			return d, d.Job.State, nil
		}
		e := g.event(s, audit.JobCancel, now)
		e.Target, e.Owner, e.Competition = string(id), string(d.Job.Owner), d.Job.Competition
		next, settle := settled(next, now)
		err = g.Store.ReplaceJob(ctx, d.Job, next, settle, e)
		if err == nil {
			if d.Job = next; next.State.Final() {
				g.files.tidy(id)
			}
			g.Nudge()
			return d, "", nil
		}
		if fault.KindOf(err) != fault.Conflict {
			return d, "", err
		}
	}
	return d, "", fault.New(fault.Conflict, "job_busy", "The job keeps changing; its cancel was not recorded.").
		WithFix("gradegate cancel %s", id)
}

// Log is what a job has printed and prints. Nothing of it is open between two
// reads: whoever follows it may be slow, and may be many.
type Log struct {
	path    string
	over    func() bool
	release func()
}

// Log gives what a job has printed. To follow it takes a place, of which one
// user and all users have a number (Limited); Close has to be called once.
func (g *Grading) Log(ctx context.Context, s *policy.Subject, id job.ID, follow bool) (*Log, error) {
	if _, err := g.see(ctx, s, policy.JobRead, id); err != nil {
		return nil, err
	}
	l := &Log{path: g.files.log(id), release: func() {}, over: func() bool {
		j, err := g.Store.Job(ctx, id)
		return err != nil || j.State.Final() || j.State == job.Grading
	}}
	if !follow {
		return l, nil
	}
	release, err := g.followers.take(s)
	if err != nil {
		return nil, err
	}
	l.release = release
	return l, nil
}

// Over reports whether no more will come; ask it before reading to the end.
func (l *Log) Over() bool { return l.over() }

// ReadAt reads what there is from an offset on: io.EOF comes with the last of
// it, also where nothing has been printed so far, or at all.
func (l *Log) ReadAt(p []byte, offset int64) (int, error) {
	f, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, io.EOF
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // only read
	return f.ReadAt(p, offset)
}

// Close gives the place to the next one who wants to follow.
func (l *Log) Close() { l.release() }

// Leaderboard gives the best job of each user, best first.
func (g *Grading) Leaderboard(ctx context.Context, s *policy.Subject, name string, limit int) (Competition, []Standing, error) {
	if err := policy.Decide(s, policy.CompetitionGet, policy.Resource{Competition: name}); err != nil {
		return Competition{}, nil, err
	}
	c, err := g.competition(ctx, name)
	if err != nil {
		return Competition{}, nil, err
	}
	rows, err := g.Store.Best(ctx, name, c.Metrics[0], higherIsBetter(c.Metrics[0]), limit)
	return c, rows, err
}

// Result gives a job whose grade the subject may see.
func (g *Grading) Result(ctx context.Context, s *policy.Subject, id job.ID) (Detail, error) {
	d, err := g.see(ctx, s, policy.JobResult, id)
	if err != nil {
		return d, err
	}
	switch {
	case d.Job.State == job.Succeeded:
		return d, nil
	case d.Job.State.Final():
		return d, fault.New(fault.Conflict, "job_without_grade", "The job %s has no grade: it is %s (%s).", id, d.Job.State, d.Job.Reason).
			With("reason", d.Job.Reason).WithFix("gradegate job show %s", id)
	}
	return d, fault.New(fault.Conflict, "job_not_over", "The job %s is %s; it has no grade yet.", id, d.Job.State).
		WithFix("gradegate job wait %s", id)
}
