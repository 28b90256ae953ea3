package life

import (
	"slices"
	"time"
)

// A service is one more of the people: somebody else answers for it. The model
// does what the real one must not need: it watches, and notes when the last
// owner goes.

// stranded is how long a service goes on without anybody who answers for it.
const stranded = 7 * day

// addService makes a service for which the first two people answer.
func (m *Model) addService() {
	m.people = append(m.people, &person{status: "active", role: "user", service: true, owners: slices.Clone(m.people[:2])})
}

// controls reports whether somebody answers for a service at this moment.
func (m *Model) controls(p, s *person) bool {
	named := slices.Contains(s.owners, p) || s.ownerGroup != "" && slices.Contains(p.groups, s.ownerGroup)
	return s.service && named && p.status == "active" && !p.service
}

func (m *Model) answering(s *person) (n int) {
	for _, p := range m.people {
		if m.controls(p, s) {
			n++
		}
	}
	return n
}

// watch looks at all services after something has happened to people.
func (m *Model) watch(before map[*person]int) {
	for s, n := range before {
		switch after := m.answering(s); {
		case after > 0:
			s.ownerless = time.Time{}
		case n > 0:
			s.ownerless = m.now()
		}
	}
}

func (m *Model) services() map[*person]int {
	out := map[*person]int{}
	for _, p := range m.people {
		if p.service {
			out[p] = m.answering(p)
		}
	}
	return out
}

// quarantines reports whether nobody has answered for the service for too long.
func (m *Model) quarantines(p *person) bool {
	return p.service && !p.ownerless.IsZero() && !m.now().Before(p.ownerless.Add(stranded))
}

// setOwners is what an administrator says about who answers for a service.
func (m *Model) setOwners(o Op) Answer {
	s, p := m.people[len(m.people)-1], m.people[o.Who]
	owners, group := slices.Clone(s.owners), ""
	switch o.Name {
	case "add":
		switch {
		case p.service:
			return refused("owner_service")
		case p.status != "active":
			return refused("user_inactive")
		case slices.Contains(owners, p) && s.ownerGroup == "":
			return done
		}
		owners = append(owners, p)
	case "remove":
		i := slices.Index(owners, p)
		if i < 0 {
			return refused("owner_not_found")
		}
		owners = slices.Delete(owners, i, i+1)
	case "group":
		if s.ownerGroup == "a" {
			return done
		}
		owners, group = nil, "a"
	}
	s.owners, s.ownerGroup = owners, group
	if m.answering(s) == 0 {
		s.ownerless = m.now() // whoever says so has a week to think again
	}
	return done
}

// mint makes a token of the service, which only those do who answer for it.
func (m *Model) mint(o Op, h holder) Answer {
	s := m.people[len(m.people)-1]
	owns := h.mode == "" && m.controls(h.owner, s)
	switch {
	case owns || h.owner == s:
		if code := h.may("tokens:self", h.owner, false); code != "" {
			return refused(code)
		}
	case h.owner.role == "auditor" && h.mode == "quarantined":
		return refused("denied")
	case h.owner.role != "auditor" || !slices.Contains(h.scopes, "audit:read"):
		return refused("service_not_found")
	}
	if !owns {
		return refused("not_an_owner")
	}
	if s.status != "active" {
		return refused("user_inactive")
	}
	for _, c := range m.of(s) {
		state, _ := m.state(c)
		if c.name == o.Name && c.kind == "svc" && c.successor == nil && (state == "active" || state == "suspended" || state == "quarantined") {
			return refused("name_taken")
		}
	}
	var most []string
	for _, x := range h.scopes {
		if slices.Contains(userScopes, x) && (len(o.Scopes) > 0 || x != "tokens:self") {
			most = append(most, x)
		}
	}
	scopes := o.Scopes
	if len(scopes) == 0 {
		scopes = most
	}
	if len(scopes) == 0 || !within(scopes, most) {
		return refused("scope_widened")
	}
	c, code := m.draft(o, h, s, "svc", scopes)
	if code != "" {
		return refused(code)
	}
	c.idle = 100 * day
	return Answer{Made: m.add(c).slot}
}
