// Package budget is the arithmetic of what may be used of the cluster: so much
// GPU time in any stretch of some days, and so many jobs at once. It knows
// accounts by name, and neither people nor tokens.
package budget

import (
	"math"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/fault"
)

// Day is the shortest stretch of time that a budget is about.
const Day = 24 * time.Hour

// Budget is the most that may be taken. A zero member is no bound.
type Budget struct {
	// GPU is the time of all GPUs together, in any stretch of Per: the window
	// rolls, so that nothing is to be gained by waiting for midnight.
	GPU, Per time.Duration
	Jobs     int // that are not over
}

// Nothing is the tightest there is: what stands for a budget that cannot be read.
var Nothing = Budget{GPU: 1, Per: mostDays * Day, Jobs: 1}

const (
	mostDays  = 31
	mostHours = 1_000_000
	mostJobs  = 100_000
)

// IsZero reports whether nothing is bounded.
func (b Budget) IsZero() bool { return b == Budget{} }

// Check refuses a budget that makes no sense.
func (b Budget) Check() error {
	bad := func(detail string, args ...any) error {
		return fault.New(fault.Invalid, "budget_invalid", detail, args...).WithFix("Use for example --gpu-hours 8 --per 1d --concurrent 2")
	}
	switch {
	case b.GPU < 0 || b.GPU > 0 && b.GPU < time.Second || b.GPU > mostHours*time.Hour:
		return bad("A budget has up to %d GPU hours, and more than none: a token that may not submit lacks the scope jobs:submit.", mostHours)
	case b.Jobs < 0 || b.Jobs > mostJobs:
		return bad("A budget has between 1 and %d jobs at once.", mostJobs)
	case b.GPU == 0 && b.Per != 0:
		return bad("A stretch of time is said, and no GPU hours.")
	case b.GPU > 0 && (b.Per < Day || b.Per > mostDays*Day || b.Per%Day != 0):
		return bad("GPU hours are those of 1 to %d whole days.", mostDays)
	}
	return nil
}

// Within reports whether whoever keeps to b keeps to o. Less in a longer stretch
// is less in every shorter one.
func (b Budget) Within(o Budget) bool {
	gpu := o.GPU == 0 || b.GPU > 0 && b.GPU <= o.GPU && b.Per >= o.Per
	jobs := o.Jobs == 0 || b.Jobs > 0 && b.Jobs <= o.Jobs
	return gpu && jobs
}

// Or is b where it says something, and o elsewhere.
func (b Budget) Or(o Budget) Budget {
	if b.GPU == 0 {
		b.GPU, b.Per = o.GPU, o.Per
	}
	if b.Jobs == 0 {
		b.Jobs = o.Jobs
	}
	return b
}

// raised is b with what grants add. They bound nothing by themselves.
func (b Budget) raised(by Budget) Budget {
	if b.GPU > 0 {
		b.GPU += by.GPU
	}
	if b.Jobs > 0 {
		b.Jobs += by.Jobs
	}
	return b
}

// String says what may be taken at most, as "8 GPU hours a day, 2 jobs at once".
func (b Budget) String() string {
	var parts []string
	if b.GPU > 0 {
		parts = append(parts, Hours(b.GPU)+" GPU "+plural(b.GPU == time.Hour, "hour")+" "+Stretch(b.Per))
	}
	if b.Jobs > 0 {
		parts = append(parts, strconv.Itoa(b.Jobs)+" "+plural(b.Jobs == 1, "job")+" at once")
	}
	return strings.Join(parts, ", ")
}

// Stretch says in which time: "a day", or "in any 7 days".
func Stretch(per time.Duration) string {
	if per <= Day {
		return "a day"
	}
	return "in any " + strconv.Itoa(int(per/Day)) + " days"
}

// Hours is GPU time in hours, with what matters behind the point, rounded up:
// what was used never looks like nothing.
func Hours(d time.Duration) string {
	return strconv.FormatFloat(math.Ceil(max(0, d.Hours()*100-1e-6))/100, 'f', -1, 64)
}

func plural(one bool, word string) string {
	if one {
		return word
	}
	return word + "s"
}

// Grant raises what bounds a person, until it ends.
type Grant struct {
	ID     string
	GPU    time.Duration
	Jobs   int
	At     time.Time
	Until  time.Time
	Reason string
	By     string // who gave it
}

// String says how much more it is.
func (g Grant) String() string {
	var parts []string
	if g.GPU > 0 {
		parts = append(parts, Hours(g.GPU)+" GPU "+plural(g.GPU == time.Hour, "hour"))
	}
	if g.Jobs > 0 {
		parts = append(parts, strconv.Itoa(g.Jobs)+" "+plural(g.Jobs == 1, "job")+" at once")
	}
	return strings.Join(parts, ", ") + " more"
}

// Granted is what the grants add up to at now: whether one has ended is for the
// clock to say, and not for a sweeper.
func Granted(grants []Grant, now time.Time) (sum Budget) {
	for _, g := range Standing(grants, now) {
		sum.GPU += g.GPU
		sum.Jobs += g.Jobs
	}
	return sum
}

// Standing are the grants that have not ended at now.
func Standing(grants []Grant, now time.Time) (out []Grant) {
	for _, g := range grants {
		if now.Before(g.Until) {
			out = append(out, g)
		}
	}
	return out
}
