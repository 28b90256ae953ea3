package storetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// JobsStore is what the suite asks of a jobs database.
type JobsStore interface {
	grading.Store
	Handles(context.Context, func(authn.Handle) error) error
	FollowHandles(func(authn.Handle))
	FollowCompetitions(func(grading.Competition))
	PendingEvents(ctx context.Context, limit int) ([]audit.Event, error)
	EventsWritten(ctx context.Context, ids []string) error
	Wake() <-chan struct{}
	Close() error
}

// JobsPlace opens the same database each time it is called.
type JobsPlace func() JobsStore

// RunJobs runs the suite; fresh makes a place with nothing in it, whose clock
// stands at T0.
func RunJobs(t *testing.T, fresh func(t *testing.T) JobsPlace) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, open JobsPlace)
	}{
		{"jobs come back whole", wholeJobs},
		{"competitions", competitions},
		{"absent things are NotFound", absentJobs},
		{"a version decides a race between jobs", jobVersions},
		{"pages", jobPages},
		{"live jobs, oldest first", liveJobs},
		{"the leaderboard", leaderboard},
		{"quota of submissions", quotaSubmissions},
		{"quota of concurrent jobs", quotaConcurrent},
		{"quotas hold under a race", quotaRace},
		{"settlement", settlement},
		{"budgets hold under a race", budgetRace},
		{"the quota ledger against a plain model", quotaLedger},
		{"job replies", jobReplies},
		{"followers learn of handles", jobHandles},
		{"job events wait for the trail", jobOutbox},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, fresh(t))
		})
	}
}

func openedJobs(t *testing.T, open JobsPlace) JobsStore {
	t.Helper()
	s := open()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Job is a new queued job of the owner and what was submitted.
func Job(owner principal.ID, competition string) (job.Job, grading.Submission) {
	n := counter.Add(1)
	at := T0.Add(time.Duration(n) * time.Microsecond)
	sub := grading.Submission{
		ID: fmt.Sprintf("sub_%026d", n), Owner: owner, Competition: competition, Digest: fmt.Sprintf("%064d", n), Size: 1 << 33,
		Name: "code.zip", Kind: "program", Entry: "main.py", CreatedAt: at,
	}
	j := job.Job{
		ID: job.ID(fmt.Sprintf("job_%026d", n)), Version: 1, Owner: owner, Competition: competition, Submission: sub.ID,
		Via: "tok_via", Person: 3, State: job.Queued, CreatedAt: at,
		Resources: job.Resources{GPUs: 1, CPUs: 4, MemoryBytes: 1 << 34, TimeLimit: time.Hour},
		Handle:    secret("h", n), Run: secret("r", n),
	}
	return j, sub
}

func secret(kind string, n int64) (h token.Handle) {
	copy(h.Public[:], fmt.Sprintf("%s%011d", kind, n))
	h.Digest.Sum = sha256.Sum256(h.Public[:])
	return h
}

func insert(t *testing.T, s grading.Store, j job.Job, sub grading.Submission) {
	t.Helper()
	must(t, s.InsertJob(t.Context(), j, sub, grading.Reservation{Since: T0}, nil, Event(audit.JobSubmit, string(j.ID))))
}

// step moves a job on through the states.
func step(t *testing.T, s grading.Store, j job.Job, settle *grading.Settlement, to ...job.State) job.Job {
	t.Helper()
	for _, st := range to {
		next, err := j.To(st, "", "", T0.Add(time.Minute))
		must(t, err)
		var with *grading.Settlement
		if st.Final() {
			with = settle
			if st == job.Succeeded {
				next.Scores = j.Scores
			}
		}
		must(t, s.ReplaceJob(t.Context(), j, next, with, Event(audit.JobState, string(j.ID))))
		j = next
	}
	return j
}

func wholeJobs(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	j, sub := Job("usr_ann", "mnist")
	j.Submitter, j.SubmitterEpoch, j.Consent = "usr_bob", 3, "cns_1"
	j.SubmittedBy, j.Labels = "Bob <b@x>", map[string]string{"team": "a", "x": "<&>"}
	j.Reason, j.Detail, j.Isolation, j.GPUs, j.ExitCode = "why", "A sentence.", "bwrap", []string{"0", "3"}, -1
	j.LeaseUntil, j.LeaseBy, j.Attempts = T0.Add(time.Minute), "node-1", 2
	j.Args, j.HandleLeaked, j.RunLeaked = []string{"--fast", ""}, true, true
	j.StartedAt, j.EndedAt, j.Scores = T0.Add(time.Second), T0.Add(2*time.Second), map[string]float64{"acc": 0.1 + 0.2, "loss": -1e-300}
	j.GPUSeconds = 7
	j.Resources.OutputBytes, j.Resources.LogBytes, j.Resources.Processes = 1, 2, 3
	allSet(t, j)
	allSet(t, sub)
	insert(t, s, j, sub)
	bare, bareSub := job.Job{ID: "job_bare", State: job.Queued, Submission: "sub_bare"}, grading.Submission{ID: "sub_bare"}
	insert(t, s, bare, bareSub)
	must(t, s.Close())
	s = openedJobs(t, open)
	for _, want := range []job.Job{j, bare} {
		got, err := s.Job(t.Context(), want.ID)
		must(t, err)
		if d := cmp.Diff(want, got, Same); d != "" {
			t.Error(d)
		}
	}
	for _, want := range []grading.Submission{sub, bareSub} {
		got, err := s.Submission(t.Context(), want.ID)
		must(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}

func absentJobs(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	_, err := s.Job(t.Context(), "job_none")
	WantCode(t, err, fault.NotFound, "job_not_found")
	_, err = s.Submission(t.Context(), "sub_none")
	WantCode(t, err, fault.NotFound, "submission_not_found")
	_, err = s.Competition(t.Context(), "none")
	WantCode(t, err, fault.NotFound, "competition_not_found")
	_, err = s.JobReply(t.Context(), [32]byte{1}, T0)
	WantCode(t, err, fault.NotFound, "reply_not_found")
	u, err := s.Usage(t.Context(), "usr_none", "none", T0)
	if err != nil || u != (grading.Usage{}) {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func jobVersions(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	j, sub := Job("usr_ann", "mnist")
	insert(t, s, j, sub)
	err := s.InsertJob(t.Context(), j, sub, grading.Reservation{}, nil, Event(audit.JobSubmit, "x"))
	WantCode(t, err, fault.Conflict, "id_taken")
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		next, _ := j.To(job.Dispatching, "", "", T0)
		next.LeaseBy = fmt.Sprint("node-", i)
		wg.Go(func() { errs[i] = s.ReplaceJob(t.Context(), j, next, nil, Event(audit.JobState, "x")) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		WantCode(t, err, fault.Conflict, "version_moved")
	}
	if won != 1 {
		t.Errorf("%d claims won, want 1", won)
	}
}

func jobPages(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	var ann []job.ID
	for i := range 9 {
		owner := principal.ID("usr_ann")
		if i%3 == 2 {
			owner = "usr_bob"
		}
		j, sub := Job(owner, []string{"mnist", "cifar"}[i%2])
		insert(t, s, j, sub)
		if owner == "usr_ann" {
			ann = append([]job.ID{j.ID}, ann...)
		}
		if i == 0 {
			step(t, s, j, nil, job.Canceled)
		}
	}
	var got []job.ID
	f := grading.Filter{Owner: "usr_ann", Limit: 2}
	for {
		page, err := s.Jobs(t.Context(), f)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, j := range page {
			got = append(got, j.ID)
		}
		f.Before = got[len(got)-1]
	}
	if d := cmp.Diff(ann, got); d != "" {
		t.Error(d)
	}
	for f, want := range map[grading.Filter]int{
		{}: 9, {Competition: "mnist"}: 5, {Owner: "usr_bob", Competition: "cifar"}: 1, {State: job.Canceled}: 1,
		{Owner: "usr_ann", State: job.Queued}: 5, {Limit: 4}: 4,
	} {
		list, err := s.Jobs(t.Context(), f)
		if err != nil || len(list) != want {
			t.Errorf("%+v: %d jobs, %v, want %d", f, len(list), err, want)
		}
	}
}

func liveJobs(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	var want []job.ID
	for i := range 4 {
		j, sub := Job("usr_ann", "mnist")
		insert(t, s, j, sub)
		if i == 1 {
			step(t, s, j, nil, job.Dispatching, job.Failed)
			continue
		}
		want = append(want, j.ID)
	}
	list, err := s.LiveJobs(t.Context())
	must(t, err)
	var got []job.ID
	for _, j := range list {
		got = append(got, j.ID)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func leaderboard(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	grade := func(owner principal.ID, competition string, acc float64) job.ID {
		j, sub := Job(owner, competition)
		insert(t, s, j, sub)
		j.Scores = map[string]float64{"acc": acc, "loss": 1 - acc}
		return step(t, s, j, nil, job.Dispatching, job.Running, job.Grading, job.Succeeded).ID
	}
	grade("usr_ann", "mnist", 0.5)
	annBest := grade("usr_ann", "mnist", 0.9)
	grade("usr_ann", "mnist", 0.9) // as good, but later
	bob := grade("usr_bob", "mnist", 0.7)
	grade("usr_eve", "other", 1)
	j, sub := Job("usr_ann", "mnist")
	insert(t, s, j, sub)
	step(t, s, j, nil, job.Dispatching, job.Failed)
	check := func(metric string, higher bool, limit int, want ...job.ID) {
		t.Helper()
		board, err := s.Best(t.Context(), "mnist", metric, higher, limit)
		must(t, err)
		var got []job.ID
		for _, st := range board {
			got = append(got, st.Job.ID)
			if st.Job.Owner != st.Owner || st.Job.Scores[metric] != st.Value {
				t.Errorf("standing %+v does not fit its job", st)
			}
			if st.Owner == "usr_ann" && st.Count != 3 {
				t.Errorf("ann has %d graded submissions, want 3", st.Count)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(metric, d)
		}
	}
	check("acc", true, 10, annBest, bob)
	check("acc", true, 1, annBest)
	check("loss", false, 0, annBest, bob)
	check("nothing", true, 10)
}

func quotaSubmissions(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	try := func(owner principal.ID, competition string, since time.Time) error {
		j, sub := Job(owner, competition)
		return s.InsertJob(t.Context(), j, sub, grading.Reservation{Since: since, PerDay: 2}, nil, Event(audit.JobSubmit, "x"))
	}
	must(t, try("usr_ann", "mnist", T0))
	must(t, try("usr_ann", "mnist", T0))
	err := try("usr_ann", "mnist", T0)
	WantCode(t, err, fault.Limited, "quota_exceeded")
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.More["limit"] != 2 || f.More["used"] != 2 || f.More["frees_at"] != T0.Add(24*time.Hour) || f.Fix == "" || f.RetryAfter <= 0 {
		t.Errorf("the refusal does not say enough: %+v", f)
	}
	list, err := s.Jobs(t.Context(), grading.Filter{})
	if err != nil || len(list) != 2 {
		t.Errorf("%d jobs, %v: a refused one left traces", len(list), err)
	}
	must(t, try("usr_bob", "mnist", T0))
	must(t, try("usr_ann", "cifar", T0))
	must(t, try("usr_ann", "mnist", T0.Add(time.Hour))) // the next window
}

func quotaConcurrent(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	try := func() (job.Job, error) {
		j, sub := Job("usr_ann", "mnist")
		return j, s.InsertJob(t.Context(), j, sub, grading.Reservation{Since: T0, Concurrent: 1}, nil, Event(audit.JobSubmit, "x"))
	}
	j, err := try()
	must(t, err)
	_, err = try()
	WantCode(t, err, fault.Limited, "quota_exceeded")
	j = step(t, s, j, nil, job.Dispatching, job.Running)
	_, err = try()
	WantCode(t, err, fault.Limited, "quota_exceeded")
	step(t, s, j, nil, job.Failed)
	if _, err = try(); err != nil {
		t.Error(err)
	}
}

func quotaRace(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	const racers = 30
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		j, sub := Job("usr_ann", "mnist")
		wg.Go(func() {
			errs[i] = s.InsertJob(t.Context(), j, sub, grading.Reservation{Since: T0, PerDay: 5, Concurrent: 5}, nil, Event(audit.JobSubmit, "x"))
		})
	}
	wg.Wait()
	admitted := 0
	for _, err := range errs {
		if err == nil {
			admitted++
			continue
		}
		WantCode(t, err, fault.Limited, "quota_exceeded")
	}
	if admitted != 5 {
		t.Errorf("%d admitted, want 5", admitted)
	}
}

func settlement(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	usage := func() grading.Usage {
		u, err := s.Usage(t.Context(), "usr_ann", "mnist", T0)
		must(t, err)
		return u
	}
	admit := func() job.Job {
		j, sub := Job("usr_ann", "mnist")
		must(t, s.InsertJob(t.Context(), j, sub, grading.Reservation{Since: T0, GPUSeconds: 3600}, nil, Event(audit.JobSubmit, "x")))
		return j
	}
	a, b, c := admit(), admit(), admit()
	check := func(want grading.Usage) {
		t.Helper()
		if got := usage(); got != want {
			t.Errorf("usage %+v, want %+v", got, want)
		}
	}
	check(grading.Usage{Submissions: 3, Concurrent: 3, GPUSeconds: 3 * 3600})
	step(t, s, a, &grading.Settlement{GPUSeconds: 100}, job.Dispatching, job.Running, job.Grading, job.Failed)
	check(grading.Usage{Submissions: 3, Concurrent: 2, GPUSeconds: 100 + 2*3600})
	step(t, s, b, &grading.Settlement{Refund: true}, job.Dispatching, job.Failed)
	check(grading.Usage{Submissions: 2, Concurrent: 1, GPUSeconds: 100 + 3600})
	step(t, s, c, nil, job.Canceled)
	check(grading.Usage{Submissions: 2, Concurrent: 0, GPUSeconds: 100 + 3600})
}

func jobReplies(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	j, sub := Job("usr_ann", "mnist")
	r := &grading.JobReply{Key: [32]byte{1}, Request: [32]byte{2}, Job: j.ID, Sealed: []byte("sealed"), Until: T0.Add(10 * time.Minute)}
	must(t, s.InsertJob(t.Context(), j, sub, grading.Reservation{}, r, Event(audit.JobSubmit, "x")))
	got, err := s.JobReply(t.Context(), r.Key, T0)
	must(t, err)
	if d := cmp.Diff(*r, got); d != "" {
		t.Error(d)
	}
	again, againSub := Job("usr_ann", "mnist")
	err = s.InsertJob(t.Context(), again, againSub, grading.Reservation{}, r, Event(audit.JobSubmit, "x"))
	WantCode(t, err, fault.Conflict, "reply_exists")
	if _, err := s.Job(t.Context(), again.ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("the repeated request made a job: %v", err)
	}
	_, err = s.JobReply(t.Context(), r.Key, T0.Add(10*time.Minute))
	WantCode(t, err, fault.NotFound, "reply_not_found")
}

func jobHandles(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	var mu sync.Mutex
	told := map[token.PublicID]authn.Handle{}
	s.FollowHandles(func(h authn.Handle) {
		mu.Lock()
		defer mu.Unlock()
		told[h.Public] = h
	})
	j, sub := Job("usr_ann", "mnist")
	insert(t, s, j, sub)
	live := authn.Handle{Handle: j.Handle, Kind: token.JobKind, Job: string(j.ID), Owner: j.Owner, Via: j.Via, Person: j.Person}
	run := live
	run.Handle, run.Kind = j.Run, token.Run
	check := func(h, r authn.Handle) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		want := map[token.PublicID]authn.Handle{h.Public: h, r.Public: r}
		if d := cmp.Diff(want, told); d != "" {
			t.Error("told:", d)
		}
		stored := map[token.PublicID]authn.Handle{}
		must(t, s.Handles(t.Context(), func(h authn.Handle) error { stored[h.Public] = h; return nil }))
		if d := cmp.Diff(want, stored); d != "" {
			t.Error("stored:", d)
		}
	}
	check(live, run)
	ended := step(t, s, j, nil, job.Dispatching, job.Failed)
	live.Until, run.Until = ended.EndedAt.Add(job.HandleLife), ended.EndedAt
	check(live, run)
}

func jobOutbox(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	j, sub := Job("usr_ann", "mnist")
	e := Event(audit.JobSubmit, string(j.ID))
	must(t, s.InsertJob(t.Context(), j, sub, grading.Reservation{}, nil, e))
	<-s.Wake()
	must(t, s.Close())
	s = openedJobs(t, open)
	got, err := s.PendingEvents(t.Context(), 10)
	must(t, err)
	if d := cmp.Diff([]audit.Event{e}, got); d != "" {
		t.Error(d)
	}
	must(t, s.EventsWritten(t.Context(), []string{e.ID}))
	if got, err = s.PendingEvents(t.Context(), 10); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}
