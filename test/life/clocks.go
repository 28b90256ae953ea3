package life

import (
	"slices"
	"time"
)

// Rules are what a level of policy demands; zero demands nothing.
type Rules struct {
	Lifetime, MaxLifetime, Idle, Unused, RotateAfter time.Duration
	Enforced, SessionsOnly, Quarantine               bool
	MaxPersonal                                      int
}

// dated are rules, in force since an instant, and since when each of their
// demands is as strict as it is.
type dated struct {
	Rules
	since time.Time
	from  map[string]time.Time // by clock
}

// level is what is in force at a level and what comes after it.
type level struct {
	now, next dated // next.since is zero: nothing comes
}

// stage is a level's rules while they are in force.
type stage struct {
	dated
	level string
	until time.Time // zero: for good
}

// stages are all rules that bear on members of the groups, the platform's first.
func (m *Model) stages(groups []string) (out []stage) {
	names := slices.Clone(groups)
	slices.Sort(names)
	keys := []string{"platform"}
	for _, name := range names {
		keys = append(keys, "group:"+name)
	}
	for _, key := range keys {
		l := m.levels[key]
		if l == nil {
			continue
		}
		out = append(out, stage{l.now, key, l.next.since})
		if !l.next.since.IsZero() {
			out = append(out, stage{l.next, key, time.Time{}})
		}
	}
	return out
}

// onPlatform fills in what the platform demands where its policy says nothing.
func onPlatform(r Rules) Rules {
	orElse(&r.Lifetime, baseLifetime)
	orElse(&r.MaxLifetime, baseMaxLifetime)
	orElse(&r.Idle, 30*day)
	orElse(&r.Unused, 14*day)
	orElse(&r.RotateAfter, 90*day)
	orElse(&r.MaxPersonal, basePersonal)
	return r
}

func orElse[T comparable](v *T, other T) {
	var zero T
	if *v == zero {
		*v = other
	}
}

// clockNames are the clocks that policy sets.
var clockNames = []string{"idle_expires_at", "unused", "max_expires_at", "rotate_by", "policy"}

// demand is how long a clock runs under rules.
func (r Rules) demand(clock string) (span time.Duration, runs bool) {
	switch clock {
	case "idle_expires_at":
		return r.Idle, r.Idle > 0
	case "unused":
		return r.Unused, r.Unused > 0
	case "max_expires_at":
		return r.MaxLifetime, r.MaxLifetime > 0
	case "rotate_by":
		return r.RotateAfter, r.RotateAfter > 0 && r.Enforced
	}
	return 0, r.SessionsOnly
}

// after are rules that follow others on a level. What is stricter than before
// ends nothing before they are in force; what is not was said before.
func (r Rules) after(before dated, since time.Time) dated {
	d := dated{Rules: r, since: since, from: map[string]time.Time{}}
	for _, clock := range clockNames {
		is, _ := r.demand(clock)
		was, ran := before.demand(clock)
		d.from[clock] = before.from[clock]
		if !ran || is < was {
			d.from[clock] = since
		}
	}
	return d
}

// inForce are those of the stages that hold at this moment.
func (m *Model) inForce(all []stage) (out []stage) {
	for _, s := range all {
		if !s.since.After(m.now()) && (s.until.IsZero() || m.now().Before(s.until)) {
			out = append(out, s)
		}
	}
	return out
}

// strictest is the least of what the stages demand of something.
func strictest[T int | time.Duration](list []stage, what func(Rules) T) (least T) {
	for _, s := range list {
		if v := what(s.Rules); v > 0 && (least == 0 || v < least) {
			least = v
		}
	}
	return least
}

// end is when a token ends, by which clock, and which level says so.
type end struct {
	at           time.Time
	clock, level string
}

// nearest is the first end of a token. Of several at one instant the first in
// this order is named: grace, expiry, idle, maximum, rotation, policy; and of
// levels the platform, the groups, the token itself.
func (m *Model) nearest(c *credential) (first end) {
	return m.nearestUnder(c, m.stages(c.owner.groups))
}

func (m *Model) nearestUnder(c *credential, under []stage) (first end) {
	for _, e := range m.ends(c, under) {
		if first.at.IsZero() || e.at.Before(first.at) {
			first = e
		}
	}
	return first
}

// ends are all instants at which a token ends.
func (m *Model) ends(c *credential, under []stage) (out []end) {
	add := func(clock, level string, at time.Time) { out = append(out, end{at, clock, level}) }
	touched := c.used // or renewed, whichever was later
	if c.renewed.After(touched) {
		touched = c.renewed
	}
	from, unused := touched, touched.IsZero()
	if unused {
		from = c.issued
	}

	if c.successor != nil {
		add("grace_until", "token", m.graceEnd(c))
	}
	switch {
	case !c.fixed.IsZero():
		add("expires_at", "token", c.fixed)
	case c.successor == nil: // in grace no use renews, and grace ends no later
		add("expires_at", "token", from.Add(c.lifetime))
	}
	if c.kind != "pat" && c.kind != "svc" {
		return append(out, m.sessionMax(c)...)
	}
	for _, clock := range []string{"idle_expires_at", "max_expires_at", "rotate_by", "policy"} {
		for _, s := range under {
			if at := m.endUnder(c, s, clock, from, unused); !at.IsZero() {
				add(clock, s.level, at)
			}
		}
		switch own := c.idle; clock {
		case "idle_expires_at":
			if unused {
				own = c.unused
			}
			add(clock, "token", m.standingStill(from, own))
		case "max_expires_at":
			add(clock, "token", c.born.Add(c.most))
		}
	}
	return out
}

// endUnder is when one clock ends a token under the rules of a stage; zero:
// never. Rules end nothing before they came into force, and nothing after.
func (m *Model) endUnder(c *credential, s stage, clock string, from time.Time, unused bool) (at time.Time) {
	if c.kind == "svc" && (clock == "policy" || clock == "idle_expires_at" && !unused) {
		return time.Time{} // these are for people; a service has an idle clock of its own
	}
	demand := clock
	if clock == "idle_expires_at" && unused {
		demand = "unused"
	}
	span, runs := s.demand(demand)
	if !runs {
		return time.Time{}
	}
	switch clock {
	case "idle_expires_at":
		at = m.standingStill(from, span)
	case "max_expires_at":
		at = c.born.Add(span)
	default:
		at = c.issued.Add(span)
	}
	if at.Before(s.from[demand]) {
		at = s.from[demand]
	}
	if over := !s.until.IsZero() && !m.now().Before(s.until); over || !s.until.IsZero() && !at.Before(s.until) {
		return time.Time{}
	}
	return at
}

func (m *Model) sessionMax(c *credential) []end {
	if c.kind != "ses" {
		return nil
	}
	return []end{{c.born.Add(c.most), "max_expires_at", "token"}}
}

// graceEnd is when a predecessor ends: as was said at the rotation, or when it
// has rested for ten minutes and its successor is in use.
func (m *Model) graceEnd(c *credential) time.Time {
	if c.successor.used.IsZero() {
		return c.grace
	}
	rest := c.rotated
	if c.used.After(rest) {
		rest = c.used
	}
	if rest = rest.Add(10 * time.Minute); rest.Before(c.grace) {
		return rest
	}
	return c.grace
}

// standingStill is a clock that ran for d since from, and not in outages.
func (m *Model) standingStill(from time.Time, d time.Duration) time.Time {
	for _, o := range m.outages {
		if !o.until.After(from) {
			continue
		}
		if run := o.from.Sub(from); run >= d {
			break
		} else if run > 0 {
			d -= run
		}
		from = o.until
	}
	return from.Add(d)
}
