package hindsight

import (
	"net/netip"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Table is what is known now of tokens and of who they belong to.
type Table interface {
	Token(token.ID) (token.Token, bool)
	Principal(principal.ID) (principal.Principal, bool)
	Holder(principal.Principal) token.Holder
}

// Rehearsal plays recorded decisions again, as if other levels of policy had
// been in force since an instant, and counts what they would have refused. It
// asks the functions that decide about live requests. Its memory is bounded by
// the tokens that there are.
//
// What was used before the instant is only remembered: the idle clocks need it.
type Rehearsal struct {
	table  Table
	levels policy.Levels
	since  time.Time
	begins time.Time // of the trail: what happened before is not known
	routes Routes

	people map[principal.ID]*holder
	tokens map[token.ID]*played
	queue  []tried
	tally  Tally
}

// Routes says what a rehearsal has to know of the routes in lines.
type Routes interface {
	// Submits reports whether a route hands something in.
	Submits(route string) bool
	// Late reports whether it is open to a token that has just expired (R1.4).
	Late(route string) bool
}

// holder is a person under the proposed rules.
type holder struct {
	principal.Principal
	token.Holder
	rules []policy.Rules
}

// played is a token as far as the rehearsal has come.
type played struct {
	token.Token
	owner *holder
	seen  bool // a use of it was met
	last  time.Time
}

// tried is a use that is judged and not yet counted: what was announced may have
// been refused after all, by a line that follows.
type tried struct {
	audit.Event
	verdict
	token *played // nil if none is judged
	prior played
}

// verdict is what becomes of one use.
type verdict struct {
	refused bool
	rule    string // that refuses, or marks
	level   string
	unknown string // why it cannot be judged
	ended   bool   // it is at most a reading after the end, and no use
}

// NewRehearsal begins one. levels are those to play under; nothing is known of
// what happened before begins.
func NewRehearsal(t Table, levels policy.Levels, since, begins time.Time, routes Routes) *Rehearsal {
	return &Rehearsal{
		table: t, levels: levels, since: since, begins: begins, routes: routes,
		people: map[principal.ID]*holder{}, tokens: map[token.ID]*played{}, tally: newTally(),
	}
}

// WarmUp is how long before the instant uses must be known: the longest span
// that an idle clock of these levels has.
func WarmUp(levels *policy.Levels) time.Duration {
	longest := time.Duration(0)
	see := func(r *policy.Rules) { longest = max(longest, r.Idle.Span, r.ServiceIdle.Span, r.Unused.Span) }
	see(&levels.Base)
	for _, l := range levels.Named {
		see(&l.Rules)
		see(&l.Coming)
	}
	return min(longest, mostWarmUp)
}

const mostWarmUp = 100 * 24 * time.Hour

// Play takes the next line of the trail's uses.
func (r *Rehearsal) Play(e *audit.Event) {
	if e.Action != audit.Request {
		return
	}
	if e.Outcome == audit.Deny {
		r.takeBack(e)
		return
	}
	r.settle(e.At.Add(-patience), mostTried)
	u := r.try(e)
	if e.At.Before(r.since) {
		return
	}
	r.tally.Decisions++
	r.queue = append(r.queue, u)
}

// try judges a use, and remembers it for those that follow.
func (r *Rehearsal) try(e *audit.Event) tried {
	u := tried{Event: *e}
	switch {
	case e.Token == "": // handles and the local socket: none of these rules bears on them
		return u
	case !policy.Counts(e.Mode):
		u.unknown = "expired_read"
		return u
	}
	p := r.token(token.ID(e.Token))
	if p == nil {
		u.unknown = "token_gone"
		return u
	}
	u.token, u.prior = p, *p
	if !e.At.Before(r.since) {
		u.verdict = r.judge(p, e)
	}
	if !u.refused && !u.ended && e.At.After(p.last) {
		p.last, p.seen = e.At, true
	}
	return u
}

const (
	// patience is how long after an announcement its refusal may be written.
	patience  = time.Minute
	mostTried = 1 << 12
)

// takeBack forgets a use that was announced and then refused: it was none.
func (r *Rehearsal) takeBack(e *audit.Event) {
	for i := range r.queue {
		u := &r.queue[i]
		if u.Request != e.Request || u.Status != 0 || u.Token != e.Token {
			continue
		}
		if u.token != nil && u.token.last.Equal(u.At) {
			u.token.last, u.token.seen = u.prior.last, u.prior.seen
		}
		r.tally.Decisions--
		r.queue = append(r.queue[:i], r.queue[i+1:]...)
		return
	}
}

// settle counts what is older, and what is too many.
func (r *Rehearsal) settle(before time.Time, most int) {
	n := 0
	for n < len(r.queue) && (len(r.queue)-n > most || r.queue[n].At.Before(before)) {
		r.tally.add(&r.queue[n], r.routes.Submits(r.queue[n].Route))
		n++
	}
	r.queue = append(r.queue[:0], r.queue[n:]...)
}

// Tally is what came of it.
func (r *Rehearsal) Tally() *Tally {
	r.settle(time.Time{}, 0)
	return &r.tally
}

func (r *Rehearsal) token(id token.ID) *played {
	if p, ok := r.tokens[id]; ok {
		return p
	}
	var p *played
	if k, ok := r.table.Token(id); ok {
		if h := r.holder(k.Owner); h != nil {
			p = &played{Token: k, owner: h}
		}
	}
	r.tokens[id] = p // also that there is none
	return p
}

func (r *Rehearsal) holder(id principal.ID) *holder {
	if h, ok := r.people[id]; ok {
		return h
	}
	p, ok := r.table.Principal(id)
	if !ok {
		r.people[id] = nil
		return nil
	}
	h := &holder{Principal: p, Holder: r.table.Holder(p), rules: r.levels.For(p.Groups)}
	h.Terms = policy.Terms(h.rules)
	h.Holder.Status = principal.Active // he was, or it would not have been allowed
	r.people[id] = h
	return h
}

// judge is what would have become of a use. What somebody decided about the
// token is left out: it was allowed.
func (r *Rehearsal) judge(p *played, e *audit.Event) verdict {
	line, then := p, verdict{}
	for range mostParents {
		v := r.clocks(line, e.At)
		if v.ended && p.Parent == "" && r.routes.Late(e.Route) {
			then = verdict{unknown: "expired_read", ended: true} // depends on what was read
			break
		}
		if v.refused || v.unknown != "" {
			return v
		}
		if line.Parent == "" {
			break
		}
		if line = r.token(line.Parent); line == nil {
			return verdict{unknown: "token_gone"}
		}
	}
	addr, _ := netip.ParseAddr(e.Addr) // none is in no network, as in a request
	level, refused := policy.Outside(p.owner.rules, addr, e.At)
	if level == "" || then.ended && !refused {
		return then
	}
	return verdict{refused: refused, rule: "networks", level: level}
}

const mostParents = 4

// clocks judges one token of a line. Where its last use is not known, all that
// it may have been must come to the same.
func (r *Rehearsal) clocks(p *played, at time.Time) verdict {
	if p.seen || !p.IssuedAt.Before(r.begins) {
		return p.judge(p.last, r, at)
	}
	v := p.judge(r.begins, r, at)
	for _, last := range []time.Time{{}, p.IssuedAt} {
		if other := p.judge(last, r, at); other.refused != v.refused || other.ended != v.ended {
			return verdict{unknown: "history"}
		}
	}
	return v
}

// judge is the token at that instant, last used at last.
func (p *played) judge(last time.Time, r *Rehearsal, at time.Time) verdict {
	k := p.Token
	k.Standing, k.Epochs = token.Standard, p.owner.Holder.Epochs
	if k.RenewedAt.After(at) {
		k.RenewedAt = time.Time{} // later
	}
	if next, ok := r.table.Token(k.Successor); !ok || next.IssuedAt.After(at) {
		k.Successor, k.GraceUntil = "", time.Time{} // rotated later
	}
	state, end := k.Judge(&p.owner.Holder, token.History{LastUse: last}, at)
	if state == token.StateActive {
		return verdict{}
	}
	return verdict{refused: true, ended: k.ReadsAfter(&p.owner.Holder, state, end, at), rule: ruleOf(end.Clock, last.IsZero() && k.RenewedAt.IsZero(), k.Kind), level: end.Level}
}

// ruleOf is the demand behind a clock.
func ruleOf(c token.Clock, never bool, kind token.Kind) string {
	switch {
	case c == token.ClockMax:
		return "max_lifetime"
	case c == token.ClockIdle && never:
		return "unused"
	case c == token.ClockIdle && kind == token.Service:
		return "service_idle"
	case c == token.ClockIdle:
		return "idle"
	case c == token.ClockRotate:
		return "rotation"
	case c == token.ClockPolicy:
		return "sessions_only"
	}
	return string(c)
}
