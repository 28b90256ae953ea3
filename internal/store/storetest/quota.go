package storetest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"gradegate/internal/audit"
	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/principal"
)

// B9: a hundred submits at once, with one token and its child, never exceed the
// budgets of the token, its owner and the platform; the strictest decides.
func budgetRace(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	user := budget.Bound{Account: "usr_ann", Level: budget.UserLevel}
	platform := budget.Bound{Account: "usr_ann", Level: "platform", Budget: budget.Budget{GPU: 9 * time.Hour, Per: budget.Day}}
	tok := budget.Bound{Account: "fam_a", Level: budget.TokenLevel, Token: "tok_via", Name: "ci", Budget: budget.Budget{GPU: 7 * time.Hour, Per: budget.Day}}
	child := budget.Bound{Account: "fam_b", Level: budget.TokenLevel, Token: "tok_child"}
	var wg sync.WaitGroup
	errs := make([]error, 100)
	for i := range errs {
		x, sub := Job("usr_ann", []string{"mnist", "cifar"}[i%2])
		q := grading.Reservation{Since: T0, GPUSeconds: 3600, Bounds: []budget.Bound{user, platform, tok}}
		if i%3 == 0 {
			q.Bounds = []budget.Bound{user, platform, child, tok}
		}
		wg.Go(func() { errs[i] = s.InsertJob(t.Context(), x, sub, q, nil, Event(audit.JobSubmit, "x")) })
	}
	wg.Wait()
	admitted := 0
	for _, err := range errs {
		if err == nil {
			admitted++
			continue
		}
		WantCode(t, err, fault.Limited, "budget_exceeded")
		if f := fault.Of(err); f.More["level"] != budget.TokenLevel || f.More["token_id"] != "tok_via" || f.More["limit"] != 7.0 || f.More["reserved"] != 7.0 || f.Fix == "" || f.RetryAfter <= 0 {
			t.Fatalf("the refusal does not say enough: %+v", f)
		}
	}
	got, err := s.Spending(t.Context(), []budget.Bound{user, platform, tok, child}, T0)
	must(t, err)
	if admitted != 7 || got[0].Reserved != 7*time.Hour || got[1].Left() != 2*time.Hour || got[2].Left() != 0 || got[3].Reserved > 7*time.Hour {
		t.Errorf("%d admitted, want 7; %+v", admitted, got)
	}
}

// modelJob is a job as the model of the quota ledger knows it.
type modelJob struct {
	job.Job
	accounts []string
	gpu      int64 // reserved, then what it came to
	counts   int   // submissions
	over     bool
}

type modelLine struct {
	Job         job.ID
	Kind        string
	Submissions int
	GPUSeconds  int64
}

// quotaModel is the quota ledger in plain Go: a list of jobs that is gone
// through from its beginning for every question.
type quotaModel struct {
	jobs  []*modelJob
	lines map[string][]modelLine // by account, oldest first
}

// taken is the GPU time that counts for an account within a stretch, and its
// jobs that are not over.
func (m *quotaModel) taken(account string, per time.Duration, now time.Time) (gpu int64, running int) {
	for _, j := range m.jobs {
		if !slices.Contains(j.accounts, account) {
			continue
		}
		if !j.over {
			running++
		}
		if !j.over || j.EndedAt.Add(per).After(now) {
			gpu += j.gpu
		}
	}
	return gpu, running
}

func (m *quotaModel) fits(bounds []budget.Bound, want int64, now time.Time) bool {
	for _, b := range bounds {
		gpu, running := m.taken(b.Account, b.Per, now)
		if b.GPU > 0 && want > 0 && gpu+want > int64(b.GPU/time.Second) || b.Jobs > 0 && running >= b.Jobs {
			return false
		}
	}
	return true
}

// B10: in random histories of several people, tokens and children, the store
// admits what the model admits, its sums are the model's, and no line that was
// there is ever another.
func quotaLedger(t *testing.T, open JobsPlace) {
	s := openedJobs(t, open)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++ // each history has people of its own
		w := &quotaWorld{rt: rt, t: t, store: s, n: n, now: T0, model: quotaModel{lines: map[string][]modelLine{}}}
		rt.Repeat(map[string]func(*rapid.T){
			"submit": w.submit, "submit 2": w.submit, "submit 3": w.submit, "start": w.start, "end": w.end, "end 2": w.end, "pass": w.pass, "": w.agree,
		})
	})
}

type quotaWorld struct {
	rt    *rapid.T
	t     *testing.T
	store JobsStore
	n     int
	now   time.Time
	model quotaModel
}

func (w *quotaWorld) account(kind string, i int) string { return fmt.Sprintf("%s_%d_%d", kind, w.n, i) }

// bounds are those of a person, of a token of theirs, and perhaps of its child.
func (w *quotaWorld) bounds(who, tok int, child bool) []budget.Bound {
	user := budget.Bound{Account: w.account("usr", who), Level: budget.UserLevel, Budget: budget.Budget{GPU: 5 * time.Hour, Per: budget.Day}}
	group := budget.Bound{Account: user.Account, Level: "group:a", Budget: budget.Budget{GPU: 9 * time.Hour, Per: 3 * budget.Day, Jobs: 4}}
	own := budget.Bound{Account: w.account("fam", 2*who+tok), Level: budget.TokenLevel, Token: "tok", Budget: budget.Budget{GPU: time.Duration(3+tok) * time.Hour, Per: budget.Day, Jobs: 3}}
	out := []budget.Bound{user, group, own}
	if child {
		out = append(out, budget.Bound{Account: w.account("child", 2*who+tok), Level: budget.TokenLevel, Token: "child"})
	}
	return out
}

func (w *quotaWorld) submit(rt *rapid.T) {
	who, tok := rapid.IntRange(0, 1).Draw(rt, "who"), rapid.IntRange(0, 1).Draw(rt, "token")
	x, sub := Job(principal.ID(w.account("usr", who)), "mnist")
	x.CreatedAt = w.now
	q := grading.Reservation{Since: w.now, GPUSeconds: int64(rapid.SampledFrom([]int{0, 1, 600, 3600, 7200, 4 * 3600}).Draw(rt, "seconds"))}
	q.Bounds = w.bounds(who, tok, rapid.Bool().Draw(rt, "child"))
	err := w.store.InsertJob(w.t.Context(), x, sub, q, nil, Event(audit.JobSubmit, "x"))
	fits := w.model.fits(q.Bounds, q.GPUSeconds, w.now)
	if fits != (err == nil) || err != nil && fault.CodeOf(err) != "budget_exceeded" {
		rt.Fatalf("the model says %v, the store %v", fits, err)
	}
	if f := fault.Of(err); err != nil && f.More["frees_at"] != nil {
		w.frees(f.More["frees_at"].(time.Time), q)
	}
	if err != nil {
		return
	}
	m := &modelJob{Job: x, gpu: q.GPUSeconds, counts: 1}
	for _, b := range q.Bounds {
		if !slices.Contains(m.accounts, b.Account) {
			m.accounts = append(m.accounts, b.Account)
		}
	}
	w.model.jobs = append(w.model.jobs, m)
	w.book(m, modelLine{x.ID, "reserve", 1, q.GPUSeconds})
}

// frees: at the instant that a refusal names, what was refused fits, if all
// that is under way has ended by then and took all that it could.
func (w *quotaWorld) frees(at time.Time, q grading.Reservation) {
	later := w.model
	later.jobs = nil
	for _, j := range w.model.jobs {
		k := *j
		if !k.over {
			k.over, k.EndedAt = true, w.now.Add(k.Resources.TimeLimit)
		}
		later.jobs = append(later.jobs, &k)
	}
	for _, b := range q.Bounds {
		if gpu, _ := later.taken(b.Account, b.Per, at); b.GPU > 0 && gpu+q.GPUSeconds <= int64(b.GPU/time.Second) {
			return // the bound that refused is one of these
		}
	}
	w.rt.Fatalf("nothing is free at %s", at)
}

func (w *quotaWorld) book(m *modelJob, l modelLine) {
	for _, a := range m.accounts {
		w.model.lines[a] = append(w.model.lines[a], l)
	}
}

func (w *quotaWorld) live(rt *rapid.T) *modelJob {
	var all []*modelJob
	for _, j := range w.model.jobs {
		if !j.over {
			all = append(all, j)
		}
	}
	if len(all) == 0 {
		rt.Skip("no job")
	}
	return rapid.SampledFrom(all).Draw(rt, "job")
}

func (w *quotaWorld) replace(m *modelJob, to job.State, settle *grading.Settlement) {
	next, err := m.To(to, "", "", w.now)
	must(w.t, err)
	e := Event(audit.JobState, "x")
	e.At = w.now
	must(w.t, w.store.ReplaceJob(w.t.Context(), m.Job, next, settle, e))
	m.Job = next
}

func (w *quotaWorld) start(rt *rapid.T) {
	if m := w.live(rt); m.State == job.Queued {
		w.replace(m, job.Dispatching, nil)
		w.replace(m, job.Running, nil)
	}
}

// end ends a job in one of the ways there are, and with what it used.
func (w *quotaWorld) end(rt *rapid.T) {
	m := w.live(rt)
	reserved := m.gpu
	used := rapid.Int64Range(0, reserved).Draw(rt, "used")
	refund := rapid.Bool().Draw(rt, "refund")
	kind, counts := "settle", 0
	if refund {
		kind, counts, m.gpu = "refund", -1, 0
	} else {
		m.gpu = used
	}
	w.replace(m, job.Failed, &grading.Settlement{GPUSeconds: used, Refund: refund, Reason: "why"})
	m.over = true
	m.counts += counts
	w.book(m, modelLine{m.ID, kind, counts, m.gpu - reserved})
}

func (w *quotaWorld) pass(rt *rapid.T) {
	w.now = w.now.Add(rapid.SampledFrom([]time.Duration{time.Microsecond, time.Hour, 7 * time.Hour, budget.Day, 2 * budget.Day}).Draw(rt, "span"))
}

// agree compares lines and sums of one account.
func (w *quotaWorld) agree(rt *rapid.T) {
	if len(w.model.lines) == 0 {
		return
	}
	account := rapid.SampledFrom(slices.Sorted(maps.Keys(w.model.lines))).Draw(rt, "account")
	got, err := w.store.QuotaLines(w.t.Context(), grading.LineFilter{Account: account, Limit: 1000})
	must(w.t, err)
	slices.Reverse(got)
	var lines []modelLine
	var sum, gpu int64
	submissions, counts := 0, 0
	for _, l := range got {
		lines = append(lines, modelLine{l.Job, l.Kind, l.Submissions, l.GPUSeconds})
		sum, submissions = sum+l.GPUSeconds, submissions+l.Submissions
	}
	if d := cmp.Diff(w.model.lines[account], lines, cmpopts.EquateEmpty()); d != "" {
		rt.Fatalf("%s: %s", account, d)
	}
	for _, j := range w.model.jobs {
		if slices.Contains(j.accounts, account) {
			gpu, counts = gpu+j.gpu, counts+j.counts
		}
	}
	if sum != gpu || submissions != counts {
		rt.Fatalf("%s: the lines come to %d s and %d submissions, the jobs to %d and %d", account, sum, submissions, gpu, counts)
	}
	for _, per := range []time.Duration{budget.Day, 3 * budget.Day} {
		b := budget.Bound{Account: account, Budget: budget.Budget{GPU: 100 * time.Hour, Per: per}}
		spent, err := w.store.Spending(w.t.Context(), []budget.Bound{b}, w.now)
		must(w.t, err)
		gpu, running := w.model.taken(account, per, w.now)
		if s := spent[0]; s.Used+s.Reserved != time.Duration(gpu)*time.Second || s.Running != running {
			rt.Fatalf("%s in %s: %+v, want %d s and %d jobs", account, per, s, gpu, running)
		}
	}
}
