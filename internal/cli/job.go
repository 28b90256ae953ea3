package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/job"
)

func (a *app) jobCmd() *cobra.Command {
	c := &cobra.Command{Use: "job", Short: "Jobs: hand in, follow, cancel"}
	c.AddCommand(a.submit("submit COMPETITION PATH"), a.jobList(), a.jobShow(), a.jobLogs(), a.jobResult(), a.cancel("cancel JOB"), a.jobWait())
	return c
}

// pageMax is how many things the server puts on a page at most.
const pageMax = 1000

func (a *app) jobList() *cobra.Command {
	var competition, state, user string
	var others bool
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "Your jobs, newest first", Args: cobra.NoArgs, Example: "  gradegate job list --competition iris --state running\n  gradegate job list --for-others",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if limit < 1 {
				return misuse(cmd, "--limit is at least 1.")
			}
			if state != "" && !job.State(state).Valid() {
				return misuse(cmd, fmt.Sprintf("--state wants one of %s, and %q is none.", strings.Join(stateNames, ", "), state))
			}
			q := url.Values{"limit": {strconv.Itoa(min(limit+1, pageMax))}}
			for name, v := range map[string]string{"competition": competition, "state": state, "user": user} {
				if v != "" {
					q.Set(name, v)
				}
			}
			if others {
				q.Set("for_others", "true")
			}
			var all []api.Job
			for j, err := range client.AllJobs(cmd.Context(), q) {
				if err != nil {
					return err
				}
				if len(all) == limit {
					a.hint("There are more: --limit %d", limit*2)
					break
				}
				all = append(all, j)
			}
			if len(all) == 0 && competition != "" { // as it would be of one that does not exist
				if _, err := client.CompetitionByName(cmd.Context(), competition); isMissing(err) {
					return err
				}
			}
			if others {
				return a.print(jobTable(all, "FOR\t", func(j api.Job) string { return j.OnBehalfOf }))
			}
			if user != "" {
				return a.print(a.jobsOfPeople(cmd.Context(), all, user))
			}
			return a.print(jobTable(all, "", nil))
		},
	}
	c.Flags().StringVar(&competition, "competition", "", "only those of a competition")
	c.Flags().StringVar(&state, "state", "", "only those in a state, such as running")
	c.Flags().StringVar(&user, "user", "", "somebody else's, or * for all (administrators and auditors); or those of a service that you answer for")
	c.Flags().BoolVar(&others, "for-others", false, "those that you handed in for others, by their consent")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many")
	return c
}

// jobTable shows jobs to people, with one more column in front if it has a head.
func jobTable(all []api.Job, head string, more func(api.Job) string) result {
	return list(all, func(j api.Job) string { return j.ID }, head+"JOB\tCOMPETITION\tSTATE\tSCORE\tHANDED IN\tFILE", func(j api.Job) []string {
		cells := []string{j.ID, j.Competition, stateOf(j), orDash(scores(j.Scores)), ago(j.CreatedAt), orDash(j.Submission.Name)}
		if more != nil {
			cells = append([]string{more(j)}, cells...)
		}
		return cells
	})
}

// jobsOfPeople is a table that says whose the jobs are.
func (a *app) jobsOfPeople(ctx context.Context, all []api.Job, asked string) result {
	names, err := a.namesOfPeople(ctx, "") // ids will do
	if err != nil && asked != "*" && !strings.HasPrefix(asked, "usr_") {
		return jobTable(all, "USER\t", func(api.Job) string { return asked }) // of a service that one answers for
	}
	return jobTable(all, "USER\t", func(j api.Job) string { return who(j.UserID, names) })
}

func isMissing(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Status == http.StatusNotFound
}

// stateNames are the states of a job, in the order in which it goes through them.
var stateNames = []string{
	string(job.Queued), string(job.Dispatching), string(job.Running), string(job.Grading), string(job.Canceling),
	string(job.Succeeded), string(job.Failed), string(job.Canceled),
}

func stateOf(j api.Job) string {
	if j.Reason != "" && j.State != "succeeded" {
		return j.State + " (" + j.Reason + ")"
	}
	return j.State
}

func scores(s map[string]float64) string {
	names := make([]string, 0, len(s))
	for n := range s {
		names = append(names, n)
	}
	slices.Sort(names)
	for i, n := range names {
		names[i] = fmt.Sprintf("%s %.4f", n, s[n])
	}
	return strings.Join(names, ", ")
}

// ownerOf names the owner of a job if that is somebody else than who asks.
func (a *app) ownerOf(ctx context.Context, client *api.Client, j api.Job) string {
	if a.output != "table" {
		return ""
	}
	me, err := client.Whoami(ctx)
	if err != nil || me.User != nil && me.User.ID == j.UserID {
		return "" // a job is shown to others only if they may see people
	}
	if u, err := client.UserByID(ctx, j.UserID); err == nil {
		return u.Name
	}
	return j.UserID
}

func (a *app) printJob(j api.Job, owner string) error {
	code := ""
	if j.ExitCode != nil && j.Reason == "exit_code" {
		code = strconv.Itoa(*j.ExitCode)
	}
	if j.State == string(job.Failed) && j.StartedAt != nil {
		a.hint("What it printed: gradegate job logs %s", j.ID)
	}
	return a.print(result{json: j, name: j.ID, table: func(w io.Writer) {
		facts(w, "job", j.ID, "owner", owner, "competition", j.Competition, "state", stateOf(j), "detail", explained(j), "exit code", code, "score", scores(j.Scores),
			"handed in", when(&j.CreatedAt), "started", when(j.StartedAt), "ended", when(j.EndedAt), "what", j.Submission.Kind+" "+j.Submission.Name,
			"entry point", j.Submission.Entry, "labels", labelled(j.Labels), "isolation", j.Isolation, "gpus", strings.Join(j.GPUs, ","), "GPU hours", gpuTime(j),
			"handed in by", actor(j), "submitted by", unverified(j.SubmittedBy), "with token", j.TokenID)
	}})
}

// gpuTime is what a job was charged, or what it may come to.
func gpuTime(j api.Job) string {
	switch {
	case j.Resources.GPUs == 0:
		return ""
	case j.Reserved > 0:
		return "up to " + hours(float64(j.Reserved)/3600) + " reserved"
	}
	return hours(float64(j.GPUSeconds)/3600) + " charged"
}

// explained is a job's detail, with the number that it speaks of.
func explained(j api.Job) string {
	if j.Reason == "exit_code" && j.ExitCode != nil {
		return fmt.Sprintf("The program ended with exit code %d, which means that it failed.", *j.ExitCode)
	}
	return j.Detail
}

func labelled(labels map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return strings.Join(out, " ")
}

// actor is who handed a job in, if that is not its owner.
func actor(j api.Job) string {
	if j.Act == nil {
		return ""
	}
	return j.Act.Name + ", for " + j.OnBehalfOf + " by consent " + j.Act.Consent + " (verified)"
}

func unverified(s string) string {
	if s == "" {
		return ""
	}
	return s + " (as claimed, not verified)"
}

func (a *app) jobShow() *cobra.Command {
	return &cobra.Command{
		Use: "show JOB", Short: "Everything about one job", Args: cobra.ExactArgs(1), Example: "  gradegate job show JOB",
		RunE: func(cmd *cobra.Command, args []string) error { return a.showJob(cmd.Context(), args[0]) },
	}
}

func (a *app) showJob(ctx context.Context, id string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	j, err := client.JobByID(ctx, id)
	if err != nil {
		return err
	}
	return a.printJob(j, a.ownerOf(ctx, client, j))
}

func (a *app) jobLogs() *cobra.Command {
	var follow bool
	c := &cobra.Command{
		Use: "logs JOB", Short: "What a job has printed", Args: cobra.ExactArgs(1),
		Long: `Prints what a job has printed, byte for byte; on a terminal without what could move
the cursor. With -o json each line is an object of its own, {"offset", "text"}:
where the line begins in the log, and what it says.`,
		Example: "  gradegate job logs JOB\n  gradegate job logs JOB -f\n  gradegate job logs JOB -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			err = a.copyLog(cmd.Context(), client, args[0], follow)
			if err != nil && follow && cmd.Context().Err() != nil {
				return goesOn(args[0])
			}
			return err
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "stay until the job ends")
	return c
}

// copyLog prints what a job printed. A followed log whose connection ends before
// the job does is taken up where it stopped: three hours are long for a line.
func (a *app) copyLog(ctx context.Context, client *api.Client, id string, follow bool) error {
	out := a.logWriter(a.stdout)
	if a.output == "json" {
		lines := &lineObjects{w: a.stdout}
		out = &logWriter{w: lines}
		defer lines.end()
	}
	patience := newPatience()
	var offset int64
	for {
		body, err := client.JobLogs(ctx, id, offset, follow)
		if err == nil {
			var n int64
			n, err = io.Copy(out, body)
			_ = body.Close() // what was read is printed
			if offset += n; n > 0 {
				patience = newPatience()
			}
			if out.err != nil {
				return out.err
			}
		} else if !passing(err) {
			return err
		}
		if !follow {
			return err
		}
		j, e := client.JobByID(ctx, id)
		if e == nil && final(j.State) && err == nil {
			return nil
		}
		if e != nil && !passing(e) {
			return e
		}
		if err := patience.pause(ctx, client, errors.Join(err, e)); err != nil {
			return err
		}
	}
}

func (a *app) jobResult() *cobra.Command {
	return &cobra.Command{
		Use: "result JOB", Short: "The grade of a job", Args: cobra.ExactArgs(1), Example: "  gradegate job result JOB -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			r, err := client.JobResult(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(result{json: r, name: r.Job, table: func(w io.Writer) {
				for _, line := range strings.Split(scores(r.Scores), ", ") {
					name, value, _ := strings.Cut(line, " ")
					facts(w, name, value)
				}
			}})
		},
	}
}

func (a *app) cancel(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Ask for the end of a job", Args: cobra.ExactArgs(1), Example: "  gradegate cancel JOB",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			out, err := client.CancelJob(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			switch {
			case !final(out.Job.State):
				a.hint("It is being stopped. Wait until it has ended: gradegate job wait %s", out.Job.ID)
			case out.Already != "":
				a.hint("There was nothing left to cancel: it is over.")
			}
			return a.print(result{json: out, name: out.Job.ID, table: func(w io.Writer) {
				facts(w, "job", out.Job.ID, "state", stateOf(out.Job), "detail", out.Job.Detail)
			}})
		},
	}
}

func (a *app) jobWait() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use: "wait JOB", Short: "Wait until a job is over; exit code 9 if it has no grade", Args: cobra.ExactArgs(1),
		Long: `Waits until a job is over, through restarts of the server too, and prints it. Exit
code 0: it has a grade; 9: it has none; 124: --timeout passed and it goes on.
To stop waiting does nothing to the job.`,
		Example: "  gradegate job wait JOB --timeout 10m",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			j, err := a.wait(cmd.Context(), client, args[0], timeout)
			if err != nil {
				return err
			}
			return a.over(j)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "give up after this long, with exit code 124")
	return c
}

// over prints a finished job and turns a missing grade into an exit code.
func (a *app) over(j api.Job) error {
	if err := a.printJob(j, ""); err != nil {
		return err
	}
	if j.State != "succeeded" {
		return exit(exitJobFailed)
	}
	return nil
}

// waitTimeout is the code of a wait that was given up; it has an exit code of
// its own.
const waitTimeout = "wait_timeout"

// wait asks with growing pauses until the job is over, and shows how it goes.
func (a *app) wait(ctx context.Context, client *api.Client, id string, timeout time.Duration) (api.Job, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	line := a.progress()
	defer line.done()
	start, pause, patience := time.Now(), 100*time.Millisecond, newPatience()
	var known api.Job
	for {
		j, err := client.JobByID(ctx, id)
		switch {
		case err == nil && final(j.State):
			return j, nil
		case err == nil:
			known, patience = j, newPatience()
			line.show("%s  %s  %s", id, j.State, time.Since(start).Round(time.Second))
			err = client.Wait(ctx, pause)
			pause = min(pause*3/2, 3*time.Second)
		case passing(err) && ctx.Err() == nil:
			line.show("%s  the server does not answer; trying again  %s", id, time.Since(start).Round(time.Second))
			err = patience.pause(ctx, client, err)
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return known, fault.New(fault.Unavailable, waitTimeout, "Still %s after %s; the job goes on.", first([]string{known.State}, "unknown"), timeout).
				WithFix("gradegate job wait %s", id)
		}
		if ctx.Err() != nil {
			return known, goesOn(id)
		}
		if err != nil {
			return known, err
		}
	}
}

// goesOn is the end of a command that followed a job and was interrupted.
func goesOn(id string) error {
	return stopped(fmt.Sprintf("The job goes on. Look at it: gradegate job show %s; wait for it again: gradegate job wait %s", id, id))
}

func final(state string) bool { return job.State(state).Final() }

// passing reports whether an error says nothing about the job, only about the
// moment: the server restarts, a line is down, there were too many questions.
func passing(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && (e.Code == "unreachable" || e.Status == 429 || e.Status == 502 || e.Status == 503 || e.Status == 504)
}

// patience is how long somebody who waits for a job puts up with silence.
type patience struct{ left, next time.Duration }

func newPatience() *patience { return &patience{left: 15 * time.Minute, next: time.Second} }

// pause waits a little longer each time, and gives err back when it is too much.
func (p *patience) pause(ctx context.Context, client *api.Client, err error) error {
	wait := p.next
	var e *api.Error
	if errors.As(err, &e) {
		wait = max(wait, e.RetryAfter)
	}
	if p.left -= wait; p.left < 0 && err != nil {
		return err
	}
	p.next = min(p.next*2, 30*time.Second)
	return client.Wait(ctx, wait)
}
