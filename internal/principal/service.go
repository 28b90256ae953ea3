package principal

import (
	"slices"
	"strings"
	"time"

	"gradegate/internal/fault"
)

// A service is a principal that is no person: two people, or a group, answer for
// it. Whether somebody still does is computed from the records of these people
// at the moment of use, so that nobody has to notice a departure.

const (
	// LeastOwners is how many active owners a service has to have.
	LeastOwners = 2
	// OwnerlessFor is how long the tokens of a service go on without any.
	OwnerlessFor = 7 * 24 * time.Hour
	mostOwners   = 20
)

// Departure says until when somebody was an active member of a group that they
// left, or that they joined while they were not active; the zero time: never.
type Departure struct {
	Group string
	At    time.Time
}

// departures are those of p once it is in these groups. What is older than a
// service without owners goes on decides nothing any more.
func (p Principal) departures(groups []string, now time.Time) []Departure {
	var out []Departure
	known := func(g string) bool {
		return slices.ContainsFunc(p.Left, func(d Departure) bool { return d.Group == g })
	}
	for _, d := range p.Left {
		switch in := slices.Contains(groups, d.Group); {
		case in && p.Status == Active: // it is one again
		case in, d.At.Add(OwnerlessFor).After(now):
			out = append(out, d)
		}
	}
	end := now
	if p.Status != Active {
		end = p.inactiveSince()
	}
	for _, g := range p.Groups {
		if !slices.Contains(groups, g) && !known(g) {
			out = append(out, Departure{g, end})
		}
	}
	for _, g := range groups {
		if !slices.Contains(p.Groups, g) && !known(g) && p.Status != Active {
			out = append(out, Departure{Group: g})
		}
	}
	return out
}

// back is p once it is active: of all groups that it is in.
func (p Principal) back() Principal {
	p.Status, p.InactiveSince = Active, time.Time{}
	p.Left = slices.DeleteFunc(slices.Clone(p.Left), func(d Departure) bool { return slices.Contains(p.Groups, d.Group) })
	return p
}

func (p *Principal) inactiveSince() time.Time {
	if p.InactiveSince.IsZero() {
		return p.ChangedAt // of a record that is older than this fact
	}
	return p.InactiveSince
}

// Ownership is who answers for a service at one moment.
type Ownership struct {
	Active []ID // the active owners, in the order of their ids
	// Since is when the last one went; zero while there is one.
	Since time.Time
}

// QuarantineAt is when the tokens of a service without owners are quarantined;
// zero: there is an owner.
func (o Ownership) QuarantineAt() time.Time {
	if o.Since.IsZero() {
		return time.Time{}
	}
	return o.Since.Add(OwnerlessFor)
}

// Stands reports whether there are enough owners.
func (o Ownership) Stands() bool { return len(o.Active) >= LeastOwners }

// Controls reports whether somebody is one of the active owners.
func (o Ownership) Controls(id ID) bool { return slices.Contains(o.Active, id) }

// OwnedBy tells who of these people answers for the service p, and if nobody
// does, since when. Whoever never was an owner changes nothing.
func (p Principal) OwnedBy(people []Principal) Ownership {
	o := Ownership{}
	last := p.OwnedSince
	for i := range people {
		switch active, until := p.owner(&people[i]); {
		case active:
			o.Active = append(o.Active, people[i].ID)
		case until.After(last):
			last = until
		}
	}
	slices.Sort(o.Active)
	if len(o.Active) == 0 {
		o.Since = last
	}
	return o
}

// owner reports whether somebody is an active owner of the service p, or until
// when they were one; the zero time means never.
func (p Principal) owner(who *Principal) (active bool, until time.Time) {
	if who.Kind != Human {
		return false, time.Time{}
	}
	named := slices.Contains(p.Owners, who.ID)
	member := p.OwnerGroup != "" && slices.Contains(who.Groups, p.OwnerGroup)
	if (named || member) && who.Status == Active {
		return true, time.Time{}
	}
	for _, d := range who.Left {
		if p.OwnerGroup != "" && d.Group == p.OwnerGroup {
			return false, d.At
		}
	}
	if named || member {
		return false, who.inactiveSince()
	}
	return false, time.Time{}
}

// Tied reports whether somebody is an owner of the service p, or was one not
// long ago.
func (p Principal) Tied(who *Principal) bool {
	active, until := p.owner(who)
	return active || !until.IsZero()
}

// Own returns the service with these owners, or with the members of a group.
func (p Principal) Own(owners []ID, group string, now time.Time) (Principal, error) {
	list := slices.Clone(owners)
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) > mostOwners || len(list) > 0 && group != "" {
		return p, fault.New(fault.Invalid, "owners_invalid", "A service has up to %d people as owners, or one group.", mostOwners).
			WithFix("gradegate service owners %s --group GROUP", p.Name)
	}
	if group != "" && (!nameRE.MatchString(group) || strings.Contains(group, "..")) {
		return p, fault.New(fault.Invalid, "group_invalid", "A group's name has 1 to 63 of a-z, 0-9, dot, dash and underscore.").
			WithFix("Use a name such as vision.")
	}
	if slices.Equal(list, p.Owners) && group == p.OwnerGroup {
		return p, nil
	}
	p.Owners, p.OwnerGroup, p.OwnedSince = list, group, now
	return p.changed(now), nil
}
