// Package principal is the people and services that hold credentials: who they
// are, what role they have, and the two epochs that cut all their credentials
// off at once.
package principal

import (
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"

	"gradegate/internal/budget"
	"gradegate/internal/fault"
)

// ID names a principal: "usr_" and a sortable random part. It is never taken
// from the outside world.
type ID string

// Kind tells a person from a service.
type Kind string

// The kinds.
const (
	Human   Kind = "human"
	Service Kind = "service"
)

// Role is what a principal may do beyond its own things.
type Role string

// The roles, from least to most.
const (
	User    Role = "user"
	Auditor Role = "auditor" // reads audit and all records
	Admin   Role = "admin"
)

// ParseRole reads a role exactly as it is spelled; the empty string is User.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case "":
		return User, nil
	case User, Auditor, Admin:
		return r, nil
	}
	return "", fault.New(fault.Invalid, "role_unknown", "There is no such role.").
		WithFix("Use one of: user, auditor, admin.")
}

// Status is whether a principal may act.
type Status string

// The statuses. Deprovisioned is what off-boarding makes of somebody.
const (
	Active        Status = "active"
	Suspended     Status = "suspended"
	Deprovisioned Status = "deprovisioned"
)

// Epochs are two counters stamped into every credential at issue. A credential
// whose stamp is lower than its owner's is dead, whatever else it says: that
// makes revoke-all and off-boarding one write.
type Epochs struct {
	Credentials int64 // raised by revoke-all
	Person      int64 // raised by off-boarding and re-enrolment; kills job handles too
}

// Principal is one person or service. Values are immutable; transitions return
// a changed copy with the next version.
type Principal struct {
	ID      ID
	Version int64
	Name    string // unique, canonical
	Email   string
	Kind    Kind
	Role    Role
	Status  Status
	Epochs  Epochs
	// Enrolled is when this principal first held a credential; zero if never.
	// An invite for somebody enrolled is a re-enrolment.
	Enrolled time.Time
	// CancelBefore is a person epoch: jobs that were submitted under a lower one
	// are stopped even if they run. It is never lowered, so that a re-enrolment
	// does not forget what an off-boarding has decided.
	CancelBefore int64
	// Groups are the names of the groups whose policies bear on its tokens.
	Groups []string
	// Budget is what an administrator bounds this principal to, all tokens
	// together; grants raise that, and what policies allow.
	Budget budget.Budget
	Grants []budget.Grant
	// Left are the groups that it is not in any more, as far back as that decides
	// when a service lost its last owner.
	Left []Departure
	// InactiveSince is when a person who is not active stopped being so; zero for
	// who is active.
	InactiveSince time.Time
	// Owners are the people who answer for a service, or OwnerGroup is the group
	// whose members do; OwnedSince is when that was last said.
	Owners     []ID
	OwnerGroup string
	OwnedSince time.Time
	CreatedAt  time.Time
	ChangedAt  time.Time
}

var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CanonicalName is the one spelling of a user name: lower case, without
// surrounding space. Names that could be mistaken for one another are refused
// rather than repaired.
func CanonicalName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSpace(s))
	// What looks like an id, or like an actor of the audit trail, is no name.
	taken := name == "local" || name == "system" || strings.HasPrefix(name, "usr_")
	if taken || !nameRE.MatchString(name) || strings.Contains(name, "..") {
		return "", fault.New(fault.Invalid, "name_invalid",
			"A user name has 1 to 63 of a-z, 0-9, dot, dash and underscore, and begins and ends with a letter or digit.").
			WithFix("Choose a name such as ann or ann.lee.")
	}
	return name, nil
}

// Enrol returns the principal as it is once it holds its first credential.
func (p Principal) Enrol(now time.Time) Principal {
	if !p.Enrolled.IsZero() {
		return p
	}
	p.Enrolled = now
	return p.changed(now)
}

// Reenrol returns the principal with a new person epoch and an active status:
// everything issued before is dead for ever.
func (p Principal) Reenrol(now time.Time) Principal {
	p = p.back()
	p.Epochs.Person++
	return p.changed(now)
}

// CheckEmail refuses what is no bare address; none at all is fine.
func CheckEmail(s string) error {
	if s == "" {
		return nil
	}
	m, err := mail.ParseAddress(s)
	if err != nil || m.Name != "" || strings.ContainsAny(s, "\r\n") {
		return fault.New(fault.Invalid, "email_invalid", "That is no e-mail address.").WithFix("Give it as name@example.org")
	}
	return nil
}

// mostGroups bounds how many policies bear on one person.
const mostGroups = 32

// Update returns the principal with another role, address or groups; nil leaves
// them. It is the same version if nothing is different.
func (p Principal) Update(role *Role, email *string, groups *[]string, now time.Time) (Principal, error) {
	out := p
	if role != nil {
		out.Role = *role
	}
	if email != nil {
		out.Email = *email
	}
	if err := CheckEmail(out.Email); err != nil {
		return p, err
	}
	if groups != nil {
		list := slices.Clone(*groups)
		slices.Sort(list)
		out.Groups = slices.Compact(list)
		out.Left = p.departures(out.Groups, now)
		for _, g := range out.Groups {
			if !nameRE.MatchString(g) || strings.Contains(g, "..") || len(out.Groups) > mostGroups {
				return p, fault.New(fault.Invalid, "group_invalid", "A person is in at most %d groups, whose names have 1 to 63 of a-z, 0-9, dot, dash and underscore.", mostGroups).
					WithFix("Use names such as interns.")
			}
		}
	}
	if out.Role == p.Role && out.Email == p.Email && slices.Equal(out.Groups, p.Groups) {
		return p, nil
	}
	return out.changed(now), nil
}

// Offboard returns the principal as it is after leaving. It is final for every
// credential, and idempotent. cancelJobs stops the running jobs too.
func (p Principal) Offboard(cancelJobs bool, now time.Time) (Principal, bool) {
	before := p
	if p.Status != Deprovisioned {
		p = p.inactive(Deprovisioned, now)
		p.Epochs.Person++
	}
	if cancelJobs {
		p.CancelBefore = p.Epochs.Person
	}
	if p.Status == before.Status && p.CancelBefore == before.CancelBefore {
		return p, false
	}
	return p.changed(now), true
}

// Suspend returns the principal as it is while it may not act. It is reversible.
func (p Principal) Suspend(now time.Time) (Principal, error) {
	if p.Status == Deprovisioned {
		return p, ErrDeprovisioned
	}
	return p.inactive(Suspended, now).changed(now), nil
}

// Resume returns a suspended principal to active. Off-boarding is not undone
// by it.
func (p Principal) Resume(now time.Time) (Principal, error) {
	if p.Status == Deprovisioned {
		return p, ErrDeprovisioned
	}
	return p.back().changed(now), nil
}

// inactive is p in a status in which it may not act. How long that has been so
// already is not forgotten when it gets stricter.
func (p Principal) inactive(s Status, now time.Time) Principal {
	if p.Status = s; p.InactiveSince.IsZero() {
		p.InactiveSince = now
	}
	return p
}

// RevokeAll returns the principal with a new credentials epoch.
func (p Principal) RevokeAll(now time.Time) Principal {
	p.Epochs.Credentials++
	return p.changed(now)
}

// ErrDeprovisioned is the refusal to bring a leaver back by a side door.
var ErrDeprovisioned = fault.New(fault.Conflict, "user_deprovisioned", "This person was off-boarded.").
	WithFix("An administrator can re-enrol them: gradegate user invite NAME")

// Tighten is p with everything that image decides more strictly: the join of
// two records of one principal, for recovery.
func (p Principal) Tighten(image Principal) Principal {
	if image.Status.rank() > p.Status.rank() {
		p.Status = image.Status
		if p.InactiveSince.IsZero() {
			p.InactiveSince = image.InactiveSince
		}
	}
	p.Epochs.Credentials = max(p.Epochs.Credentials, image.Epochs.Credentials)
	p.Epochs.Person = max(p.Epochs.Person, image.Epochs.Person)
	p.CancelBefore = max(p.CancelBefore, image.CancelBefore)
	p.Version = max(p.Version, image.Version)
	return p.changed(image.ChangedAt)
}

func (s Status) rank() int {
	switch s {
	case Active:
		return 0
	case Suspended:
		return 1
	}
	return 2
}

func (p Principal) changed(now time.Time) Principal {
	p.Version++
	p.ChangedAt = now
	return p
}
