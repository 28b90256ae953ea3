// Package clock is time as the rest of the program sees it: UTC, microseconds,
// and never running backwards.
//
// Expiry is a security decision, so a wall clock that is set back must not
// revive anything. A Clock remembers the highest instant it ever gave out; the
// store persists that mark and hands it back at the next start.
package clock

import (
	"sync/atomic"
	"time"
)

// Func tells the time. Every package that needs it takes one in a field.
type Func func() time.Time

// Clock is a monotone clock over a wall clock. It is safe for concurrent use;
// Now costs one atomic operation.
type Clock struct {
	wall Func
	mark atomic.Int64 // microseconds; the highest instant given out
}

// New makes a clock over wall that starts no earlier than mark, the persisted
// high-water mark (zero if there is none).
func New(wall Func, mark time.Time) *Clock {
	c := &Clock{wall: wall}
	if !mark.IsZero() {
		c.mark.Store(mark.UnixMicro())
	}
	return c
}

// Now is the present, in UTC with microseconds, never earlier than any instant
// that was given out before.
func (c *Clock) Now() time.Time {
	now := c.wall().UnixMicro()
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

// Advance raises the mark to at least t: what another node or an older record
// proves to have passed has passed.
func (c *Clock) Advance(t time.Time) {
	want := t.UnixMicro()
	for {
		mark := c.mark.Load()
		if want <= mark || c.mark.CompareAndSwap(mark, want) {
			return
		}
	}
}

// Behind is how far the wall clock lags behind the mark; zero when it does not.
func (c *Clock) Behind() time.Duration {
	return max(0, Micro(c.mark.Load()).Sub(c.wall()))
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
