package grading

import (
	"context"
	"fmt"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

// leaseTime is how long a claim on a job lasts. Within it, "the executor does
// not know the job" may only mean that the order is still on its way.
const leaseTime = 30 * time.Second

// pace is the pause between two rounds when nothing nudges the reconciler.
const pace = 250 * time.Millisecond

// Nudge makes the reconciler look at once. It never blocks.
func (g *Grading) Nudge() {
	select {
	case g.nudge <- struct{}{}:
	default:
	}
}

// Run reconciles until ctx ends.
func (g *Grading) Run(ctx context.Context) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		if err := g.Reconcile(ctx); err != nil && ctx.Err() == nil {
			g.Config.Log.Warn("reconciling jobs", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.nudge:
		}
	}
}

// Reconcile moves every job that is not over one step towards what is wished.
// It may be called at any time; an interrupted step is taken again.
func (g *Grading) Reconcile(ctx context.Context) error {
	live, err := g.Store.LiveJobs(ctx)
	if err != nil {
		return err
	}
	full := false // the executor has no room: the rest of the queue waits
	for _, j := range live {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if full && j.State == job.Queued && g.wish(j) == token.Keep {
			continue
		}
		err := g.step(ctx, j)
		switch fault.KindOf(err) {
		case fault.Conflict: // somebody else moved it: next round
		case fault.Limited:
			full = true
		default:
			if err != nil {
				g.Config.Log.Warn("job step", "job", j.ID, "state", j.State, "error", err)
			}
		}
	}
	return nil
}

func (g *Grading) wish(j job.Job) token.Wish { return g.Gate.JobWish(j.Owner, j.Via, j.Person) }

// step takes one job one step further.
func (g *Grading) step(ctx context.Context, j job.Job) error {
	if wish := g.wish(j); wish != token.Keep && (j.State == job.Queued || wish == token.CancelAll && j.State != job.Canceling) {
		next, changed, err := j.Cancel("revoked", g.Now())
		if err != nil || !changed {
			return err
		}
		next.Detail = "Canceled because its token was revoked or its owner is not active."
		return g.replace(ctx, j, next)
	}
	switch j.State {
	case job.Queued:
		return g.dispatch(ctx, j)
	case job.Dispatching:
		return g.send(ctx, j)
	case job.Running:
		return g.watch(ctx, j)
	case job.Grading:
		return g.grade(ctx, j)
	case job.Canceling:
		return g.stop(ctx, j)
	}
	return nil
}

// dispatch claims a queued job for this node, then hands it over.
func (g *Grading) dispatch(ctx context.Context, j job.Job) error {
	next, err := j.To(job.Dispatching, "", "", g.Now())
	if err != nil {
		return err
	}
	next.LeaseBy, next.LeaseUntil = g.Node, g.Now().Add(leaseTime)
	next.Attempts++
	if err := g.replace(ctx, j, next); err != nil {
		return err
	}
	return g.send(ctx, next)
}

// send hands a claimed job to the executor. Handing it over twice does no harm:
// the executor starts an id once.
func (g *Grading) send(ctx context.Context, j job.Job) error {
	if j.LeaseBy != g.Node && g.Now().Before(j.LeaseUntil) {
		return nil // another node is at it
	}
	sub, err := g.Store.Submission(ctx, j.Submission)
	if err != nil {
		return err
	}
	if sub.Kind == Predictions {
		return g.move(ctx, j, job.Grading, "", "")
	}
	// The last look before something starts: its owner is active, and nobody
	// wants it stopped.
	if g.wish(j) != token.Keep {
		return g.move(ctx, j, job.Canceling, "revoked", "")
	}
	err = g.Executor.Submit(ctx, g.files.spec(j, sub))
	switch {
	case err == nil:
		return g.move(ctx, j, job.Running, "", "")
	case fault.KindOf(err) == fault.Limited:
		_ = g.move(ctx, j, job.Queued, "", "Waiting for a free slot.")
		return err
	case fault.KindOf(err) == fault.Unavailable:
		return err // asked again in the next round
	}
	f := fault.Of(err)
	return g.move(ctx, j, job.Failed, f.Code, f.Detail)
}

// watch asks the executor about a running job.
func (g *Grading) watch(ctx context.Context, j job.Job) error {
	r, err := g.Executor.Status(ctx, j.ID)
	if err != nil {
		return err
	}
	switch r.Phase {
	case job.PhaseExited:
		return g.exited(ctx, j, r)
	case job.PhaseUnknown:
		if g.Now().Before(j.LeaseUntil) {
			return nil
		}
		return g.move(ctx, j, job.Failed, "lost", "The executor does not know the job any more; it was not graded and costs no quota.")
	}
	if j.Isolation == "" && r.Isolation != "" {
		next := j
		next.Version++
		next.Isolation, next.GPUs = r.Isolation, r.GPUs
		return g.replace(ctx, j, next)
	}
	return nil
}

// exited goes on to grading if the program ended well.
func (g *Grading) exited(ctx context.Context, j job.Job, r job.Report) error {
	to, reason, detail := job.Grading, "", ""
	switch {
	case r.Reason != "":
		to, reason, detail = job.Failed, r.Reason, r.Detail
	case r.ExitCode != 0:
		to, reason = job.Failed, "exit_code"
		detail = fmt.Sprintf("The program ended with exit code %d; see its log.", r.ExitCode)
	}
	next, err := j.To(to, reason, detail, g.Now())
	if err != nil {
		return err
	}
	next.Isolation, next.GPUs, next.ExitCode = r.Isolation, r.GPUs, r.ExitCode
	next = g.ran(next, r)
	if err := g.replace(ctx, j, next); err != nil {
		return err
	}
	if next.State.Final() {
		return g.Executor.Forget(ctx, j.ID)
	}
	return g.grade(ctx, next)
}

// ran takes over when a program ran: it may have started without our having
// heard of it, and grading takes no GPU.
func (g *Grading) ran(j job.Job, r job.Report) job.Job {
	if !r.StartedAt.IsZero() {
		j.StartedAt = r.StartedAt
	}
	end := r.EndedAt
	if end.IsZero() {
		end = g.Now()
	}
	return j.Ran(j.StartedAt, end)
}

// stop makes a canceling job end, and records it once the executor confirms.
func (g *Grading) stop(ctx context.Context, j job.Job) error {
	r, err := g.Executor.Status(ctx, j.ID)
	if err != nil {
		return err
	}
	switch r.Phase {
	case job.PhaseExited:
	case job.PhaseUnknown:
		// Unknown is final only after the lease: the order to start may still be
		// on its way.
		if g.Now().Before(j.LeaseUntil) && j.LeaseBy != g.Node {
			return nil
		}
	default:
		return g.Executor.Cancel(ctx, j.ID)
	}
	next, err := j.To(job.Canceled, j.Reason, "Stopped as asked.", g.Now())
	if err != nil {
		return err
	}
	if r.Phase == job.PhaseExited {
		next.Isolation, next.GPUs, next.ExitCode = r.Isolation, r.GPUs, r.ExitCode
		next = g.ran(next, r)
	}
	if err := g.replace(ctx, j, next); err != nil {
		return err
	}
	return g.Executor.Forget(ctx, j.ID)
}

// move is a step that changes nothing but the state.
func (g *Grading) move(ctx context.Context, j job.Job, to job.State, reason, detail string) error {
	next, err := j.To(to, reason, detail, g.Now())
	if err != nil {
		return err
	}
	return g.replace(ctx, j, next)
}

func (g *Grading) replace(ctx context.Context, j, next job.Job) error {
	now := g.Now()
	e := audit.Event{
		ID: g.NewID("evt_"), At: now, Action: audit.JobState, Outcome: audit.Done, Actor: "system",
		Target: string(j.ID), Owner: string(j.Owner), Reason: next.Reason, Competition: j.Competition,
		Detail: map[string]string{"from": string(j.State), "to": string(next.State)},
	}
	next, settle := settled(next, now)
	err := g.Store.ReplaceJob(ctx, j, next, settle, e)
	if err == nil && next.State.Final() {
		g.files.tidy(j.ID)
	}
	return err
}

// CleanUp removes what jobs have left whose end was interrupted by that of the
// process. It is called before anything else.
func (g *Grading) CleanUp(ctx context.Context) error {
	ids, err := g.files.untidied()
	if err != nil {
		return err
	}
	for _, id := range ids {
		j, err := g.Store.Job(ctx, id)
		switch {
		case fault.KindOf(err) == fault.NotFound && err != nil: // perhaps another database knows it
		case err != nil:
			return err
		case j.State.Final():
			g.files.tidy(id)
		}
	}
	return nil
}
