package authn

import (
	"cmp"
	"maps"
	"slices"

	"gradegate/internal/principal"
)

// services is what it takes to find, when a person changes, the services that
// they answer for, and the other way round. It is guarded by Table.applying.
type services struct {
	all map[principal.ID]bool
	// members are those who are or were in a group; their records say which.
	members map[string]map[principal.ID]bool
}

// index remembers a principal that was stored. Call it with applying held.
func (t *Table) index(p principal.Principal) {
	if p.Kind == principal.Service {
		t.services.all[p.ID] = true
		return
	}
	add := func(group string) {
		if t.services.members[group] == nil {
			t.services.members[group] = map[principal.ID]bool{}
		}
		t.services.members[group][p.ID] = true
	}
	for _, g := range p.Groups {
		add(g)
	}
	for _, d := range p.Left {
		add(d.Group)
	}
}

// touched are the services that any of these people may answer for. Call it
// with applying held.
func (t *Table) touched(people []principal.Principal) map[principal.ID]bool {
	out := map[principal.ID]bool{}
	for id := range t.services.all {
		s := t.owner(id).person.Load()
		if s == nil {
			continue
		}
		for i := range people {
			if slices.Contains(s.Principal.Owners, people[i].ID) || s.Principal.OwnerGroup != "" && t.services.members[s.Principal.OwnerGroup][people[i].ID] {
				out[id] = true
				break
			}
		}
	}
	return out
}

// recompute stores services anew. Call it with applying held.
func (t *Table) recompute(ids map[principal.ID]bool) {
	for id := range ids {
		o := t.owner(id)
		if p := o.person.Load(); p != nil {
			o.person.Store(t.personUnder(p.Principal))
		}
	}
}

// ownedBy is who answers for the service p, given the people in the table. Call
// it with applying held.
func (t *Table) ownedBy(p *principal.Principal, instead ...principal.Principal) principal.Ownership {
	ids := slices.Clone(p.Owners)
	if p.OwnerGroup != "" {
		ids = slices.AppendSeq(ids, maps.Keys(t.services.members[p.OwnerGroup]))
	}
	people := slices.Clone(instead)
	for _, id := range ids {
		if slices.ContainsFunc(instead, func(x principal.Principal) bool { return x.ID == id }) {
			continue
		}
		if who := t.owner(id).person.Load(); who != nil {
			people = append(people, who.Principal)
		}
	}
	return p.OwnedBy(people)
}

// Ownership is who answers for the service p as it stands there, which may be
// newer than what the table has, with these people in the place of those of
// the same id.
func (t *Table) Ownership(p principal.Principal, instead ...principal.Principal) principal.Ownership {
	t.applying.Lock()
	defer t.applying.Unlock()
	return t.ownedBy(&p, instead...)
}

// Controls reports whether somebody is at present one of the active owners of a
// service.
func (t *Table) Controls(who, service principal.ID) bool {
	t.mu.RLock()
	o := t.owners[service]
	t.mu.RUnlock()
	if o == nil {
		return false
	}
	p := o.person.Load()
	return p != nil && p.owned.Controls(who)
}

// Services are all services, by id.
func (t *Table) Services() (out []principal.Principal) {
	t.applying.Lock()
	defer t.applying.Unlock()
	for id := range t.services.all {
		if p := t.owner(id).person.Load(); p != nil {
			out = append(out, p.Principal)
		}
	}
	slices.SortFunc(out, func(a, b principal.Principal) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
