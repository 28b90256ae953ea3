package budget_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gradegate/internal/budget"
	"gradegate/internal/fault"
)

var t0 = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func hours(n float64) time.Duration { return time.Duration(n * float64(time.Hour)) }

func drawn(t *rapid.T, name string) budget.Budget {
	b := budget.Budget{Jobs: rapid.IntRange(0, 3).Draw(t, name+" jobs")}
	if rapid.Bool().Draw(t, name+" gpu") {
		b.GPU, b.Per = hours(float64(rapid.IntRange(1, 20).Draw(t, name+" hours"))), budget.Day*time.Duration(rapid.IntRange(1, 5).Draw(t, name+" days"))
	}
	return b
}

// B9: a budget within another never allows what the other refuses, whatever was
// taken before. So a narrowed token can do nothing that it could not.
func TestWithin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawn(t, "a"), drawn(t, "b")
		if !a.Within(a) || !a.Or(b).Within(budget.Budget{}) {
			t.Fatal("a budget is within itself and within none")
		}
		if !a.Within(b) {
			return
		}
		var taken budget.Taken
		for range rapid.IntRange(0, 6).Draw(t, "spent") {
			taken.Spent = append(taken.Spent, budget.Spent{GPU: hours(float64(rapid.IntRange(0, 9).Draw(t, "gpu"))), At: t0.Add(-hours(float64(rapid.IntRange(0, 150).Draw(t, "ago"))))})
		}
		for range rapid.IntRange(0, 3).Draw(t, "held") {
			taken.Held = append(taken.Held, budget.Held{GPU: hours(1), Most: hours(1)})
		}
		want := hours(float64(rapid.IntRange(0, 9).Draw(t, "want")))
		tight, wide := budget.Bound{Budget: a}.Admit(taken, want, t0), budget.Bound{Budget: b}.Admit(taken, want, t0)
		if tight == nil && wide != nil {
			t.Fatalf("%v allows what %v refuses: %v", a, b, wide)
		}
	})
}

// However long jobs wait in the queue, in no stretch of its length is more used
// than a budget says: what is said at the creation of a token is the worst case.
func TestWorstCaseHolds(t *testing.T) {
	type run struct{ from, to time.Time }
	rapid.Check(t, func(t *rapid.T) {
		b := budget.Bound{Budget: budget.Budget{GPU: hours(4), Per: budget.Day}}
		var taken budget.Taken
		var waiting []time.Duration
		var runs []run
		now := t0
		for range 40 {
			want := hours(float64(rapid.IntRange(1, 4).Draw(t, "want")))
			if b.Admit(taken, want, now) == nil {
				taken.Held = append(taken.Held, budget.Held{GPU: want, Most: want})
				waiting = append(waiting, want)
			}
			if len(waiting) > 0 && rapid.Bool().Draw(t, "run one") { // the others go on waiting
				used := time.Duration(rapid.Int64Range(0, int64(waiting[0])).Draw(t, "used"))
				runs = append(runs, run{now, now.Add(used)})
				now = now.Add(used)
				taken.Held, waiting = taken.Held[1:], waiting[1:]
				taken.Spent = append(taken.Spent, budget.Spent{GPU: used, At: now})
			}
			now = now.Add(hours(float64(rapid.IntRange(0, 20).Draw(t, "pass"))))
		}
		for _, end := range runs {
			var sum time.Duration
			for _, r := range runs {
				from := end.to.Add(-b.Per)
				if r.from.After(from) {
					from = r.from
				}
				if r.to.After(from) && !r.to.After(end.to) {
					sum += r.to.Sub(from)
				}
			}
			if sum > b.GPU {
				t.Fatalf("%s were used in the %s before %s", sum, b.Per, end.to)
			}
		}
	})
}

// A refusal says what is used, reserved and missing, and when it fits; what
// never fits is no matter of waiting.
func TestAdmit(t *testing.T) {
	b := budget.Bound{Level: "group:interns", Budget: budget.Budget{GPU: hours(8), Per: budget.Day, Jobs: 3}}
	taken := budget.Taken{
		Spent: []budget.Spent{{hours(2), t0.Add(-hours(20))}, {hours(3), t0.Add(-hours(1))}, {hours(9), t0.Add(-hours(24))}},
		Held:  []budget.Held{{GPU: hours(1), Most: hours(1)}},
	}
	if err := b.Admit(taken, hours(2), t0); err != nil {
		t.Error(err)
	}
	f := fault.Of(b.Admit(taken, hours(3), t0))
	if f.Kind != fault.Limited || f.RetryAfter != hours(4) || !f.More["frees_at"].(time.Time).Equal(t0.Add(hours(4))) ||
		f.Detail != "The policy of group:interns allows you 8 GPU hours a day: 5 used, 1 reserved by 1 job that is not over, and this job may take 3." {
		t.Errorf("%+v", f)
	}
	if f := fault.Of(b.Admit(taken, hours(9), t0)); f.Kind != fault.Denied || f.RetryAfter != 0 || !strings.Contains(f.Fix, "--gpu-hours 1 ") {
		t.Errorf("%+v", f)
	}
	taken.Held = make([]budget.Held, 3)
	if f := fault.Of(b.Admit(taken, 0, t0)); f.Kind != fault.Limited || f.More["resource"] != "concurrent" {
		t.Errorf("%+v", f)
	}
	if at := b.Frees(taken, hours(8), t0); !at.Equal(t0.Add(hours(23))) {
		t.Errorf("all is free at %s", at)
	}
}

func TestWords(t *testing.T) {
	for want, b := range map[string]budget.Budget{
		"8 GPU hours a day, 2 jobs at once": {GPU: hours(8), Per: budget.Day, Jobs: 2}, "0.5 GPU hours in any 7 days": {GPU: hours(0.5), Per: 7 * budget.Day},
		"1 GPU hour a day": {GPU: hours(1), Per: budget.Day}, "1 job at once": {Jobs: 1}, "": {}, "0.01 GPU hours a day": {GPU: time.Second, Per: budget.Day},
	} {
		if got := b.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if err := b.Check(); err != nil {
			t.Errorf("%v: %v", b, err)
		}
	}
	for _, b := range []budget.Budget{{GPU: -1, Per: budget.Day}, {GPU: hours(1)}, {Per: budget.Day}, {GPU: hours(1), Per: hours(30)}, {GPU: hours(1), Per: 32 * budget.Day}, {Jobs: -1}, {GPU: 1, Per: budget.Day}} {
		if fault.CodeOf(b.Check()) != "budget_invalid" {
			t.Errorf("%+v is taken", b)
		}
	}
}

func TestWorstCase(t *testing.T) {
	day, week, jobs := budget.Budget{GPU: hours(4), Per: budget.Day}, budget.Budget{GPU: hours(20), Per: 7 * budget.Day, Jobs: 3}, budget.Budget{Jobs: 2}
	for want, list := range map[string][]budget.Budget{
		"":                          {{}, {}},
		"at most 4 GPU hours a day": {{}, {GPU: hours(8), Per: budget.Day}, day, {GPU: hours(5), Per: budget.Day}},
		"at most 4 GPU hours a day, 20 GPU hours in any 7 days, 2 jobs at once": {week, day, jobs, {Jobs: 2}},
	} {
		var bounds []budget.Bound
		for _, b := range list {
			bounds = append(bounds, budget.Bound{Budget: b})
		}
		if got := budget.WorstCase(bounds); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
