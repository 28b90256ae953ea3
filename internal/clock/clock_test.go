package clock

import (
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// machine is a wall clock that can be set, beside one that cannot.
type machine struct {
	passed time.Duration
	off    time.Duration // of the wall clock
	sure   bool
}

func (m *machine) read() (time.Time, time.Duration) { return t0.Add(m.passed + m.off), m.passed }

func (m *machine) clock(mark time.Time) *Clock {
	return NewDoubting(m.read, mark, func() bool { return m.sure })
}

func wants(t *testing.T, c *Clock, when string, want time.Duration) {
	t.Helper()
	if got := c.Now().Sub(t0); got != want {
		t.Errorf("%s: it is %v, want %v", when, got, want)
	}
}

// A25, F22: a clock set back revives nothing, and time goes on meanwhile.
func TestSetBack(t *testing.T) {
	for _, back := range []time.Duration{time.Hour, 30 * 24 * time.Hour, t0.Sub(time.Unix(0, 0))} {
		m := &machine{}
		c := m.clock(time.Time{})
		m.passed = time.Hour
		wants(t, c, "before", time.Hour)
		m.off = -back
		wants(t, c, "set back", time.Hour)
		m.passed = 3 * time.Hour
		wants(t, c, "two hours later", 3*time.Hour)
		m.off = 0
		wants(t, c, "mended", 3*time.Hour)
		again := m.clock(t0.Add(5 * time.Hour)) // the mark of somebody who had seen more
		wants(t, again, "after a restart", 5*time.Hour)
		if again.Behind() != 2*time.Hour {
			t.Errorf("behind by %v", again.Behind())
		}
	}
}

// A26, F23: a leap forward ends nothing until somebody vouches for it, and is
// forgotten once it is mended.
func TestLeap(t *testing.T) {
	const year = 365 * 24 * time.Hour
	m := &machine{}
	c := m.clock(time.Time{})
	m.off = 10 * year
	wants(t, c, "leapt", 0)
	m.passed = time.Minute
	wants(t, c, "a minute later", time.Minute)
	if c.Ahead() != 10*year {
		t.Errorf("ahead by %v", c.Ahead())
	}
	m.off = 0
	wants(t, c, "mended", time.Minute)
	if c.Ahead() != 0 {
		t.Errorf("still ahead by %v", c.Ahead())
	}
	m.off = time.Hour
	wants(t, c, "leapt again", time.Minute)
	m.sure = true
	wants(t, c, "vouched for, but asked a moment ago", time.Minute)
	m.passed += askEvery
	wants(t, c, "vouched for", time.Hour+time.Minute+askEvery)
	m.sure, m.off = false, 3*time.Hour
	c.Confirm()
	wants(t, c, "confirmed by an administrator", 3*time.Hour+time.Minute+askEvery)
}

// What quartz does wrong, and what an operator corrects by hand, is no leap.
func TestDrift(t *testing.T) {
	m := &machine{}
	c := m.clock(time.Time{})
	m.passed, m.off = 100*24*time.Hour, 70*time.Minute // 480 ppm
	wants(t, c, "after a hundred days", m.passed+m.off)
	m = &machine{off: 0}
	c = m.clock(time.Time{})
	m.off = 9 * time.Minute
	wants(t, c, "corrected", 9*time.Minute)
}

// A start after a night or a week's rest is believed; after a year it needs
// somebody who vouches for it.
func TestResume(t *testing.T) {
	for rest, believed := range map[time.Duration]bool{8 * time.Hour: true, 7 * 24 * time.Hour: true, 365 * 24 * time.Hour: false} {
		for _, sure := range []bool{false, true} {
			m := &machine{sure: sure}
			c := m.clock(time.Time{})
			_ = c.Now() // what was told before the mark was known does not bind
			c.Resume(t0.Add(-rest))
			want := time.Duration(0)
			if !believed && !sure {
				want = -rest
			}
			wants(t, c, rest.String(), want)
			c.Resume(t0.Add(time.Minute)) // of a second database: it only advances
			wants(t, c, "advanced", time.Minute)
		}
	}
}

// Times without a monotonic reading, as of a fake, are believed when they go
// forward and not when they go back.
func TestFake(t *testing.T) {
	f := NewFake(t0)
	c := New(f.Now, time.Time{})
	f.Add(400 * 24 * time.Hour)
	wants(t, c, "forward", 400*24*time.Hour)
	f.Add(-time.Hour)
	wants(t, c, "back", 400*24*time.Hour)
}

func BenchmarkNow(b *testing.B) {
	c := New(Wall, time.Time{})
	b.ReportAllocs()
	for b.Loop() {
		_ = c.Now()
	}
}
