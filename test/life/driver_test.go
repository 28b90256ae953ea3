package life

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// actions are what can happen next, some of it more often than the rest.
func (d *driver) actions() map[string]func(*rapid.T) {
	out := map[string]func(*rapid.T){"": d.agree}
	for name, a := range map[string]struct {
		often int
		do    func()
	}{
		"pass": {8, d.pass}, "use": {6, d.use}, "enrol": {2, d.enrol}, "create": {5, d.create}, "rotate": {6, d.rotate},
		"again": {2, d.repeat}, "one": {4, d.one}, "leak": {1, d.leak}, "revoke-all": {1, d.revokeAll},
		"person": {1, d.person}, "groups": {2, d.groups}, "policy": {3, d.policy}, "submit": {2, d.submit}, "job": {3, d.job},
		"handle": {2, d.handle}, "machine": {2, d.machine}, "outage": {2, d.outage},
		"chase": {4, d.chase}, "doze": {2, d.doze}, "stay": {1, d.stay}, "care": {4, d.care}, "late": {3, d.late}, "hold": {3, d.hold},
		"mint": {3, d.mint}, "owners": {2, d.owners}, "strand": {2, d.strand},
	} {
		for i := range a.often {
			out[fmt.Sprintf("%s %d", name, i)] = func(rt *rapid.T) { d.rt = rt; a.do() }
		}
	}
	return out
}

// settle enrols the people and gives some of them a token.
func (d *driver) settle() {
	for who := range d.model.people[:2] {
		session := d.enter(who)
		if pick(d, "a token at once", true, true, false) {
			d.do(Op{Do: "create", By: session, Replace: never, Name: "a"})
		}
	}
}

// enter invites somebody, who comes: the slot is that of their session.
func (d *driver) enter(who int) int {
	code := d.do(Op{Do: "invite", By: local, Who: who}).Made
	return d.do(Op{Do: "redeem", By: local, On: code}).Made
}

// late submits a job, lets the token end, and comes back to the job.
func (d *driver) late() {
	by := d.living("by")
	made := d.do(Op{Do: "submit", By: by})
	if made.Code != "" {
		return
	}
	end := d.model.nearest(d.model.tokens[by]).at
	after := pick(d, "after", 0, time.Hour, day-time.Microsecond, day)
	if at := end.Add(after); at.After(d.model.now()) && at.Before(d.from.Add(longest)) {
		d.do(Op{Do: "pass", Span: at.Sub(d.model.now())})
	}
	if pick(d, "another one", true, false, false) {
		if another := d.do(Op{Do: "submit", By: d.related(by, "other")}); another.Code == "" {
			made = another
		}
	}
	d.do(Op{Do: pick(d, "do", "job-read", "job-cancel", "submit", "use"), Job: made.Made, By: by})
	d.do(Op{Do: pick(d, "handle", "handle-read", "handle-cancel"), Job: made.Made})
}

// chase goes after a predecessor: its successor is used, it rests or not, and
// is presented once more.
func (d *driver) chase() {
	var all []int
	for slot, c := range d.model.tokens {
		if state, _ := d.model.state(c); c.successor != nil && state != "revoked" {
			all = append(all, slot)
		}
	}
	if len(all) == 0 {
		d.rt.Skip("nothing was rotated")
	}
	old := pick(d, "predecessor", all...)
	successor := d.model.tokens[old].successor.slot
	if pick(d, "use", true, true, false) {
		d.do(Op{Do: "use", By: successor})
	}
	if span := pick(d, "rest", 0, time.Minute, 10*time.Minute, 10*time.Minute-time.Microsecond); span > 0 {
		d.do(Op{Do: "pass", Span: span})
	}
	switch do := pick(d, "then", "use", "renew", "rotate", "rotate"); do {
	case "rotate":
		d.do(Op{Do: do, By: old, On: old, Span: day, ReplaceUnused: pick(d, "replace unused", true, false)})
	default:
		d.do(Op{Do: do, By: old, On: old})
	}
}

// doze lets a token end because nobody uses it, while its owner is signed in,
// and brings it back.
func (d *driver) doze() {
	var pairs [][2]int
	for s, session := range d.model.tokens {
		for p, c := range d.model.tokens {
			_, code := d.model.enter(s)
			if state, _ := d.model.state(c); session.kind == "ses" && code == "" && c.kind == "pat" && c.owner == session.owner && (state == "active" || state == "idle_expired") {
				pairs = append(pairs, [2]int{s, p})
			}
		}
	}
	if len(pairs) == 0 {
		d.rt.Skip("nobody is signed in")
	}
	pair := pairs[rapid.IntRange(0, len(pairs)-1).Draw(d.rt, "pair")]
	c := d.model.tokens[pair[1]]
	if state, first := d.model.state(c); state == "active" {
		if first.at.After(d.model.now().Add(10 * time.Hour)) {
			idle := Rules{Idle: time.Hour, Unused: time.Hour, SessionsOnly: pick(d, "sessions only", false, false, true)}
			d.do(Op{Do: "policy", By: local, Level: "platform", Rules: idle, Since: time.Microsecond})
			d.do(Op{Do: "pass", Span: time.Microsecond})
		}
		if first = d.model.nearest(c); first.at.After(d.model.now()) {
			d.do(Op{Do: "pass", Span: first.at.Sub(d.model.now())})
		}
	}
	d.do(Op{Do: pick(d, "then", "resume", "resume", "rotate", "renew"), By: pair[0], On: pair[1]})
}

// care is what a good owner does with a token over some days.
func (d *driver) care() {
	var all []int
	for slot, c := range d.model.tokens {
		if state, _ := d.model.state(c); c.kind == "pat" && state == "active" && c.successor == nil {
			all = append(all, slot)
		}
	}
	if len(all) == 0 {
		d.rt.Skip("nobody has a token")
	}
	slot := pick(d, "token", all...)
	for range 3 {
		o := Op{Do: pick(d, "do", "use", "rotate", "renew"), By: slot, On: slot, Span: day}
		if o.Do == "renew" {
			o.By = d.related(slot, "by")
		}
		if a := d.do(o); a.Made != never {
			slot = a.Made
		}
		span := pick(d, "span", time.Microsecond, time.Hour, 2*day, 5*day)
		if d.model.now().Add(span).Before(d.from.Add(longest)) {
			d.do(Op{Do: "pass", Span: span})
		}
	}
}

// stay refreshes a session as long as it can be.
func (d *driver) stay() {
	var all []int
	for slot, c := range d.model.tokens {
		if _, code := d.model.enter(slot); c.kind == "ses" && code == "" {
			all = append(all, slot)
		}
	}
	if len(all) == 0 {
		d.rt.Skip("nobody is signed in")
	}
	s := pick(d, "session", all...)
	for range 3 {
		d.do(Op{Do: "renew", By: s, On: s})
		d.do(Op{Do: "pass", Span: pick(d, "span", 11*time.Hour, 9*time.Hour)})
	}
}

func pick[T any](d *driver, name string, from ...T) T {
	return rapid.SampledFrom(from).Draw(d.rt, name)
}

// slot is one of the tokens that the history has made.
func (d *driver) slot(name string) int {
	if len(d.model.tokens) == 0 {
		d.rt.Skip("no token yet")
	}
	return rapid.IntRange(0, len(d.model.tokens)-1).Draw(d.rt, name)
}

// living is a token that lets its holder in; most asking is done with such.
func (d *driver) living(name string) int {
	var in []int
	for slot := range d.model.tokens {
		if _, code := d.model.enter(slot); code == "" {
			in = append(in, slot)
		}
	}
	if len(in) == 0 && pick(d, "come back", true, true, true, false) {
		return d.enter(d.human())
	}
	if len(in) == 0 || pick(d, name+" dead", false, false, false, false, true) {
		return d.slot(name)
	}
	return pick(d, name, in...)
}

// related is a token of the same owner, mostly.
func (d *driver) related(to int, name string) int {
	var own []int
	for slot, c := range d.model.tokens {
		if owner := d.model.tokens[to].owner; (c.owner == owner || d.model.controls(owner, c.owner)) && c.kind != "inv" {
			own = append(own, slot)
		}
	}
	if len(own) == 0 || pick(d, name+" foreign", false, false, false, false, false, true) {
		return d.slot(name)
	}
	return pick(d, name, own...)
}

// human is one of the people; who may be the service as well.
func (d *driver) human() int { return rapid.IntRange(0, 1).Draw(d.rt, "human") }

func (d *driver) who() int { return rapid.IntRange(0, len(d.model.people)-1).Draw(d.rt, "who") }

// pass lets time pass: some span, or to where something is decided, which is
// where mistakes are.
func (d *driver) pass() {
	span := pick(d, "span", time.Microsecond, time.Minute, 9*time.Minute, 10*time.Minute, time.Hour, 6*time.Hour, day, 3*day, 7*day, 10*day)
	if len(d.model.tokens) > 0 && pick(d, "to an instant", true, true, false) {
		c := d.model.tokens[d.living("of")]
		behind := pick(d, "behind", 0, 0, 0, day, 7*day)
		if at := d.model.nearest(c).at.Add(behind + pick(d, "beside", 0, 0, -time.Microsecond, time.Microsecond)); at.After(d.model.now()) {
			span = at.Sub(d.model.now())
		}
	}
	if d.model.now().Add(span).After(d.from.Add(longest)) {
		d.rt.Skip("the history would be too long")
	}
	d.do(Op{Do: "pass", Span: span})
}

func (d *driver) use() {
	o := Op{Do: "use", By: d.living("by"), Name: pick(d, "scope", "", "jobs:read", "jobs:submit", "tokens:self")}
	if pick(d, "audit", false, false, false, true) {
		o.Do, o.Name = "audit", ""
	}
	d.do(o)
}

// enrol invites somebody or redeems an invite, or both.
func (d *driver) enrol() {
	var codes []int
	for slot, c := range d.model.tokens {
		if c.kind == "inv" {
			codes = append(codes, slot)
		}
	}
	if len(codes) > 0 && pick(d, "redeem", true, false) {
		d.do(Op{Do: "redeem", By: local, On: pick(d, "code", codes...)})
		return
	}
	if who := d.human(); pick(d, "at once", true, true, true, false) {
		d.enter(who)
	} else {
		d.do(Op{Do: "invite", By: local, Who: who})
	}
}

func (d *driver) key() string {
	if pick(d, "keyed", true, false) {
		d.keys++
		return fmt.Sprint("k", d.keys)
	}
	return ""
}

func (d *driver) keep(o Op) {
	if a := d.do(o); a.Code == "" && o.Key != "" {
		d.keyed = append(d.keyed, o)
	}
}

func (d *driver) create() {
	o := Op{Do: "create", By: d.living("by"), Replace: never, Name: pick(d, "name", "a", "b", "c"), Key: d.key()}
	o.Scopes = pick(d, "scopes", nil, nil, nil, []string{"jobs:read", "tokens:self"}, []string{"jobs:submit"}, []string{"audit:read"})
	o.Span = pick(d, "lifetime", 0, 0, 0, 15*time.Minute, time.Hour, 10*day, 30*day, 44*day, 60*day)
	if o.Fixed = o.Span > 0 && pick(d, "fixed", true, false); o.Fixed {
		o.Key = "" // the same instant later is another request
	}
	if pick(d, "replace", true, false, false) {
		if on := d.related(o.By, "replaced"); d.model.tokens[on].kind == "pat" {
			o.Replace = on
		}
	}
	d.keep(o)
}

func (d *driver) rotate() {
	o := Op{Do: "rotate", By: d.living("by")}
	if o.On = o.By; pick(d, "another", true, false) {
		o.On = d.related(o.By, "on")
	}
	o.Span = pick(d, "grace", day, day, day, 0, 5*time.Minute, 15*time.Minute, 7*day)
	o.Compromised = pick(d, "compromised", false, false, false, false, true)
	o.ReplaceUnused = pick(d, "replace unused", false, true)
	o.Key = d.key()
	d.keep(o)
}

// repeat asks again for an answer.
func (d *driver) repeat() {
	if len(d.keyed) == 0 {
		d.rt.Skip("no request to repeat")
	}
	o := d.keyed[rapid.IntRange(max(0, len(d.keyed)-3), len(d.keyed)-1).Draw(d.rt, "request")]
	if wait := d.model.replies[o.Key].until.Sub(d.model.now()); wait > 0 && pick(d, "wait", true, false) {
		d.do(Op{Do: "pass", Span: wait + pick(d, "beside", 0, -time.Microsecond)})
	}
	d.do(o)
}

// one is what is done to one token.
func (d *driver) one() {
	o := Op{Do: pick(d, "do", "suspend", "suspend", "resume", "resume", "renew", "renew", "revoke")}
	o.By = d.living("by")
	o.On = d.related(o.By, "on")
	if o.Do != "renew" && pick(d, "by an administrator", false, false, true) {
		o.By = local
	}
	d.do(o)
}

// hold stops a token for a while: its owner, an administrator or a report does
// so, in any order, and each tries to let it go on.
func (d *driver) hold() {
	by := d.living("by")
	on := d.related(by, "on")
	if pick(d, "quarantine", true, false) {
		d.do(Op{Do: "policy", By: local, Level: "platform", Rules: Rules{Quarantine: true}, Since: time.Microsecond})
		d.do(Op{Do: "pass", Span: time.Microsecond})
	}
	job := d.do(Op{Do: "submit", By: by})
	for range 5 {
		switch do := pick(d, "do", "suspend", "resume", "resume", "leak", "use", "job", "pass"); do {
		case "job":
			if job.Code == "" {
				d.do(Op{Do: pick(d, "job", "job-read", "job-cancel"), By: on, Job: job.Made})
			}
		case "leak":
			d.do(Op{Do: do, By: local, On: on})
		case "use":
			d.do(Op{Do: do, By: on})
		case "pass":
			d.do(Op{Do: do, Span: pick(d, "span", time.Minute, 6*time.Hour)})
		default:
			d.do(Op{Do: do, By: pick(d, "who", by, by, local), On: on})
		}
	}
}

func (d *driver) leak() {
	if len(d.model.jobs) > 0 && pick(d, "a handle", false, false, true) {
		d.do(Op{Do: "leak-handle", Job: rapid.IntRange(0, len(d.model.jobs)-1).Draw(d.rt, "job")})
		return
	}
	d.do(Op{Do: "leak", By: local, On: d.slot("on")})
}

func (d *driver) revokeAll() {
	o := Op{Do: "revoke-all", By: local, Who: d.who()}
	if pick(d, "own", true, false) {
		o = Op{Do: "revoke-all", By: d.living("by"), Keep: pick(d, "keep", true, true, false)}
	}
	d.do(o)
}

func (d *driver) person() {
	d.do(Op{Do: pick(d, "do", "offboard", "suspend-user", "resume-user", "resume-user"), By: local, Who: d.who()})
}

func (d *driver) groups() {
	if pick(d, "role", true, false) {
		d.do(Op{Do: "role", By: local, Who: d.who(), Role: pick(d, "role", "user", "auditor")})
		return
	}
	d.do(Op{Do: "groups", By: local, Who: d.who(), Groups: slices.Clone(pick(d, "groups", nil, []string{"a"}, []string{"b"}, []string{"a", "b"}))})
}

func (d *driver) policy() {
	o := Op{Do: "policy", By: local, Level: pick(d, "level", "platform", "group:a", "group:b")}
	r := &o.Rules
	r.MaxLifetime = pick(d, "max lifetime", 0, 0, 10*day, 30*day, 55*day)
	r.Idle = pick(d, "idle", 0, 0, time.Hour, 5*day, 12*day)
	r.Unused = pick(d, "unused", 0, 0, 0, time.Hour, 3*day)
	if r.RotateAfter = pick(d, "rotate after", 0, 0, 8*day, 20*day); r.RotateAfter > 0 {
		r.Enforced = pick(d, "enforced", true, false)
	}
	r.Lifetime = pick(d, "lifetime", 0, 0, day, 9*day)
	r.SessionsOnly = pick(d, "sessions only", false, false, false, false, false, true)
	r.MaxPersonal = pick(d, "max personal", 0, 0, 1, 3)
	r.Quarantine = o.Level == "platform" && pick(d, "quarantine", false, true)
	o.Since = pick(d, "since", 0, 0, time.Microsecond, time.Hour, 2*day, 14*day)
	d.do(o)
}

func (d *driver) submit() {
	d.do(Op{Do: "submit", By: d.living("by")})
}

func (d *driver) anyJob() int {
	if len(d.model.jobs) == 0 {
		d.rt.Skip("no job yet")
	}
	return rapid.IntRange(0, len(d.model.jobs)-1).Draw(d.rt, "job")
}

func (d *driver) job() {
	d.do(Op{Do: pick(d, "do", "job-read", "job-read", "job-cancel"), Job: d.anyJob(), By: d.living("by")})
}

func (d *driver) handle() {
	d.do(Op{Do: pick(d, "do", "handle-read", "handle-cancel"), Job: d.anyJob()})
}

// machine is what happens to the machine, and must change nothing.
func (d *driver) machine() {
	switch do := pick(d, "do", "flush", "flush", "restart", "crash", "set-back"); do {
	case "set-back":
		d.do(Op{Do: do, Span: pick(d, "span", time.Minute, time.Hour, 3*day)})
	default:
		d.do(Op{Do: do})
	}
}

// outage is a time in which no use could be recorded, up to now or to some
// instant before.
func (d *driver) outage() {
	o := Op{Do: "beat"}
	o.Span = min(pick(d, "span", 0, 0, time.Hour, day), d.model.now().Sub(d.model.beat))
	if pick(d, "outage", true, true, false) {
		span := pick(d, "outage", time.Minute, time.Minute+time.Microsecond, time.Hour, day, 4*day)
		if d.model.now().Add(span).After(d.from.Add(longest)) {
			d.rt.Skip("the history would be too long")
		}
		d.do(Op{Do: "beat", Span: d.model.now().Sub(d.model.beat)})
		d.do(Op{Do: "pass", Span: span})
		if !d.setBack && pick(d, "it was down", true, false) {
			d.do(Op{Do: "reopen"})
		}
	}
	d.do(o)
}
