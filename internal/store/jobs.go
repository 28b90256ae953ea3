package store

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

// JobsConfig says where the jobs database is.
type JobsConfig struct {
	// Dir is the data directory, which the caller has locked (see Lock).
	Dir string
	// URL is a path, "sqlite:PATH" or "postgres://…"; empty: jobs.db in Dir.
	URL string
	Now clock.Func
	Log *slog.Logger
}

// Jobs is the jobs database: competitions, submissions, jobs and their quotas.
// It implements grading.Store. It has no ledger: it is backed up, and a running
// job is found again by its id. It is safe for concurrent use.
type Jobs struct {
	cfg  JobsConfig
	db   *database
	wake chan struct{}

	// order is held from a COMMIT until followers were told, so that they learn
	// of a job's end after its beginning.
	order              sync.Mutex
	follow             []func(authn.Handle)
	followCompetitions []func(grading.Competition)

	stop context.CancelFunc
	feed sync.WaitGroup
}

var _ grading.Store = (*Jobs)(nil)

// OpenJobs opens the jobs database, or makes it when this data directory never
// had one. A file that is gone is a clear refusal, and never an empty start.
func OpenJobs(ctx context.Context, cfg JobsConfig) (*Jobs, error) {
	if cfg.URL == "" {
		cfg.URL = filepath.Join(cfg.Dir, "jobs.db")
	}
	if cfg.Now == nil {
		cfg.Now = clock.Wall
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	marker := filepath.Join(cfg.Dir, "initialised-jobs")
	create := false
	if !isPostgres(cfg.URL) {
		_, err := os.Stat(sqlitePath(cfg.URL))
		create = errors.Is(err, os.ErrNotExist)
	}
	if _, err := os.Stat(marker); err == nil && create {
		return nil, fault.New(fault.Unavailable, "jobs_lost", "The jobs database %s is gone.", sqlitePath(cfg.URL)).
			WithFix("Put the file or a copy of it back. To go on without the old jobs, remove %s.", marker)
	}
	if create {
		if err := os.MkdirAll(filepath.Dir(sqlitePath(cfg.URL)), 0o700); err != nil {
			return nil, unavailable(err)
		}
	}
	db, err := openDatabase(ctx, cfg.URL, jobsKind, create)
	if err != nil {
		return nil, err
	}
	if err := db.integrity(ctx, db.read); err != nil {
		_ = db.Close()
		return nil, fault.Wrap(fault.Unavailable, "jobs_damaged", "The jobs database is damaged.", err).
			WithFix("Put a copy of the database back into its place.")
	}
	if err := leaveFile(marker, "gradegate jobs.db was made here.\n"); err != nil {
		_ = db.Close()
		return nil, err
	}
	j := &Jobs{cfg: cfg, db: db, wake: make(chan struct{}, 1), stop: func() {}}
	if isPostgres(cfg.URL) {
		j.startFeed()
	}
	return j, nil
}

// leaveFile makes a small file durable, if it is not there.
func leaveFile(path, text string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return unavailable(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
	}
	return unavailableOrNil(err)
}

// Close closes the database.
func (j *Jobs) Close() error {
	j.stop()
	j.feed.Wait()
	return j.db.Close()
}

// PendingEvents are the oldest events that the trail may not have yet, in order.
func (j *Jobs) PendingEvents(ctx context.Context, limit int) ([]audit.Event, error) {
	return pendingEvents(ctx, j.db, limit)
}

// EventsWritten forgets events that are durable in the trail.
func (j *Jobs) EventsWritten(ctx context.Context, ids []string) error {
	return eventsWritten(ctx, j.db, ids)
}

// Wake receives a value after events were added; see Tokens.Wake.
func (j *Jobs) Wake() <-chan struct{} { return j.wake }

// FollowHandles registers who is told of a job's secrets when it is admitted,
// when it has ended and when one of them leaked, before the call that did it returns.
func (j *Jobs) FollowHandles(f func(authn.Handle)) {
	j.order.Lock()
	defer j.order.Unlock()
	j.follow = append(j.follow, f)
}

// FollowCompetitions registers who is told of a competition when it is made or
// changed, before the call that did it returns.
func (j *Jobs) FollowCompetitions(f func(grading.Competition)) {
	j.order.Lock()
	defer j.order.Unlock()
	j.followCompetitions = append(j.followCompetitions, f)
}

// tellCompetitions must be called with order held.
func (j *Jobs) tellCompetitions(all ...grading.Competition) {
	for _, c := range all {
		for _, f := range j.followCompetitions {
			f(c)
		}
	}
}

// tell must be called with order held.
func (j *Jobs) tell(x job.Job) {
	for _, h := range handles(x) {
		for _, f := range j.follow {
			f(h)
		}
	}
}

// handles are the secrets of a job: the owner's handle lives on for a while
// after the end, what the program holds does not.
func handles(x job.Job) (out []authn.Handle) {
	add := func(h token.Handle, k token.Kind, life time.Duration, leaked bool) {
		if h.IsZero() {
			return
		}
		a := authn.Handle{Handle: h, Kind: k, Job: string(x.ID), Owner: x.Owner, Via: x.Via, Person: x.Person, Leaked: leaked, Submitter: x.Submitter, SubmitterPerson: x.SubmitterEpoch}
		if !x.EndedAt.IsZero() {
			a.Until = x.EndedAt.Add(life)
		}
		out = append(out, a)
	}
	add(x.Handle, token.JobKind, job.HandleLife, x.HandleLeaked)
	add(x.Run, token.Run, 0, x.RunLeaked)
	return out
}

// Handles streams the secrets of all jobs that live or ended not long ago.
func (j *Jobs) Handles(ctx context.Context, do func(authn.Handle) error) error {
	since := clock.Micros(j.cfg.Now().Add(-job.HandleLife))
	return j.eachJob(ctx, " WHERE live = 1 OR ended_at > $1", func(x job.Job) error {
		for _, h := range handles(x) {
			if err := do(h); err != nil {
				return err
			}
		}
		return nil
	}, since)
}

// Vias are the tokens with which those jobs were submitted that live, or whose
// handle still may.
func (j *Jobs) Vias(ctx context.Context) ([]token.ID, error) {
	var out []token.ID
	err := query(ctx, j.db.read, "SELECT DISTINCT via FROM jobs WHERE live = 1 OR ended_at > $1", func(s scanner) error {
		var id string
		err := s.Scan(&id)
		out = append(out, token.ID(id))
		return err
	}, clock.Micros(j.cfg.Now().Add(-job.HandleLife)))
	return out, j.db.trouble(err)
}

// feedOverlap is how far back each look for other nodes' jobs goes: their
// clocks may differ, and a transaction may be seen late. Telling twice does no
// harm.
const feedOverlap = 30 * time.Second

// startFeed tells followers of the jobs that other nodes admit and end.
func (j *Jobs) startFeed() {
	ctx, cancel := context.WithCancel(context.Background())
	j.stop = cancel
	j.feed.Add(1)
	go func() {
		defer j.feed.Done()
		ticker := time.NewTicker(feedPoll)
		defer ticker.Stop()
		seen := map[job.ID]int64{}
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			next, err := j.look(ctx, seen)
			if err != nil && ctx.Err() == nil {
				j.cfg.Log.Warn("the jobs of the other nodes cannot be read", "error", err)
				continue
			}
			seen = next
		}
	}()
}

// look tells what changed lately, except for the versions in seen, and returns
// the versions that it saw.
func (j *Jobs) look(ctx context.Context, seen map[job.ID]int64) (map[job.ID]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTime)
	defer cancel()
	j.order.Lock() // what is read here is told before anything newer of ours
	defer j.order.Unlock()
	now := map[job.ID]int64{}
	err := j.eachJob(ctx, " WHERE changed_at > $1", func(x job.Job) error {
		if now[x.ID] = x.Version; seen[x.ID] != x.Version {
			j.tell(x)
		}
		return nil
	}, clock.Micros(j.cfg.Now().Add(-feedOverlap)))
	if err != nil {
		return seen, err
	}
	all, err := j.Competitions(ctx) // there are few
	if err != nil {
		return seen, err
	}
	j.tellCompetitions(all...)
	return now, nil
}
