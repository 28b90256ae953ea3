// Package clock is time as the rest of the program sees it: UTC, microseconds,
// never running backwards, and never leaping ahead on a word of the machine
// alone.
//
// Expiry is a security decision, so a wall clock that is set back must not
// revive anything, and one that leaps to another year must not end everybody's
// tokens or delete what they left. A Clock remembers the highest instant it
// ever gave out; the store persists that mark and hands it back at the next
// start. In between it compares the wall clock with the monotonic one, which
// nobody can set.
package clock

import (
	"sync/atomic"
	"time"
)

// Func tells the time. Every package that needs it takes one in a field.
type Func func() time.Time

const (
	// A wall clock may be this far off what has passed since it was last
	// believed, and a two-thousandth of that on top: quartz is no worse.
	leapAllowed = 10 * time.Minute
	driftShare  = 2000
	// restAllowed is how long the machine may have been off before the wall
	// clock of a start needs somebody to confirm it.
	restAllowed = 7 * 24 * time.Hour
	// askEvery is how often it is looked whether a leap has been confirmed.
	askEvery = time.Second
)

// Clock is a monotone clock over a wall clock. It is safe for concurrent use;
// Now costs a few atomic operations.
type Clock struct {
	read   func() (wall time.Time, passed time.Duration)
	sure   func() bool  // somebody vouches for the wall clock
	mark   atomic.Int64 // microseconds; the highest instant given out
	anchor atomic.Pointer[anchor]
	asked  atomic.Int64 // what had passed when sure was asked last

	resumed atomic.Bool
}

// anchor is the instant at which something had passed on the clock that nobody
// can set.
type anchor struct {
	passed time.Duration
	at     int64 // microseconds
}

// New makes a clock over wall that starts no earlier than mark, the persisted
// high-water mark (zero if it is not known yet: see Resume). The kernel says
// whether somebody keeps its clock right. A wall clock whose times carry no
// monotonic reading is believed when it goes forward.
func New(wall Func, mark time.Time) *Clock {
	start := wall()
	return NewDoubting(func() (time.Time, time.Duration) {
		now := wall()
		return now, now.Sub(start)
	}, mark, synchronised)
}

// NewDoubting is New over two clocks, the one of the wall and one that nobody
// can set, and a judge: sure says whether somebody vouches for the wall clock
// at this moment.
func NewDoubting(read func() (wall time.Time, passed time.Duration), mark time.Time, sure func() bool) *Clock {
	c := &Clock{read: read, sure: sure}
	wall, passed := read()
	c.anchor.Store(&anchor{passed, wall.UnixMicro()})
	if !mark.IsZero() {
		c.Resume(mark)
	}
	return c
}

// Resume hands the clock the persisted mark, at the start and before anything
// is decided. A wall clock that is more than a week ahead of it, and for which
// nobody vouches, is not believed: time goes on from the mark.
func (c *Clock) Resume(mark time.Time) {
	if mark.IsZero() || c.resumed.Swap(true) {
		c.Advance(mark)
		return
	}
	wall, passed := c.read()
	from := mark.UnixMicro()
	if ahead := wall.Sub(mark); ahead > 0 && (ahead <= restAllowed || c.sure()) {
		from = wall.UnixMicro()
	}
	c.anchor.Store(&anchor{passed, from})
	c.mark.Store(from)
}

// Now is the present, in UTC with microseconds, never earlier than any instant
// that was given out before.
func (c *Clock) Now() time.Time {
	now, _ := c.judge()
	for {
		mark := c.mark.Load()
		if now <= mark {
			return Micro(mark)
		}
		if c.mark.CompareAndSwap(mark, now) {
			return Micro(now)
		}
	}
}

// judge is the instant to go by, and how far the wall clock is ahead of what is
// believed of it; zero if it is believed.
func (c *Clock) judge() (now int64, ahead time.Duration) {
	wall, passed := c.read()
	a := c.anchor.Load()
	since := passed - a.passed
	now = wall.UnixMicro()
	expected := a.at + since.Microseconds()
	off := time.Duration(now-expected) * time.Microsecond
	switch allowed := leapAllowed + since/driftShare; {
	case off < -allowed:
		return expected, 0 // set back: what has passed has passed
	case off <= allowed:
		return now, 0
	}
	if asked := c.asked.Load(); passed-time.Duration(asked) >= askEvery && c.asked.CompareAndSwap(asked, int64(passed)) && c.sure() {
		c.anchor.Store(&anchor{passed, now})
		return now, 0
	}
	return expected, off
}

// Confirm believes the wall clock as it stands: an administrator has looked.
func (c *Clock) Confirm() {
	wall, passed := c.read()
	c.anchor.Store(&anchor{passed, wall.UnixMicro()})
}

// Ahead is how far the wall clock has leapt ahead of what is believed; zero if
// it is believed. As long as it is not, nothing that is irreversible may be
// done because time has passed.
func (c *Clock) Ahead() time.Duration {
	_, ahead := c.judge()
	return ahead
}

// Advance raises the mark to at least t: what another node or an older record
// proves to have passed has passed.
func (c *Clock) Advance(t time.Time) {
	want := Micros(t)
	for {
		mark := c.mark.Load()
		if want <= mark || c.mark.CompareAndSwap(mark, want) {
			return
		}
	}
}

// Behind is how far the wall clock lags behind the mark; zero when it does not.
func (c *Clock) Behind() time.Duration {
	wall, _ := c.read()
	return max(0, Micro(c.mark.Load()).Sub(wall))
}

// Wall is the machine's own clock.
func Wall() time.Time { return time.Now() }

// Micro is the instant at us microseconds since 1970, in UTC; zero stays the
// zero time, which everywhere means "not set".
func Micro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// Micros is the inverse of Micro: the form in which stores keep instants.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
