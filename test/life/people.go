package life

import (
	"slices"
	"time"
)

var userScopes = []string{"jobs:submit", "jobs:read", "jobs:cancel", "results:read", "tokens:self"}

// byLocal is what the administrator at the server's own socket does.
func (m *Model) byLocal(o Op) Answer {
	switch o.Do {
	case "revoke":
		revoke(m.tokens[o.On], false)
		return done
	case "suspend", "resume":
		return m.stand(o, m.tokens[o.On], "admin", false)
	case "policy":
		return m.setPolicy(o)
	}
	p := m.people[o.Who]
	defer m.watch(m.services())
	switch o.Do {
	case "owners":
		return m.setOwners(o)
	case "invite":
		if p.service {
			return refused("service_invite")
		}
		return m.invite(p)
	case "offboard":
		if p.status != "gone" {
			p.status = "gone"
			p.person++
		}
	case "suspend-user", "resume-user":
		if p.status == "gone" {
			return refused("user_deprovisioned")
		}
		p.status = map[string]string{"suspend-user": "suspended", "resume-user": "active"}[o.Do]
	case "revoke-all":
		p.credentials++
	case "groups":
		p.groups = o.Groups
	case "role":
		if p.service && o.Role != "user" {
			return refused("service_role")
		}
		p.role = o.Role
	default:
		panic("life: " + o.Do)
	}
	return done
}

// invite makes a one-time code; the newest counts. For somebody who ever held
// a credential it is a re-enrolment: everything from before is dead.
func (m *Model) invite(p *person) Answer {
	if p.enrolled || p.status != "active" {
		p.status = "active"
		p.person++
	}
	for _, c := range m.of(p) {
		if c.kind == "inv" {
			revoke(c, false)
		}
	}
	c := credential{kind: "inv", owner: p, family: len(m.tokens), generation: 1, born: m.now(), fixed: m.now().Add(day), lifetime: day}
	return Answer{Made: m.add(c).slot}
}

func (m *Model) redeem(o Op) Answer {
	c := m.tokens[o.On]
	if state, _ := m.state(c); c.kind != "inv" || state != "active" {
		return refused("invite_invalid")
	}
	revoke(c, false)
	c.owner.enrolled = true
	scopes := slices.Clone(userScopes)
	if c.owner.role == "auditor" {
		scopes = append(scopes, "audit:read")
	}
	return Answer{Made: m.add(credential{
		kind: "ses", owner: c.owner, name: "session", scopes: scopes, family: len(m.tokens), generation: 1,
		born: m.now(), lifetime: 12 * time.Hour, fixed: m.now().Add(12 * time.Hour), most: day,
	}).slot}
}

// setPolicy replaces a level's rules. If nobody says when, they come into force
// at once, and in 14 days if they would end anybody's token earlier.
func (m *Model) setPolicy(o Op) Answer {
	now := m.now()
	is := m.levels[o.Level]
	if is == nil {
		is = &level{}
	}
	if n := is.next; !n.since.IsZero() && !n.since.After(now) {
		is = &level{now: n}
	}
	rules := o.Rules
	if o.Level == "platform" {
		rules = onPlatform(rules)
	}
	set := func(since time.Time) {
		if since.After(now) {
			m.levels[o.Level] = &level{now: is.now, next: rules.after(is.now, since)}
		} else {
			m.levels[o.Level] = &level{now: rules.after(is.now, now)}
		}
	}
	was := m.living()
	set(now.Add(o.Since))
	if o.Since == 0 && m.endsEarlier(was) {
		set(now.Add(14 * day))
	}
	return done
}

// living are the ends of all active tokens under the levels as they are.
func (m *Model) living() map[*credential]time.Time {
	out := map[*credential]time.Time{}
	for _, c := range m.tokens {
		if state, first := m.state(c); state == "active" {
			out[c] = first.at
		}
	}
	return out
}

func (m *Model) endsEarlier(was map[*credential]time.Time) bool {
	for c, at := range was {
		if m.nearest(c).at.Before(at) {
			return true
		}
	}
	return false
}

// doBeat notes that uses could be recorded during the last o.Span. What lies
// between that and the note before is an outage if it is longer than a minute.
func (m *Model) doBeat(o Op) Answer {
	able := m.now().Add(-o.Span)
	if able.Sub(m.beat) > time.Minute {
		m.outages = append(m.outages, span{m.beat, able})
	}
	m.beat = m.now()
	return done
}

func (m *Model) submit(h holder) Answer {
	if code := h.may("jobs:submit", h.owner, false); code != "" {
		return refused(code)
	}
	m.jobs = append(m.jobs, &task{owner: h.owner, via: h.credential, person: h.owner.person, submitted: m.now()})
	return Answer{Made: len(m.jobs) - 1}
}

// job reads or cancels one: its owner's business, with whatever token. An
// auditor reads all of them.
func (m *Model) job(o Op, h holder) Answer {
	j := m.jobs[o.Job]
	scope := map[string]string{"job-read": "jobs:read", "job-cancel": "jobs:cancel"}[o.Do]
	code, own := "", j.owner == h.owner || h.mode == "" && m.controls(h.owner, j.owner)
	switch {
	case h.mode == "late" && j.owner != h.owner:
		code = h.late()
	case !own && o.Do == "job-read" && h.owner.role == "auditor":
		if code = h.mayAudit(); code == "scope_missing" {
			code = "job_not_found"
		}
	case !own, h.mode == "late" && !j.submitted.Before(h.first.at):
		code = "job_not_found"
	default:
		code = h.may(scope, j.owner, true)
	}
	if code != "" {
		return refused(code)
	}
	if o.Do == "job-cancel" && j.ended.IsZero() {
		j.ended = m.now()
	}
	return done
}

func (m *Model) byHandle(o Op) Answer {
	j := m.jobs[o.Job]
	if code := m.enterHandle(j); code != "" {
		return refused(code)
	}
	if o.Do == "handle-cancel" && j.ended.IsZero() {
		j.ended = m.now()
	}
	return done
}
