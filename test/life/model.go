// Package life holds the life cycle of credentials twice: as a model in plain,
// slow Go, written from docs/requirements.md alone, and as the real service. Its
// tests drive both through the same random histories and compare every answer,
// and after every step the state and the nearest clock of every token.
//
// The model shares no code with the service. Where the two differ, one of them
// is wrong.
package life

import (
	"slices"
	"time"
)

const (
	day   = 24 * time.Hour
	never = -1 // a slot that names no token
	local = -1 // the administrator at the server's own socket
)

// What the platform demands where its policy says nothing: the configuration
// of the service that is tested, with spans that a short history can outlive.
const (
	baseLifetime    = 20 * day
	baseMaxLifetime = 45 * day
	basePersonal    = 2
)

// Model is the whole state of the life cycle.
type Model struct {
	at      time.Time
	people  []*person
	tokens  []*credential // by slot
	jobs    []*task
	levels  map[string]*level
	beat    time.Time // until when it is on record that uses could be recorded
	outages []span
	replies map[string]*reply
}

type span struct{ from, until time.Time }

type person struct {
	status      string // active, suspended, gone
	role        string // user, auditor
	groups      []string
	credentials int // epochs
	person      int
	enrolled    bool

	// Of a service: who answers for it, and since when nobody has.
	service    bool
	owners     []*person
	ownerGroup string
	ownerless  time.Time
}

// credential is a personal token, a session, an invite, or a token of a service.
type credential struct {
	slot                int
	kind                string // pat, ses, inv, svc
	owner               *person
	name                string
	scopes              []string
	credentials, person int // its owner's epochs at issue

	standing string // standard, suspended, quarantined, revoked
	by       string // of the suspension: owner, admin
	fatal    bool   // revoked for a reason that ends the handles of its jobs

	family, generation     int
	predecessor, successor *credential
	rotated                time.Time // when it got its successor
	grace                  time.Time // when its grace period ends at the latest

	issued, born time.Time
	lifetime     time.Duration
	fixed        time.Time // its end, if use does not move it
	idle, unused time.Duration
	most         time.Duration // from the family's birth
	used         time.Time     // last; zero: never
	renewed      time.Time     // by another credential; zero: never
}

// task is a job with its handle.
type task struct {
	owner     *person
	via       *credential
	person    int // its owner's person epoch at submit
	submitted time.Time
	ended     time.Time
	leaked    bool
}

// reply is what an Idempotency-Key remembers.
type reply struct {
	slot  int
	until time.Time
}

// NewModel begins at an instant, with people who hold nothing.
func NewModel(at time.Time, people int) *Model {
	m := &Model{at: at, beat: at, levels: map[string]*level{}, replies: map[string]*reply{}}
	m.levels["platform"] = &level{now: dated{Rules: onPlatform(Rules{})}}
	for range people {
		m.people = append(m.people, &person{status: "active", role: "user"})
	}
	return m
}

// now is the instant that is decided on. The tests check that it never runs
// backwards nor ahead of what has passed; how a machine's clock becomes it is
// not modelled.
func (m *Model) now() time.Time { return m.at }

// state is what a token is at this moment: what somebody decided comes before
// what a clock says.
func (m *Model) state(c *credential) (string, end) {
	now, first := m.now(), m.nearest(c)
	passed := !first.at.IsZero() && !now.Before(first.at)
	switch {
	case c.stands() == "revoked", c.credentials < c.owner.credentials, c.person < c.owner.person:
		return "revoked", first
	case c.owner.status != "active":
		return "owner_inactive", first
	case c.stands() == "suspended":
		return "suspended", first
	case passed && !c.grace.IsZero() && (first.clock == "grace_until" || !now.Before(c.grace)):
		return "rotated", first
	case passed && first.clock == "idle_expires_at":
		return "idle_expired", first
	case passed:
		return "expired", first
	}
	if c.stands() == "quarantined" || m.quarantines(c.owner) {
		return "quarantined", first
	}
	return "active", first
}

// stands is the strictest standing of a token and its successors: what stops
// one of them stops those before it.
func (c *credential) stands() string {
	worst := c.standing
	for s := c.successor; s != nil; s = s.successor {
		if slices.Index(strictness, s.standing) > slices.Index(strictness, worst) {
			worst = s.standing
		}
	}
	return worst
}

var strictness = []string{"standard", "quarantined", "suspended", "revoked"}

// holder is what a request is allowed as: a token, and in which mode.
type holder struct {
	*credential
	model *Model
	mode  string // "", quarantined, late
	first end
}

// enter is authentication: the refusal is empty if there is none.
func (m *Model) enter(slot int) (holder, string) {
	c := m.tokens[slot]
	state, first := m.state(c)
	h := holder{credential: c, model: m, first: first}
	switch {
	case state == "active":
	case state == "quarantined":
		h.mode = "quarantined"
	case m.readsAfter(c, state, first):
		h.mode = "late"
	case state == "owner_inactive":
		return h, state
	default:
		return h, "token_" + state
	}
	if c.kind == "inv" {
		return h, "token_unknown"
	}
	return h, ""
}

// readsAfter is R1.4: its end was a clock and nothing but a clock, a day ago at
// most.
func (m *Model) readsAfter(c *credential, state string, first end) bool {
	return (state == "expired" || state == "idle_expired") && c.standing == "standard" && c.successor == nil &&
		first.clock != "policy" && m.now().Before(first.at.Add(day)) && !m.quarantines(c.owner)
}

// enterHandle is the same for the handle of a job. It survives whatever
// happens to the token that submitted the job, except a leak.
func (m *Model) enterHandle(j *task) string {
	switch {
	case j.leaked, j.owner.person > j.person, j.via.standing == "revoked" && j.via.fatal:
		return "token_revoked"
	case j.owner.status != "active":
		return "owner_inactive"
	case !j.ended.IsZero() && !m.now().Before(j.ended.Add(7*day)):
		return "token_expired"
	}
	return ""
}

// may asks whether the holder may do something of its own owner, or of a service
// that this one answers for, that needs a scope. Quarantine and the time after the end leave its own jobs.
func (h holder) may(scope string, owner *person, ofJob bool) string {
	own := owner == h.owner || h.mode == "" && h.model.controls(h.owner, owner)
	switch {
	case h.mode == "late" && (!ofJob || owner != h.owner):
		return h.late()
	case !own:
		return "not_found"
	case h.mode == "quarantined" && !ofJob && h.model.quarantines(h.owner):
		return "service_ownerless"
	case h.mode == "quarantined" && !ofJob:
		return "denied"
	case scope != "" && !slices.Contains(h.scopes, scope):
		return "scope_missing"
	}
	return ""
}

func (h holder) late() string {
	if h.first.clock == "idle_expires_at" {
		return "token_idle_expired"
	}
	return "token_expired"
}

// use is what a request that was allowed leaves behind.
func (m *Model) use(h holder) {
	if h.mode != "late" {
		h.used = m.now()
	}
}

// counts is R3.1: which personal tokens of a person are in the way of another.
func (m *Model) counts(c *credential) bool {
	state, _ := m.state(c)
	return c.kind == "pat" && c.successor == nil && (state == "active" || state == "suspended" || state == "quarantined")
}

func (m *Model) of(p *person) (own []*credential) {
	for _, c := range m.tokens {
		if c.owner == p {
			own = append(own, c)
		}
	}
	return own
}

func (m *Model) add(c credential) *credential {
	c.slot, c.standing = len(m.tokens), "standard"
	c.credentials, c.person, c.issued = c.owner.credentials, c.owner.person, m.now()
	m.tokens = append(m.tokens, &c)
	return &c
}
