package maintenance_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gradegate/internal/maintenance"
	"gradegate/internal/principal"
)

// TestTrend: a line is found again, wherever it begins and in whatever order its
// points come; less than a day of it is no trend (R9.8).
func TestTrend(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		slope := rapid.Float64Range(-1e9, 1e9).Draw(rt, "slope")
		from := rapid.Float64Range(0, 1e12).Draw(rt, "from")
		hours := rapid.IntRange(1, 500).Draw(rt, "hours")
		var points []maintenance.Point
		for h := range hours {
			points = append(points, maintenance.Point{At: t0.Add(time.Duration(h) * time.Hour), Value: from + slope*float64(h)/24})
		}
		rand.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
		got, ok := maintenance.Trend(points)
		if ok != (hours > 24) {
			rt.Fatalf("%d hours: %v", hours, ok)
		}
		if ok && math.Abs(got-slope) > 1e-6*(math.Abs(slope)+from+1) {
			rt.Fatalf("%g, want %g", got, slope)
		}
	})
}

// TestDaysLeft: the forecast fits the growth, comes nearer with it, is never in
// the past, and is not made where nothing grows.
func TestDaysLeft(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		left := rapid.Float64Range(-1e12, 1e15).Draw(rt, "left")
		day := rapid.Float64Range(-1e9, 1e12).Draw(rt, "a day")
		n, ok := maintenance.DaysLeft(left, day)
		switch {
		case left <= 0:
			if !ok || n != 0 {
				rt.Fatalf("it is full: %d %v", n, ok)
			}
			return
		case day <= 0:
			if ok {
				rt.Fatalf("nothing grows, and it is full in %d days", n)
			}
			return
		case !ok:
			if left/day <= 3650 {
				rt.Fatalf("%g at %g a day is in sight", left, day)
			}
			return
		}
		if float64(n)*day > left*(1+1e-9) || float64(n+1)*day < left*(1-1e-9) {
			rt.Fatalf("%d days of %g for %g", n, day, left)
		}
		if faster, ok := maintenance.DaysLeft(left, 2*day); !ok || faster > n {
			rt.Fatalf("twice as fast takes %d days instead of %d", faster, n)
		}
	})
}

// TestThin: hourly for three days, daily for 400, bounded whatever was measured.
func TestThin(t *testing.T) {
	t.Parallel()
	kept := map[time.Time]bool{}
	now := t0
	for range 420 * 24 { // for more than 400 days
		now = now.Add(time.Hour)
		kept[now] = true
		var all []time.Time
		for at := range kept {
			all = append(all, at)
		}
		for _, at := range maintenance.Thin(all, now) {
			delete(kept, at)
		}
		if len(kept) > 3*24+400+5 {
			t.Fatalf("%d samples are kept", len(kept))
		}
	}
	days := map[time.Time]bool{}
	for at := range kept {
		days[at.Truncate(day)] = true
	}
	if len(days) < 399 {
		t.Errorf("only %d days are left", len(days))
	}
}

// TestOutliers: far more than others, and never for a few.
func TestOutliers(t *testing.T) {
	t.Parallel()
	made := map[principal.ID]int{"mallory": 400, "eve": 60}
	for i := range 20 {
		made[principal.ID(fmt.Sprint("usr_", i))] = 3
	}
	got := maintenance.Outliers(made)
	if len(got) != 2 || got[0].User != "mallory" || got[1].User != "eve" {
		t.Errorf("%v", got)
	}
	for i := range 20 {
		made[principal.ID(fmt.Sprint("usr_", i))] = 20
	}
	if got := maintenance.Outliers(made); len(got) != 1 {
		t.Errorf("where everybody makes many: %v", got)
	}
	if got := maintenance.Outliers(map[principal.ID]int{"ann": 10}); got != nil {
		t.Errorf("%v", got)
	}
}

// TestLevels: the alerts come at 70, 85 and 95 percent.
func TestLevels(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64]int{0: 0, 0.699: 0, 0.70: 70, 0.849: 70, 0.85: 85, 0.949: 85, 0.95: 95, 1.2: 95} {
		if got := maintenance.LevelOf(share); got != want {
			t.Errorf("%g: %d, want %d", share, got, want)
		}
	}
}

// TestGrowth: from stored samples follows when the disk is full; it survives a
// restart, and a doubtful clock leaves none behind.
func TestGrowth(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, w *world) {
		for range 60 {
			if _, err := w.sweep.Growth(t.Context(), admin); err != nil {
				t.Fatal(err)
			}
			w.clock.Add(time.Hour)
		}
		g, err := w.sweep.Growth(t.Context(), admin)
		w.must(err)
		d := g.Disks[0]
		if !d.Trended || math.Abs(d.PerDay-100) > 1 || !d.Full || d.Days != 97 || g.Level != 85 || len(g.Alerts) != 1 {
			t.Errorf("%+v", g)
		}
		stored, err := w.tokens.Samples(t.Context(), "here")
		w.must(err)
		if len(stored) != 61 {
			t.Errorf("%d samples", len(stored))
		}
		w.doubt = "a leap"
		w.clock.Add(5000 * day)
		_, err = w.sweep.Growth(t.Context(), admin)
		w.must(err)
		if after, err := w.tokens.Samples(t.Context(), "here"); err != nil || len(after) != 61 {
			t.Errorf("%d samples, %v", len(after), err)
		}
	})
}
