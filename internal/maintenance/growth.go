package maintenance

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
)

// Sample is how much there was of everything at one moment. Its JSON form is
// stored; members are never renamed.
type Sample struct {
	At    time.Time        `json:"at"`
	Rows  map[string]int64 `json:"rows"`  // by table
	Bytes map[string]int64 `json:"bytes"` // by part
	Disks map[string]Disk  `json:"disks"` // by what lies on it
}

// Disk is a file system with something of ours on it.
type Disk struct {
	Total int64 `json:"total"`
	Free  int64 `json:"free"`
}

// Share is how full it is, from 0 to 1.
func (d Disk) Share() float64 {
	if d.Total <= 0 {
		return 0
	}
	return 1 - float64(d.Free)/float64(d.Total)
}

// RowLimits are the rows that the service is built and measured for, of every
// table that can grow. Of those that are emptied again they are what says that
// this does not work.
var RowLimits = map[string]int64{
	"tokens": 1_000_000, "token_uses": 1_000_000, "token_guesses": 1_000_000, "archive": 10_000_000,
	"principals": 100_000, "levels": 10_000, "consents": 1_000_000, "holds": 100_000, "outages": 100_000,
	"competitions": 10_000, "submissions": 5_000_000, "jobs": 5_000_000, "scores": 50_000_000,
	"quota_lines": 20_000_000, "quota_open": 1_000_000, "quota_gates": 5_000_000,
	"replies": 1_000_000, "jobs.replies": 1_000_000, "outbox": 1_000_000, "jobs.outbox": 1_000_000, "changes": 200_000, "batches": 200_000,
}

// The levels of alert, in percent.
var levels = []int{95, 85, 70}

// LevelOf is the level that a share has reached: 95, 85, 70 or 0.
func LevelOf(share float64) int {
	for _, l := range levels {
		if share*100 >= float64(l) {
			return l
		}
	}
	return 0
}

// Point is a measured value.
type Point struct {
	At    time.Time
	Value float64
}

// forecastFrom is the shortest time that a forecast is made from.
const forecastFrom = 24 * time.Hour

// Trend is the growth a day: the slope of the line that fits the points best.
// ok is false if they cover less than a day.
func Trend(points []Point) (perDay float64, ok bool) {
	if len(points) < 2 {
		return 0, false
	}
	first, last := points[0].At, points[0].At
	for _, p := range points {
		if p.At.Before(first) {
			first = p.At
		}
		if p.At.After(last) {
			last = p.At
		}
	}
	if last.Sub(first) < forecastFrom {
		return 0, false
	}
	days := func(p Point) float64 { return p.At.Sub(first).Hours() / 24 }
	var meanX, meanY float64
	for _, p := range points {
		meanX += days(p) / float64(len(points))
		meanY += p.Value / float64(len(points))
	}
	var above, below float64
	for _, p := range points {
		above += (days(p) - meanX) * (p.Value - meanY)
		below += (days(p) - meanX) * (days(p) - meanX)
	}
	return above / below, true
}

// mostDays is a forecast that nobody needs: what lies behind it is never.
const mostDays = 3650

// DaysLeft is in how many days what is left will have been taken, at a growth a
// day. ok is false if that is not in sight.
func DaysLeft(left, perDay float64) (days int, ok bool) {
	if left <= 0 {
		return 0, true
	}
	if perDay <= 0 || left/perDay > mostDays {
		return 0, false
	}
	return int(left / perDay), true
}

// Thin are the samples of those given that are not worth keeping at now: of
// each hour one for three days, of each day one for 400 days.
func Thin(all []time.Time, now time.Time) (drop []time.Time) {
	slices.SortFunc(all, time.Time.Compare)
	kept := map[time.Time]bool{}
	for _, at := range all {
		slot := at.Truncate(time.Hour)
		switch age := now.Sub(at); {
		case age > 400*24*time.Hour:
			drop = append(drop, at)
			continue
		case age > 3*24*time.Hour:
			slot = at.Truncate(24 * time.Hour).Add(-time.Nanosecond) // never an hour's
		}
		if kept[slot] {
			drop = append(drop, at)
		}
		kept[slot] = true
	}
	return drop
}

// Minter is a person who makes unusually many tokens.
type Minter struct {
	User   principal.ID
	Tokens int // in a week
}

const (
	mintersLeast = 50
	mintersTimes = 10
	mintersMost  = 10
)

// Outliers are those who made far more tokens than others do: 50 at least, and
// ten times the median of everybody who made any.
func Outliers(made map[principal.ID]int) []Minter {
	counts := slices.Sorted(maps.Values(made))
	if len(counts) == 0 {
		return nil
	}
	limit := max(mintersLeast, mintersTimes*counts[(len(counts)-1)/2])
	var out []Minter
	for id, n := range made {
		if n >= limit {
			out = append(out, Minter{id, n})
		}
	}
	slices.SortFunc(out, func(a, b Minter) int { return cmp.Or(b.Tokens-a.Tokens, cmp.Compare(a.User, b.User)) })
	return out[:min(len(out), mintersMost)]
}

// Measure is one thing that grows.
type Measure struct {
	Name   string
	Value  int64
	Limit  int64   // zero: none
	PerDay float64 // valid if Trended
	// Trended is set if there are samples enough to tell.
	Trended bool
	Level   int
	// Days is when the limit is reached, if Full is set.
	Days int
	Full bool
}

// Growth is how much there is, and where that goes.
type Growth struct {
	At      time.Time
	Rows    []Measure
	Bytes   []Measure
	Disks   []Measure // used bytes of the disks
	Minters []Minter
	Alerts  []string
	Level   int
}

// Assess compares the newest sample with those before.
func Assess(now Sample, before []Sample, made map[principal.ID]int) Growth {
	g := Growth{At: now.At, Minters: Outliers(made)}
	measure := func(name string, limit int64, of func(*Sample) (int64, bool)) Measure {
		m := Measure{Name: name, Limit: limit}
		m.Value, _ = of(&now)
		points := []Point{{now.At, float64(m.Value)}}
		for i := range before {
			if v, ok := of(&before[i]); ok && now.At.Sub(before[i].At) <= trendOver {
				points = append(points, Point{before[i].At, float64(v)})
			}
		}
		m.PerDay, m.Trended = Trend(points)
		if limit > 0 {
			m.Level = LevelOf(float64(m.Value) / float64(limit))
			m.Days, m.Full = DaysLeft(float64(limit-m.Value), m.PerDay)
		}
		return m
	}
	for _, name := range slices.Sorted(maps.Keys(now.Rows)) {
		g.Rows = append(g.Rows, measure(name, RowLimits[name], func(s *Sample) (int64, bool) { v, ok := s.Rows[name]; return v, ok }))
	}
	for _, name := range slices.Sorted(maps.Keys(now.Bytes)) {
		g.Bytes = append(g.Bytes, measure(name, 0, func(s *Sample) (int64, bool) { v, ok := s.Bytes[name]; return v, ok }))
	}
	for _, name := range slices.Sorted(maps.Keys(now.Disks)) {
		g.Disks = append(g.Disks, measure(name, now.Disks[name].Total, func(s *Sample) (int64, bool) {
			d, ok := s.Disks[name]
			return d.Total - d.Free, ok
		}))
	}
	g.alert()
	return g
}

// trendOver is how far back a trend looks: older growth says little.
const trendOver = 30 * 24 * time.Hour

// soonDays is a forecast that is an alert by itself.
const soonDays = 7

func (g *Growth) alert() {
	for _, d := range g.Disks {
		g.Level = max(g.Level, d.Level)
		if d.Level > 0 {
			g.Alerts = append(g.Alerts, fmt.Sprintf("the disk of %s is more than %d %% full", d.Name, d.Level))
		}
		if d.Full && d.Days <= soonDays {
			g.Level = max(g.Level, 85)
			g.Alerts = append(g.Alerts, fmt.Sprintf("the disk of %s is full in %d days", d.Name, d.Days))
		}
	}
	for _, t := range g.Rows {
		g.Level = max(g.Level, t.Level)
		if t.Level > 0 {
			g.Alerts = append(g.Alerts, fmt.Sprintf("%s has more than %d %% of the %d rows that this service is built for", t.Name, t.Level, t.Limit))
		}
	}
	for _, m := range g.Minters {
		g.Alerts = append(g.Alerts, fmt.Sprintf("%s made %d tokens in a week", m.User, m.Tokens))
	}
}

// Gauge measures. What cannot be measured is left out.
type Gauge interface {
	Measure(ctx context.Context, now time.Time) (Sample, error)
	// Made counts the tokens that each person made since an instant.
	Made(since time.Time) map[principal.ID]int
}

// Samples keeps samples of this node.
type Samples interface {
	SaveSample(ctx context.Context, node string, at time.Time, body string, drop []time.Time) error
	Samples(ctx context.Context, node string) (map[time.Time]string, error)
}

const (
	sampleEvery = time.Hour
	// freshFor is how long a measurement answers questions: it reads whole folders.
	freshFor = time.Minute
)

// Growth tells how much there is of everything, and where that goes.
func (m *Maintenance) Growth(ctx context.Context, s *policy.Subject) (Growth, error) {
	if err := policy.Decide(s, policy.ArchiveRead, policy.Resource{}); err != nil {
		return Growth{}, err
	}
	if g := m.LastGrowth(); !g.At.IsZero() && m.Now().Sub(g.At) < freshFor {
		return g, nil
	}
	return m.measure(ctx)
}

// LastGrowth is what was measured last; its instant is zero before the first time.
func (m *Maintenance) LastGrowth() Growth {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.growth
}

// measure takes a sample, and stores it unless there is one of this hour.
func (m *Maintenance) measure(ctx context.Context) (Growth, error) {
	now := m.Now()
	sample, err := m.Gauge.Measure(ctx, now)
	if err != nil {
		return Growth{}, err
	}
	stored, err := m.Samples.Samples(ctx, m.Node)
	if err != nil && fault.KindOf(err) != fault.Unavailable {
		return Growth{}, err
	}
	var before []Sample
	var at []time.Time
	hour := false
	for t, body := range stored {
		var s Sample
		if json.Unmarshal([]byte(body), &s) == nil {
			before = append(before, s)
		}
		at = append(at, t)
		hour = hour || t.Truncate(sampleEvery).Equal(now.Truncate(sampleEvery))
	}
	if !hour && err == nil && m.Doubt() == "" {
		body, bad := json.Marshal(sample)
		if bad == nil {
			bad = m.Samples.SaveSample(ctx, m.Node, now, string(body), Thin(at, now))
		}
		if bad != nil {
			m.Log.Warn("how much there is could not be noted", "error", bad)
		}
	}
	g := Assess(sample, before, m.Gauge.Made(now.Add(-7*24*time.Hour)))
	m.mu.Lock()
	m.growth = g
	m.mu.Unlock()
	return g, nil
}

// Watch measures every hour until ctx ends.
func (m *Maintenance) Watch(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		if g, err := m.measure(ctx); err != nil && ctx.Err() == nil {
			m.Log.Warn("how much there is cannot be measured", "error", err)
		} else if err == nil && g.Level > 0 {
			m.Log.Warn("growth", "alerts", g.Alerts)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
