package policy

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/token"
)

// Rules are what one level demands of its people's tokens. A zero member says
// nothing: then the other levels decide.
type Rules struct {
	token.Terms
	// Lifetime is that of a new personal token unless another is asked for.
	Lifetime time.Duration
	// MaxPersonal is how many personal tokens a person may have (R3.1).
	MaxPersonal int
	// Budget is what each person may take, all tokens together.
	Budget budget.Budget
	// Networks are where its people's tokens may be used from; Observe only
	// marks a use from elsewhere and does not refuse it.
	Networks []netip.Prefix
	Observe  bool
	// Quarantine stops a reported token for investigation instead of revoking
	// it. Only the platform says so.
	Quarantine bool
}

// Level is one level of policy as it is kept: what is in force, and what
// replaces it from Coming.Since on. Values are immutable; Set returns a changed
// copy with the next version.
type Level struct {
	Name      string // "platform" or "group:NAME"
	Version   int64
	Rules     Rules
	Coming    Rules // Coming.Since is zero: nothing is coming
	ChangedAt time.Time
}

// Set returns the level with rules that come into force at since, at once if
// that is past. What is in force stays in force until then. base is what holds
// where the level says nothing.
func (l Level) Set(r, base Rules, since, now time.Time) Level {
	l = l.at(now)
	if !since.After(now) {
		since = now
	}
	r.Level, r.Since = l.Name, since
	r.date(l.Rules.over(base), base)
	if since.After(now) {
		l.Coming = r
	} else {
		l.Rules, l.Coming = r, Rules{}
	}
	l.Version, l.ChangedAt = l.Version+1, now
	return l
}

// date gives each demand that is stricter than before the date of the rules,
// and leaves the others theirs: what they have ended stays ended. Where the
// level says nothing any more, what the base says may be the stricter.
func (r *Rules) date(before, base Rules) {
	after := r.over(base)
	was, will := before.limits(), after.limits()
	for i, is := range r.limits() {
		is.Since = was[i].Since
		if will[i].Span > 0 && (was[i].Span == 0 || will[i].Span < was[i].Span) {
			is.Since = r.Since
		}
	}
	if r.SessionsOnly.Since = before.SessionsOnly.Since; !before.SessionsOnly.On {
		r.SessionsOnly.Since = r.Since
	}
}

// limits are all spans that rules can set, in the order of limitNames.
func (r *Rules) limits() []*token.Limit {
	return []*token.Limit{&r.MaxLifetime, &r.Idle, &r.ServiceIdle, &r.Unused, &r.RotateAfter, &r.Enforced}
}

var limitNames = []string{"max_lifetime", "idle", "service_idle", "unused", "rotate_after", "enforced"}

// at is the level with what has come into force by now in its place.
func (l Level) at(now time.Time) Level {
	if l.coming() && !l.Coming.Since.After(now) {
		l.Rules, l.Coming = l.Coming, Rules{}
	}
	return l
}

var levelRE = regexp.MustCompile(`^group:[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// LevelName is the level that a person writes: "platform", or a group's name,
// with "group:" before it or without.
func LevelName(s string) (string, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if s == token.Platform {
		return s, nil
	}
	if name := token.GroupLevel + strings.TrimPrefix(s, token.GroupLevel); levelRE.MatchString(name) && !strings.Contains(name, "..") {
		return name, nil
	}
	return "", fault.New(fault.Invalid, "policy_unknown", "A policy is that of the platform or of a group, whose name has 1 to 63 of a-z, 0-9, dot, dash and underscore.").
		WithFix("Use platform, or a name such as interns.")
}

// InForce reports whether the rules hold at now.
func (r *Rules) InForce(now time.Time) bool {
	return !r.Since.After(now) && (r.Until.IsZero() || now.Before(r.Until))
}

// Outside judges where a token is used from, at now: level is the one whose
// networks it is not in, one that refuses before one that observes; refused says
// whether that matters.
func Outside(rules []Rules, addr netip.Addr, now time.Time) (level string, refused bool) {
	for i := range rules {
		r := &rules[i]
		if len(r.Networks) > 0 && !refused && r.InForce(now) && !Within(r.Networks, addr) {
			level, refused = r.Level, !r.Observe
		}
	}
	return level, refused
}

// Within reports whether addr lies in one of the prefixes; both are unmapped
// and without zone, so that one address has one form.
func Within(list []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Levels are all levels that exist, by name, and what holds where the
// platform's says nothing.
type Levels struct {
	Base  Rules
	Named map[string]Level
}

// For lists the rules that bear on a member of the groups, the platform's
// first, with those that are coming after those in force.
func (l *Levels) For(groups []string) []Rules {
	platform := l.Named[token.Platform]
	platform.Rules.Level = token.Platform
	platform.Rules = platform.Rules.over(l.Base)
	if platform.coming() {
		platform.Coming = platform.Coming.over(l.Base)
	}
	out := platform.steps(nil)
	for _, g := range groups {
		if level, ok := l.Named[token.GroupLevel+g]; ok {
			out = level.steps(out)
		}
	}
	return out
}

// steps appends what is in force and what replaces it.
func (l Level) steps(out []Rules) []Rules {
	if !l.coming() {
		return append(out, l.Rules)
	}
	l.Rules.Until = l.Coming.Since
	return append(out, l.Rules, l.Coming)
}

func (l Level) coming() bool { return !l.Coming.Since.IsZero() }

// over is r where it says something, and base elsewhere.
func (r Rules) over(base Rules) Rules {
	out := base
	out.Level, out.Since, out.Until = r.Level, r.Since, r.Until
	is := r.limits()
	for i, l := range out.limits() {
		if is[i].Span > 0 {
			*l = *is[i]
		} else if is[i].Since.After(l.Since) {
			l.Since = is[i].Since // since it is left to the base
		}
	}
	pick(&out.Lifetime, r.Lifetime)
	pick(&out.MaxPersonal, r.MaxPersonal)
	if r.SessionsOnly.On {
		out.SessionsOnly = r.SessionsOnly
	}
	out.Budget = r.Budget.Or(base.Budget)
	out.Quarantine = r.Quarantine || base.Quarantine
	if len(r.Networks) > 0 {
		out.Networks, out.Observe = r.Networks, r.Observe
	}
	return out
}

func pick[T comparable](to *T, v T) {
	var zero T
	if v != zero {
		*to = v
	}
}

// Terms are the clocks' part of rules.
func Terms(rules []Rules) []token.Terms {
	out := make([]token.Terms, len(rules))
	for i := range rules {
		out[i] = rules[i].Terms
	}
	return out
}

// Demand is what a level demands at most or at least, and which level it is.
type Demand[T any] struct {
	Value T
	Level string
}

// Demands are what the rules amount to for a new token at one instant: of each
// member the strictest, with the level that says so.
type Demands struct {
	Lifetime     Demand[time.Duration]
	MaxLifetime  Demand[time.Duration]
	MaxPersonal  Demand[int]
	SessionsOnly Demand[bool]
	Quarantine   bool
}

// Demanded computes what holds at now.
func Demanded(rules []Rules, now time.Time) (d Demands) {
	for i := range rules {
		r := &rules[i]
		if !r.InForce(now) {
			continue
		}
		least(&d.Lifetime, r.Lifetime, r.Level)
		least(&d.MaxLifetime, r.MaxLifetime.Span, r.Level)
		least(&d.MaxPersonal, r.MaxPersonal, r.Level)
		if r.SessionsOnly.On && !d.SessionsOnly.Value {
			d.SessionsOnly = Demand[bool]{true, r.Level}
		}
		d.Quarantine = d.Quarantine || r.Quarantine
	}
	if d.MaxLifetime.Value > 0 && d.Lifetime.Value > d.MaxLifetime.Value {
		d.Lifetime = d.MaxLifetime
	}
	return d
}

func least[T int | time.Duration](d *Demand[T], v T, level string) {
	if v > 0 && (d.Level == "" || v < d.Value) {
		*d = Demand[T]{v, level}
	}
}

// The spans that a policy may demand.
const (
	leastSpan = 15 * time.Minute
	mostSpan  = 10 * 365 * 24 * time.Hour
	mostCIDRs = 50 // networks of one level (R2.2)
)

// Check refuses rules that make no sense for the level.
func (r Rules) Check(level string) error {
	spans := map[string]time.Duration{"lifetime": r.Lifetime}
	for i, l := range r.limits() {
		spans[limitNames[i]] = l.Span
	}
	for name, d := range spans {
		if d != 0 && (d < leastSpan || d > mostSpan) {
			return fault.New(fault.Invalid, "policy_invalid", "%s is between 15 minutes and 10 years.", name).WithFix("Use for example %s=90d", name)
		}
	}
	switch {
	case r.MaxLifetime.Span > 0 && r.Lifetime > r.MaxLifetime.Span:
		return fault.New(fault.Invalid, "policy_invalid", "lifetime is more than max_lifetime.").WithFix("Lower the one, or raise the other.")
	case r.Enforced.Span != r.RotateAfter.Span && r.Enforced.Span > 0:
		return fault.New(fault.Invalid, "policy_invalid", "Rotation is enforced, and rotate_after is missing.").WithFix("Add rotate_after, such as rotate_after=90d")
	case r.MaxPersonal < 0 || r.MaxPersonal > 100:
		return fault.New(fault.Invalid, "policy_invalid", "max_per_user is between 1 and 100.").WithFix("Use for example max_per_user=1")
	case len(r.Networks) > mostCIDRs:
		return fault.New(fault.Invalid, "policy_invalid", "A policy has at most %d networks.", mostCIDRs).WithFix("Join neighbouring networks.")
	case r.Quarantine && level != token.Platform:
		return fault.New(fault.Invalid, "policy_invalid", "What becomes of a reported token is for the platform to say.").WithFix("Set it there: gradegate policy set platform")
	}
	return r.Budget.Check()
}

// Summary is the level in one line, for the record.
func (l Level) Summary() string {
	out := "now: " + l.Rules.summary()
	if l.coming() {
		out += "; from " + l.Coming.Since.Format(time.RFC3339) + ": " + l.Coming.summary()
	}
	return out
}

func (r Rules) summary() string {
	var parts []string
	add := func(name, value string) { parts = append(parts, name+"="+value) }
	if r.Lifetime > 0 {
		add("lifetime", r.Lifetime.String())
	}
	for i, l := range r.limits() {
		if l.Span > 0 {
			add(limitNames[i], l.Span.String())
		}
	}
	for _, b := range []struct {
		name string
		is   bool
	}{{"sessions_only", r.SessionsOnly.On}, {"observe", r.Observe}, {"quarantine", r.Quarantine}} {
		if b.is {
			add(b.name, "true")
		}
	}
	if r.MaxPersonal > 0 {
		add("max_per_user", strconv.Itoa(r.MaxPersonal))
	}
	if !r.Budget.IsZero() {
		add("budget", "("+r.Budget.String()+")")
	}
	for _, p := range r.Networks {
		add("network", p.String())
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, " ")
}
