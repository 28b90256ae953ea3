package job_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

var states = []job.State{job.Queued, job.Dispatching, job.Running, job.Grading, job.Canceling, job.Canceled, job.Succeeded, job.Failed}

// TestEveryJobCanEnd goes through the states as a graph: none is out of reach,
// nothing follows a final one, and from every other one an end can be reached.
func TestEveryJobCanEnd(t *testing.T) {
	reached := map[job.State]bool{job.Queued: true}
	ends := map[job.State]bool{}
	for range states {
		for _, from := range states {
			ends[from] = ends[from] || from.Final()
			for _, to := range states {
				if from.Can(to) {
					reached[to] = reached[to] || reached[from]
					ends[from] = ends[from] || ends[to]
				}
			}
		}
	}
	for _, s := range states {
		if !s.Valid() || !reached[s] || !ends[s] {
			t.Errorf("%s: valid %v, reached %v, ends %v", s, s.Valid(), reached[s], ends[s])
		}
		if s.Final() && slices.ContainsFunc(states, s.Can) {
			t.Errorf("%s is final, and something follows it", s)
		}
	}
	if job.State("paused").Valid() || job.State("").Valid() {
		t.Error("a word that is no state is valid")
	}
}

// TestWalk takes random steps: a refused one changes nothing, each other one is
// the next version, a start is noted once and an end with the state that it is.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
		j := job.Job{ID: "job_1", Version: 1, State: job.Queued}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			now = now.Add(time.Minute)
			before := j
			if rapid.IntRange(0, 4).Draw(rt, "kind") == 0 {
				j = canceled(rt, j, now)
				continue
			}
			to := rapid.SampledFrom(states).Draw(rt, "to")
			next, err := j.To(to, "owner", "Because.", now)
			if (err == nil) != before.State.Can(to) {
				rt.Fatalf("%s to %s: %v", before.State, to, err)
			}
			if err != nil {
				if !reflect.DeepEqual(next, before) || fault.KindOf(err) != fault.Conflict {
					rt.Fatalf("a refused step left %+v, %v", next, err)
				}
				continue
			}
			if j = next; j.State != to || j.Version != before.Version+1 || j.Reason != "owner" || j.Detail != "Because." {
				rt.Fatalf("%+v after %+v", j, before)
			}
			if !before.StartedAt.IsZero() && !j.StartedAt.Equal(before.StartedAt) || to == job.Running && j.StartedAt.IsZero() {
				rt.Fatalf("started %s, before %s", j.StartedAt, before.StartedAt)
			}
			if j.State.Final() != j.EndedAt.Equal(now) {
				rt.Fatalf("%s ended at %s", j.State, j.EndedAt)
			}
		}
	})
}

// canceled checks what a cancel does to any job: it is on its way to its end,
// and a second cancel changes nothing.
func canceled(rt *rapid.T, j job.Job, now time.Time) job.Job {
	c, changed, err := j.Cancel("owner", now)
	if err != nil {
		rt.Fatalf("%s could not be canceled: %v", j.State, err)
	}
	if !c.State.Final() && c.State != job.Canceling {
		rt.Fatalf("%s after a cancel of %s", c.State, j.State)
	}
	if j.State == job.Queued && c.State != job.Canceled {
		rt.Fatal("a job that never started waits for an executor's word")
	}
	if changed == reflect.DeepEqual(c, j) {
		rt.Fatalf("changed %v, from %+v to %+v", changed, j, c)
	}
	again, changed, err := c.Cancel("admin", now.Add(time.Hour))
	if changed || err != nil || !reflect.DeepEqual(again, c) {
		rt.Fatalf("the second cancel: %v, %v, %+v", changed, err, again)
	}
	return c
}

// TestWhatIsCharged: never more than was reserved, never less for more time, a
// second that was begun counts, and a clock set back costs nothing.
func TestWhatIsCharged(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		j := job.Job{Resources: job.Resources{
			GPUs:      rapid.IntRange(0, 16).Draw(rt, "gpus"),
			TimeLimit: time.Duration(rapid.Int64Range(1, int64(48*time.Hour)).Draw(rt, "limit")),
		}}
		from := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
		ran := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(72*time.Hour)).Draw(rt, "ran"))
		more := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "more"))
		n := j.Ran(from, from.Add(ran)).GPUSeconds
		switch limit := j.Resources.GPUTime().Seconds() + float64(j.Resources.GPUs); {
		case n < 0 || float64(n) >= limit && n > 0:
			rt.Fatalf("%d GPU seconds for %s of at most %s on %d", n, ran, j.Resources.TimeLimit, j.Resources.GPUs)
		case n > j.Ran(from, from.Add(ran+more)).GPUSeconds:
			rt.Fatal("more time cost less")
		case ran <= 0 && n != 0:
			rt.Fatalf("%d GPU seconds of a clock set back", n)
		case ran > 0 && j.Resources.GPUs > 0 && n < int64(j.Resources.GPUs):
			rt.Fatal("a second that was begun cost nothing")
		}
		if j.Ran(time.Time{}, from).GPUSeconds != 0 {
			rt.Fatal("a job that never ran cost something")
		}
	})
}

// TestLeak: each of the two secrets ends for itself, once.
func TestLeak(t *testing.T) {
	j := job.Job{Version: 3}
	handle, changed := j.Leak(token.JobKind)
	if !changed || !handle.HandleLeaked || handle.RunLeaked || handle.Version != 4 {
		t.Fatalf("%+v", handle)
	}
	if again, changed := handle.Leak(token.JobKind); changed || !reflect.DeepEqual(again, handle) {
		t.Fatalf("a second report changed %+v", again)
	}
	if both, changed := handle.Leak(token.Run); !changed || !both.RunLeaked || both.Version != 5 {
		t.Fatalf("%+v", both)
	}
	if _, changed := j.Leak(token.Personal); changed {
		t.Fatal("a job ended somebody's token")
	}
}
