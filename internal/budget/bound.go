package budget

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/fault"
)

// The levels of budgets beside those of policies.
const (
	UserLevel  = "user"
	TokenLevel = "token"
)

// Bound is one budget that somebody has to keep to, and whose use counts.
type Bound struct {
	// Account is where use is booked: a person, or a token with its successors
	// and everything that was made from it.
	Account string
	// Level is who says so: platform, group:NAME, user or token.
	Level string
	// Token and Name are the token whose budget it is, at that level.
	Token, Name string
	// For is the name of whom it bounds, where somebody else is told of it: who
	// hands in for them.
	For     string
	Budget  // with what was granted
	Granted Budget
}

// Raise is the bound with what grants add to it.
func (b Bound) Raise(by Budget) Bound {
	b.Budget, b.Granted = b.Budget.raised(by), by
	return b
}

// Taken is what an account has taken.
type Taken struct {
	Held  []Held  // by jobs that are not over
	Spent []Spent // by jobs that ended, newest last
}

// Held is what a job may still use.
type Held struct {
	GPU  time.Duration // of all its GPUs together
	Most time.Duration // that it runs, once it is started
}

// Spent is what a job has used. It counts from its end on for as long as the
// budget's stretch: so nobody ever uses more in any such stretch, however long
// the job had waited.
type Spent struct {
	GPU time.Duration
	At  time.Time
}

// State is how much of a bound is taken.
type State struct {
	Bound
	Used, Reserved time.Duration
	Running        int // jobs that are not over
}

// State is what is taken of the bound at now.
func (b Bound) State(t Taken, now time.Time) State {
	s := State{Bound: b, Running: len(t.Held)}
	for _, h := range t.Held {
		s.Reserved += h.GPU
	}
	for _, x := range t.Spent {
		if x.At.After(now.Add(-b.stretch())) {
			s.Used += x.GPU
		}
	}
	return s
}

// stretch is what used is counted in, also where nothing is bounded.
func (b Bound) stretch() time.Duration { return max(b.Per, Day) }

// Left is the GPU time that may still be asked for.
func (s State) Left() time.Duration { return max(0, s.GPU-s.Used-s.Reserved) }

// Share is how much of the bound is taken: 1 is all of it.
func (s State) Share() (share float64) {
	if s.GPU > 0 {
		share = float64(s.Used+s.Reserved) / float64(s.GPU)
	}
	return share
}

// Frees is when so much GPU time fits again if nobody asks for more: at the
// latest, if what waits starts at once and takes all that it may. Zero: never.
func (b Bound) Frees(t Taken, want time.Duration, now time.Time) time.Time {
	if b.GPU == 0 {
		return now
	}
	all := slices.Clone(t.Spent)
	for _, h := range t.Held {
		all = append(all, Spent{h.GPU, now.Add(h.Most)})
	}
	all = slices.DeleteFunc(all, func(x Spent) bool { return x.GPU == 0 || !x.At.After(now.Add(-b.Per)) })
	slices.SortFunc(all, func(x, y Spent) int { return x.At.Compare(y.At) })
	sum := want
	for _, x := range all {
		sum += x.GPU
	}
	at := now
	for _, x := range all {
		if sum <= b.GPU {
			break
		}
		sum -= x.GPU
		at = x.At.Add(b.Per)
	}
	if sum > b.GPU {
		return time.Time{}
	}
	return at
}

// Admit refuses a job that would take more than is left.
func (b Bound) Admit(t Taken, want time.Duration, now time.Time) error {
	s := b.State(t, now)
	switch {
	case b.GPU > 0 && want > b.GPU:
		return b.refusal(fault.Denied, "%s, and one such job may take %s.", s.gpuFact(), Hours(want)).
			With("resource", "gpu_hours").With("limit", b.GPU.Hours()).With("used", s.Used.Hours()).With("reserved", s.Reserved.Hours()).With("wanted", want.Hours()).
			WithFix("%s", b.more(want-b.GPU))
	case b.GPU > 0 && want > 0 && s.Used+s.Reserved+want > b.GPU:
		at := b.Frees(t, want, now)
		return b.refusal(fault.Limited, "%s, and this job may take %s.", s.gpuFact(), Hours(want)).
			With("resource", "gpu_hours").With("limit", b.GPU.Hours()).With("used", s.Used.Hours()).With("reserved", s.Reserved.Hours()).With("wanted", want.Hours()).
			With("frees_at", at.UTC()).WithRetry(max(time.Second, at.Sub(now))).
			WithFix("Wait until %s, or less if a job takes less than it may (gradegate quota); or %s",
				at.UTC().Format("2006-01-02 15:04 MST"), b.more(s.Used+s.Reserved+want-b.GPU))
	case b.Jobs > 0 && s.Running >= b.Jobs:
		f := b.refusal(fault.Limited, "%s.", s.jobsFact()).
			With("resource", "concurrent").With("limit", b.Jobs).With("used", s.Running).With("frees_at", nil).
			WithFix("Wait for one to end (gradegate job list) or cancel one: gradegate cancel JOB")
		if b.others() {
			f = f.WithFix("%s", OneOfTheirs(b.For))
		}
		return f
	}
	return nil
}

func (b Bound) refusal(kind fault.Kind, detail string, args ...any) *fault.Error {
	f := fault.New(kind, "budget_exceeded", detail, args...).With("level", b.Level)
	if b.Level == TokenLevel {
		return f.With("budget", TokenLevel).With("token_id", b.Token)
	}
	return f.With("budget", UserLevel)
}

// more is how somebody gets a larger budget.
func (b Bound) more(missing time.Duration) string {
	if b.Level == TokenLevel {
		return "use your session (gradegate login --invite CODE) or another token of yours"
	}
	return "ask an administrator to run: gradegate quota grant " + fault.Word(cmp.Or(b.For, "USER")) + " --gpu-hours " + Hours(missing) + " --for 7d --reason WHY"
}

// Why says in one sentence where a bound comes from and what is taken of it.
func (s State) Why() string {
	switch {
	case s.GPU > 0 && s.Jobs > 0:
		return s.gpuFact() + "; " + strconv.Itoa(s.Running) + " of " + strconv.Itoa(s.Jobs) + " jobs at once."
	case s.GPU > 0:
		return s.gpuFact() + "."
	case s.Jobs > 0:
		return s.jobsFact() + "."
	}
	return ""
}

func (s State) gpuFact() string {
	reserved := ""
	if s.Reserved > 0 {
		reserved = fmt.Sprintf(", %s reserved by %d %s that %s not over", Hours(s.Reserved), s.Running, plural(s.Running == 1, "job"), isAre(s.Running))
	}
	return fmt.Sprintf("%s %s GPU %s %s: %s used%s", s.who(), Hours(s.GPU), plural(s.GPU == time.Hour, "hour"), Stretch(s.Per), Hours(s.Used), reserved)
}

func (s State) jobsFact() string {
	return fmt.Sprintf("%s %d %s at once: %d %s not over", s.who(), s.Jobs, plural(s.Jobs == 1, "job"), s.Running, isAre(s.Running))
}

// WorstCase says what can be taken at most under all of the bounds together;
// empty if that is not bounded.
func WorstCase(bounds []Bound) string {
	var all []Budget
	add := func(b Budget) {
		if b.IsZero() || slices.ContainsFunc(all, func(o Budget) bool { return o.Within(b) }) {
			return // another one says as much
		}
		all = append(slices.DeleteFunc(all, b.Within), b)
	}
	for _, b := range bounds {
		add(Budget{GPU: b.GPU, Per: b.Per})
	}
	slices.SortFunc(all, func(x, y Budget) int { return cmp.Compare(x.Per, y.Per) })
	for _, b := range bounds {
		add(Budget{Jobs: b.Jobs})
	}
	var parts []string
	for _, b := range all {
		parts = append(parts, b.String())
	}
	if len(parts) == 0 {
		return ""
	}
	return "at most " + strings.Join(parts, ", ")
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// others reports whether it bounds somebody else than who is told of it. The
// token is that of who hands in.
func (b Bound) others() bool { return b.For != "" && b.Level != TokenLevel }

// OneOfTheirs is what one does who hands in for somebody that has as many jobs
// under way as they may.
func OneOfTheirs(name string) string {
	return "Wait for one of " + name + "'s jobs to end, or let " + name + " cancel one; those that you handed in: gradegate job list --for-others"
}

func (b Bound) who() string {
	you, has := "you", "You have"
	if b.others() {
		you, has = b.For, b.For+" has"
	}
	switch b.Level {
	case TokenLevel:
		return "The token " + b.Name + " has"
	case UserLevel:
		return has
	}
	granted := ""
	if !b.Granted.IsZero() {
		granted = ", with what was granted to " + you + ","
	}
	of := b.Level
	if of == "platform" {
		of = "the platform"
	}
	return "The policy of " + of + granted + " allows " + you
}
