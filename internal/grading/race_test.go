package grading_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/bundle"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/store"
	"gradegate/internal/token"
)

// fake is an executor that runs nothing and remembers what it was told. Its
// hooks fail before or after the effect, as networks do.
type fake struct {
	mu            sync.Mutex
	phase         map[job.ID]job.Report
	starts        map[job.ID]int
	before, after error
}

func newFake() *fake {
	return &fake{phase: map[job.ID]job.Report{}, starts: map[job.ID]int{}}
}

func (f *fake) Submit(_ context.Context, s job.Spec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.before != nil {
		return f.before
	}
	if _, known := f.phase[s.ID]; !known {
		f.phase[s.ID] = job.Report{Phase: job.PhaseRunning, Isolation: "fake", StartedAt: time.Now()}
		f.starts[s.ID]++
	}
	return f.after
}

func (f *fake) Status(_ context.Context, id job.ID) (job.Report, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.phase[id]; ok {
		return r, nil
	}
	return job.Report{Phase: job.PhaseUnknown}, nil
}

func (f *fake) Cancel(_ context.Context, id job.ID) error {
	f.end(id, job.Report{Phase: job.PhaseExited, Reason: "cancelled", ExitCode: -1})
	return nil
}

func (f *fake) Forget(context.Context, job.ID) error { return nil }

func (f *fake) end(id job.ID, r job.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.phase[id]; known {
		f.phase[id] = r
	}
}

// house is grading and authority over real stores.
type house struct {
	*grading.Grading
	authority *authority.Authority
	table     *authn.Table
	jobs      *store.Jobs
	exec      *fake
	clock     *clock.Fake
	dir       string
}

func open(t *testing.T) house {
	t.Helper()
	f := clock.NewFake(time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC))
	c := clock.New(f.Now, time.Time{})
	ring, dir, quiet := keys.New([keys.Size]byte{1}), t.TempDir(), slog.New(slog.DiscardHandler)
	tokens, err := store.OpenTokens(t.Context(), store.TokensConfig{Dir: dir, Keys: ring, Clock: c, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tokens.Close() })
	jobs, err := store.OpenJobs(t.Context(), store.JobsConfig{Dir: dir, Now: c.Now, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = jobs.Close() })
	table := authn.New(c.Now, 0, policy.Rules{})
	tokens.Follow(table.Apply)
	jobs.FollowHandles(table.ApplyHandle)
	h := house{authority: authority.New(tokens, table, ring, c.Now), table: table, jobs: jobs, exec: newFake(), clock: f, dir: dir}
	h.Grading, err = grading.New(grading.Config{
		Store: jobs, Executor: h.exec, Gate: table, Keys: ring, Now: c.Now, NewID: func(p string) string { return p + authority.SortableID(time.Now()) },
		Dir: dir, Node: "test", Log: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.competition(t)
	return h
}

func admin() *policy.Subject { return &policy.Subject{Local: true} }

func (h house) competition(t *testing.T) {
	t.Helper()
	src := t.TempDir()
	for name, text := range map[string]string{"train.csv": "id,label\n", "hidden/labels.csv": "id,label\na,x\nb,y\n"} {
		_ = os.MkdirAll(src+"/hidden", 0o755)
		if err := os.WriteFile(src+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var packed strings.Builder
	if err := bundle.Pack(src, &packed); err != nil {
		t.Fatal(err)
	}
	c := grading.Competition{Name: "c", Metrics: []string{"accuracy"}, Open: true}
	if _, err := h.Apply(t.Context(), admin(), c, strings.NewReader(packed.String()), 0); err != nil {
		t.Fatal(err)
	}
}

// person enrols somebody; the subject is that of a session.
func (h house) person(t *testing.T, name string) *policy.Subject {
	t.Helper()
	made, err := h.authority.Invite(t.Context(), admin(), authority.NewUser{Name: name}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := h.authority.Redeem(t.Context(), &policy.Subject{}, made.Code, "laptop", "")
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := h.table.Authenticate(session.Secret.Presented(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

func (h house) submit(ctx context.Context, s *policy.Subject) (grading.Submitted, error) {
	return h.Submit(ctx, s, grading.Upload{Competition: "c", Name: "run.sh", Body: strings.NewReader("#!/bin/sh\n")}, grading.Idem{})
}

// R2.7, A17: in a thousand races of a revocation with "jobs: cancel", or of an
// off-boarding, against submits, no job is admitted after the acknowledgement,
// and those admitted before do not go on.
func TestNoJobAfterAcknowledgement(t *testing.T) {
	h := open(t)
	for round := range 1000 {
		who := h.person(t, "p"+strings.Repeat("x", round%3)+time.Now().Format("150405.000000000")[7:])
		var mu sync.Mutex
		acknowledged := false
		late := 0
		var wg sync.WaitGroup
		ready := make(chan struct{})
		for range 2 {
			wg.Go(func() {
				<-ready
				for range 2 {
					mu.Lock()
					began := acknowledged
					mu.Unlock()
					_, err := h.submit(context.Background(), who)
					if err == nil && began {
						mu.Lock()
						late++
						mu.Unlock()
					}
				}
			})
		}
		close(ready)
		var err error
		if round%2 == 0 {
			_, err = h.authority.Revoke(t.Context(), admin(), string(who.Token), "", token.CancelAll)
		} else {
			_, err = h.authority.Offboard(t.Context(), admin(), string(who.Principal.ID), true)
		}
		if err != nil {
			t.Fatal(err)
		}
		before, err := h.jobs.Jobs(t.Context(), grading.Filter{Owner: who.Principal.ID, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		acknowledged = true
		mu.Unlock()
		wg.Wait()
		after, err := h.jobs.Jobs(t.Context(), grading.Filter{Owner: who.Principal.ID, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		if late > 0 || len(after) != len(before) {
			t.Fatalf("round %d: %d jobs at the acknowledgement, %d afterwards, %d late", round, len(before), len(after), late)
		}
	}
	for range 3 {
		if err := h.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	live, err := h.jobs.LiveJobs(t.Context())
	if err != nil || len(live) > 0 || len(h.exec.starts) > 0 {
		t.Errorf("%d jobs live on, %d were started: %v", len(live), len(h.exec.starts), err)
	}
}

// R2.7: who reports a job handle or a run token ends that secret at once and
// for good; the job goes on, and its owner keeps it.
func TestLeakedHandle(t *testing.T) {
	h := open(t)
	ann := h.person(t, "ann")
	made, err := h.submit(t.Context(), ann)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(h.dir + "/jobs/" + string(made.Job.ID) + "/run_token")
	if err != nil {
		t.Fatal(err)
	}
	run, err := token.ReadSecret(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []token.Secret{made.Handle, run} {
		if _, _, err := h.table.Authenticate(s.Presented(), netip.Addr{}); err != nil {
			t.Fatal(err)
		}
		forged := token.NewSecret(s.Presented().Kind)
		for range 2 {
			if err := h.ReportLeak(t.Context(), &policy.Subject{}, []string{"junk", forged.Reveal(), s.Reveal()}); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := h.table.Authenticate(s.Presented(), netip.Addr{}); fault.CodeOf(err) != "token_revoked" {
			t.Errorf("a leaked %s: %v", s.Presented().Kind, err)
		}
	}
	// Steps of the job, its end included, bring neither back, and nor does a restart.
	for range 3 {
		if err := h.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	h.exec.end(made.Job.ID, job.Report{Phase: job.PhaseExited, ExitCode: 1})
	for range 3 {
		if err := h.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	d, err := h.Job(t.Context(), ann, made.Job.ID)
	if err != nil || d.Job.State != job.Failed || d.Job.Reason != "exit_code" {
		t.Errorf("the job did not go on: %+v %v", d.Job, err)
	}
	n := 0
	err = h.jobs.Handles(t.Context(), func(x authn.Handle) error {
		n++
		if !x.Leaked {
			t.Errorf("a restart would revive the %s", x.Kind)
		}
		return nil
	})
	if err != nil || n != 2 {
		t.Errorf("%d handles, %v", n, err)
	}
	if _, _, err := h.table.Authenticate(made.Handle.Presented(), netip.Addr{}); fault.CodeOf(err) != "token_revoked" {
		t.Errorf("after the end: %v", err)
	}
}

// R9.7: every line about a job says of which competition it is, for a legal hold
// keeps the lines of one.
func TestLinesOfACompetition(t *testing.T) {
	h := open(t)
	ann := h.person(t, "ann")
	made, err := h.submit(t.Context(), ann)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(h.Reconcile(t.Context()), h.ReportLeak(t.Context(), &policy.Subject{}, []string{made.Handle.Reveal()}))
	_, _, bad := h.Cancel(t.Context(), ann, made.Job.ID)
	err = errors.Join(err, bad)
	h.exec.end(made.Job.ID, job.Report{Phase: job.PhaseExited, ExitCode: 1})
	for range 3 {
		err = errors.Join(err, h.Reconcile(t.Context()))
	}
	events, bad := h.jobs.PendingEvents(t.Context(), 100)
	if err := errors.Join(err, bad); err != nil {
		t.Fatal(err)
	}
	seen := map[audit.Action]bool{}
	for _, e := range events {
		if seen[e.Action] = true; e.Competition != made.Job.Competition && e.Target != made.Job.Competition {
			t.Errorf("%+v", e)
		}
	}
	for _, a := range []audit.Action{audit.CompetitionApply, audit.JobSubmit, audit.TokenLeak, audit.JobCancel, audit.JobState} {
		if !seen[a] {
			t.Errorf("there is no line of %s", a)
		}
	}
}

// The way of a job through its states, with an executor that fails before and
// after it has done what it was told: nothing starts twice, nothing is lost.
func TestReconcile(t *testing.T) {
	unreachable := fault.New(fault.Unavailable, "executor_unavailable", "no answer")
	for name, hook := range map[string]func(*fake, bool){
		"works":              func(*fake, bool) {},
		"fails before":       func(f *fake, on bool) { f.before = when(on, unreachable) },
		"fails after":        func(f *fake, on bool) { f.after = when(on, unreachable) },
		"has no room before": func(f *fake, on bool) { f.before = when(on, fault.New(fault.Limited, "no_free_slot", "full")) },
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t)
			ann := h.person(t, "ann")
			made, err := h.submit(t.Context(), ann)
			if err != nil {
				t.Fatal(err)
			}
			id := made.Job.ID
			hook(h.exec, true)
			h.rounds(t, 3)
			hook(h.exec, false)
			h.rounds(t, 3)
			h.state(t, id, job.Running)
			if h.exec.starts[id] != 1 {
				t.Fatalf("started %d times", h.exec.starts[id])
			}
			out := h.dir + "/jobs/" + string(id) + "/output/predictions.csv"
			if err := os.WriteFile(out, []byte("id,label\na,x\nb,z\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			h.exec.end(id, job.Report{Phase: job.PhaseExited})
			h.rounds(t, 2)
			if j := h.state(t, id, job.Succeeded); j.Scores["accuracy"] != 0.5 {
				t.Errorf("%v", j.Scores)
			}
		})
	}
}

func when(on bool, err error) error {
	if on {
		return err
	}
	return nil
}

func (h house) rounds(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := h.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func (h house) state(t *testing.T, id job.ID, want job.State) job.Job {
	t.Helper()
	j, err := h.jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if j.State != want {
		t.Fatalf("the job is %s (%s %s), want %s", j.State, j.Reason, j.Detail, want)
	}
	return j
}

// What a program leaves behind is never trusted: links and pipes are refused,
// and a job that its executor lost is called lost, and costs nothing.
func TestHostileOutputAndLoss(t *testing.T) {
	h := open(t)
	ann := h.person(t, "ann")
	for name, leave := range map[string]func(path string) error{
		"predictions_missing":      func(string) error { return nil },
		"predictions_not_a_file":   func(p string) error { return os.Symlink("/etc/passwd", p) },
		"predictions_missing_rows": func(p string) error { return os.WriteFile(p, []byte("id,label\na,x\n"), 0o600) },
	} {
		made, err := h.submit(t.Context(), ann)
		if err != nil {
			t.Fatal(err)
		}
		h.rounds(t, 2)
		if err := leave(h.dir + "/jobs/" + string(made.Job.ID) + "/output/predictions.csv"); err != nil {
			t.Fatal(err)
		}
		h.exec.end(made.Job.ID, job.Report{Phase: job.PhaseExited})
		h.rounds(t, 2)
		if j := h.state(t, made.Job.ID, job.Failed); j.Reason != name {
			t.Errorf("%s: %s", name, j.Reason)
		}
	}
	lost, err := h.submit(t.Context(), ann)
	if err != nil {
		t.Fatal(err)
	}
	h.rounds(t, 2)
	used, err := h.Quota(t.Context(), ann, "", "c")
	if err != nil {
		t.Fatal(err)
	}
	delete(h.exec.phase, lost.Job.ID)
	h.rounds(t, 2)
	h.state(t, lost.Job.ID, job.Running) // within the lease "unknown" is not final
	h.clock.Add(time.Minute)
	h.rounds(t, 2)
	if j := h.state(t, lost.Job.ID, job.Failed); j.Reason != "lost" {
		t.Errorf("%s", j.Reason)
	}
	if after, err := h.Quota(t.Context(), ann, "", "c"); err != nil || after.Competitions[0].Usage.Submissions != used.Competitions[0].Usage.Submissions-1 {
		t.Errorf("a lost job costs quota: %+v then %+v %v", used.Competitions, after.Competitions, err)
	}
}

// A stranger neither sees nor stops a job; its handle does both, and nothing else.
func TestWhoMaySeeAJob(t *testing.T) {
	h := open(t)
	ann, joe := h.person(t, "ann"), h.person(t, "joe")
	made, err := h.submit(t.Context(), ann)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Job(t.Context(), joe, made.Job.ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a stranger reads: %v", err)
	}
	if _, _, err := h.Cancel(t.Context(), joe, made.Job.ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a stranger cancels: %v", err)
	}
	handle, _, err := h.table.Authenticate(made.Handle.Presented(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Job(t.Context(), &handle, made.Job.ID); err != nil {
		t.Errorf("the handle reads: %v", err)
	}
	if _, err := h.submit(t.Context(), &handle); fault.KindOf(err) != fault.Denied {
		t.Errorf("the handle submits: %v", err)
	}
	if _, already, err := h.Cancel(t.Context(), &handle, made.Job.ID); err != nil || already != "" {
		t.Errorf("the handle cancels: %v %v", already, err)
	}
	if _, already, err := h.Cancel(t.Context(), ann, made.Job.ID); err != nil || already != job.Canceled {
		t.Errorf("cancelled twice: %v %v", already, err)
	}
}
