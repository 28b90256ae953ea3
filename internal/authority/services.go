package authority

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// NewService asks for a service: a principal that is no person, for which two
// people or a group answer.
type NewService struct {
	Name   string
	Owners []string // names or ids of people
	Group  string   // or the group whose members answer for it
}

// Service is a service and who answers for it at present.
type Service struct {
	principal.Principal
	principal.Ownership
}

// CreateService makes a service that holds no token yet. It has a quota of its
// own, so that it is for administrators to make one; its tokens are for its
// owners to make.
func (a *Authority) CreateService(ctx context.Context, s *policy.Subject, n NewService, idem Idem) (Service, error) {
	if err := policy.Decide(s, policy.ServiceCreate, policy.Resource{}); err != nil {
		return Service{}, err
	}
	r := repeat(s, idem, "service.create", n)
	again := func(known Reply) (Service, error) {
		p, err := a.store.Principal(ctx, principal.ID(known.Ref))
		return a.service(p), err
	}
	return once(ctx, a, r, again, func() (Service, error) {
		p, e, err := a.draftUser(s, NewUser{Name: n.Name})
		if err != nil {
			return Service{}, err
		}
		p.Kind = principal.Service
		if n.Group != "" {
			if err := a.notByHimself(s, p, n.Group); err != nil {
				return Service{}, err
			}
		}
		owners, err := a.people(ctx, s, n.Owners)
		if err != nil {
			return Service{}, err
		}
		if p, err = p.Own(owners, n.Group, p.CreatedAt); err != nil {
			return Service{}, err
		}
		p.Version = 1
		out := a.service(p)
		if !out.Stands() {
			return Service{}, errTooFewOwners.WithFix("gradegate service create %s --owner ann --owner bob    or    gradegate service create %s --group GROUP", p.Name, p.Name)
		}
		e.Action = audit.ServiceCreate
		e.Detail = ownersDetail(p)
		d := Decision{Principals: []PrincipalChange{{New: p}}, Reply: a.reply(r, string(p.ID), p.CreatedAt)}
		_, err = a.commit(ctx, s, d, e)
		return out, err
	})
}

var errTooFewOwners = fault.New(fault.Conflict, "owners_too_few", "Two active people have to answer for a service, or a group with two active members.")

func (a *Authority) service(p principal.Principal) Service {
	return Service{p, a.table.Ownership(p)}
}

func ownersDetail(p principal.Principal) map[string]string {
	ids := make([]string, len(p.Owners))
	for i, id := range p.Owners {
		ids[i] = string(id)
	}
	return map[string]string{"name": p.Name, "owners": strings.Join(ids, " "), "group": p.OwnerGroup}
}

// people are those who are to answer for a service: active ones. An
// administrator does not become an owner by his own act, since he would then
// make tokens that are others' to make.
func (a *Authority) people(ctx context.Context, s *policy.Subject, names []string) (ids []principal.ID, err error) {
	for _, name := range names {
		p, err := a.lookUp(ctx, name)
		if err != nil {
			return nil, err
		}
		switch {
		case p.Kind != principal.Human:
			return nil, fault.New(fault.Invalid, "owner_service", "%s is a service, and answers for nothing.", p.Name).WithFix("Name people.")
		case p.Status != principal.Active:
			return nil, fault.New(fault.Conflict, "user_inactive", "%s is not active.", p.Name).WithFix("Name somebody who is: gradegate user list")
		case !s.Local && p.ID == s.Principal.ID:
			return nil, fault.New(fault.Conflict, "that_is_you", "You cannot make yourself an owner of a service.").
				WithFix("Let one of its owners or another administrator do it.")
		}
		ids = append(ids, p.ID)
	}
	return ids, nil
}

// Services lists the services that the subject answers for, or all of them to
// those who may see everything.
func (a *Authority) Services(_ context.Context, s *policy.Subject) ([]Service, error) {
	out := []Service{}
	for _, p := range a.table.Services() {
		if p.Status != principal.Deprovisioned && policy.Decide(s, policy.ServiceRead, a.resource(s, p.ID)) == nil {
			out = append(out, a.service(p))
		}
	}
	if len(out) == 0 {
		return out, policy.Decide(s, policy.ServiceRead, policy.Resource{}) // without the scope, nothing is no answer
	}
	slices.SortFunc(out, func(x, y Service) int { return cmp.Compare(x.Name, y.Name) })
	return out, nil
}

// Service finds a service by id or name, for who answers for it and for who may
// see everything; to everybody else there is none.
func (a *Authority) Service(ctx context.Context, s *policy.Subject, idOrName string) (Service, error) {
	return a.serviceFor(ctx, s, policy.ServiceRead, idOrName)
}

func (a *Authority) serviceFor(ctx context.Context, s *policy.Subject, action policy.Action, idOrName string) (Service, error) {
	p, err := a.lookUp(ctx, idOrName)
	if err != nil && (fault.KindOf(err) == fault.NotFound || fault.KindOf(err) == fault.Invalid) || err == nil && p.Kind != principal.Service {
		return Service{}, errNoService
	}
	if err != nil {
		return Service{}, err
	}
	if err := policy.Decide(s, action, a.resource(s, p.ID)); err != nil {
		if fault.KindOf(err) == fault.NotFound {
			err = errNoService
		}
		return Service{}, err
	}
	return a.service(p), nil
}

var errNoService = fault.New(fault.NotFound, "service_not_found", "There is no such service, or you do not answer for it.").
	WithFix("gradegate service list")

// resource is what an action is aimed at that belongs to the owner: the
// subject's own, or that of a service that it answers for at this moment.
func (a *Authority) resource(s *policy.Subject, owner principal.ID) policy.Resource {
	return policy.Resource{Owner: owner, CoOwned: a.answersFor(s, owner)}
}

func (a *Authority) answersFor(s *policy.Subject, owner principal.ID) bool {
	return owner != s.Principal.ID && a.table.Controls(s.Principal.ID, owner)
}

// OwnerChange says who answers for a service from now on.
type OwnerChange struct {
	Add, Remove []string // names or ids
	Group       string   // in the place of all people; none of the others then
	// Force lets an administrator leave it with fewer than two active owners. At
	// none its tokens are quarantined after a week.
	Force   bool
	Version int64 // that must still stand; zero: any
}

// SetOwners changes who answers for a service. Its owners do that, and
// administrators, who alone may leave it with too few.
func (a *Authority) SetOwners(ctx context.Context, s *policy.Subject, idOrName string, c OwnerChange) (Service, error) {
	if s.Principal.Kind == principal.Service { // else a leaked token of it would be enough to take it over
		return Service{}, fault.New(fault.Denied, "not_an_owner", "A service does not say who answers for it.").
			WithFix("Let one of its owners do it: gradegate service owners %s", fault.Word(idOrName))
	}
	return retry(func() (Service, error) {
		old, err := a.serviceFor(ctx, s, policy.ServiceOwn, idOrName)
		if err != nil {
			return Service{}, err
		}
		if c.Version != 0 && c.Version != old.Version {
			return Service{}, fault.New(fault.Mismatched, "etag_mismatch", "The service has changed since you read it.").WithFix("Read it again: gradegate service show %s", old.Name)
		}
		owners, group, err := a.newOwners(ctx, s, old.Principal, c)
		if err != nil {
			return Service{}, err
		}
		now := a.now()
		p, err := old.Principal.Own(owners, group, now)
		if err != nil || p.Version == old.Version {
			return old, err
		}
		out := a.service(p)
		if err := enough(s, old, out, c.Force); err != nil {
			return Service{}, err
		}
		e := a.event(s, audit.ServiceOwners, now)
		e.Target, e.Owner, e.Detail = string(p.ID), string(p.ID), ownersDetail(p)
		events := []audit.Event{e}
		if len(out.Active) < min(principal.LeastOwners, len(old.Active)) {
			events = append(events, a.orphaned(s, out, now))
		}
		if _, err := a.commit(ctx, s, Decision{Principals: []PrincipalChange{{Old: &old.Principal, New: p}}}, events...); err != nil {
			return Service{}, err
		}
		for _, id := range old.Active { // who does not answer for it any more decides nothing for it after this
			if !out.Controls(id) {
				a.table.Drain(id)
			}
		}
		return out, nil
	})
}

func (a *Authority) newOwners(ctx context.Context, s *policy.Subject, p principal.Principal, c OwnerChange) ([]principal.ID, string, error) {
	if c.Group != "" {
		if len(c.Add)+len(c.Remove) > 0 {
			return nil, "", fault.New(fault.Invalid, "owners_invalid", "A service has people as owners, or one group.").WithFix("Use --group alone, or --add and --remove.")
		}
		if !s.IsAdmin() && !slices.Contains(s.Principal.Groups, c.Group) {
			return nil, "", fault.New(fault.Denied, "group_not_yours", "An owner hands a service over to a group that they are in.").WithFix("Ask an administrator.")
		}
		return nil, c.Group, a.notByHimself(s, p, c.Group)
	}
	added, err := a.people(ctx, s, c.Add)
	if err != nil {
		return nil, "", err
	}
	owners := append(slices.Clone(p.Owners), added...)
	for _, name := range c.Remove {
		who, err := a.lookUp(ctx, name)
		if err != nil {
			return nil, "", err
		}
		n := len(owners)
		if owners = slices.DeleteFunc(owners, func(id principal.ID) bool { return id == who.ID }); len(owners) == n {
			return nil, "", fault.New(fault.NotFound, "owner_not_found", "%s is not one of its owners.", who.Name).WithFix("gradegate service show %s", p.Name)
		}
	}
	if len(added) == 0 && len(c.Remove) == 0 {
		return p.Owners, p.OwnerGroup, nil
	}
	return owners, "", nil
}

// notByHimself: who is in the group that he makes the owner would become one.
func (a *Authority) notByHimself(s *policy.Subject, p principal.Principal, group string) error {
	if s.Local || !slices.Contains(s.Principal.Groups, group) || a.table.Controls(s.Principal.ID, p.ID) {
		return nil
	}
	return fault.New(fault.Conflict, "that_is_you", "You are in the group %s: you cannot make yourself an owner of a service.", group).
		WithFix("Let one of its owners or another administrator do it.")
}

// enough refuses to leave a service with too few owners. What was too few before
// may stay so, but not get fewer.
func enough(s *policy.Subject, old, is Service, force bool) error {
	if is.Stands() || len(is.Active) > 0 && len(is.Active) >= len(old.Active) {
		return nil
	}
	refused := errTooFewOwners.With("active_owners", len(is.Active))
	switch {
	case !force:
		return refused.WithFix("Add somebody in the same step: gradegate service owners %s --add NAME. An administrator may leave it with too few: --force", is.Name)
	case !s.IsAdmin() || !s.Local && !policy.Granted(s.Scopes, policy.ScopeAdmin):
		f := refused.WithFix("Add somebody in the same step, or ask an administrator.")
		f.Kind = fault.Denied
		return f
	}
	return nil
}

// orphaned is the record that a service has too few owners left, and of what
// follows from it.
func (a *Authority) orphaned(s *policy.Subject, v Service, now time.Time) audit.Event {
	e := a.event(s, audit.ServiceOrphan, now)
	e.Target, e.Owner = string(v.ID), string(v.ID)
	e.Detail = map[string]string{"name": v.Name, "active_owners": strconv.Itoa(len(v.Active))}
	if at := v.QuarantineAt(); !at.IsZero() {
		e.Detail["quarantine_at"] = at.Format(time.RFC3339)
	}
	return e
}

// orphans are the records for the services that a change of a person leaves with
// too few owners.
func (a *Authority) orphans(s *policy.Subject, old, is principal.Principal, now time.Time) (out []audit.Event) {
	for _, p := range a.table.Services() {
		if p.Status == principal.Deprovisioned || !p.Tied(&old) {
			continue
		}
		before, after := a.table.Ownership(p, old), a.table.Ownership(p, is)
		if !after.Stands() && len(after.Active) < len(before.Active) {
			out = append(out, a.orphaned(s, Service{p, after}, now))
		}
	}
	return out
}

// Stranded are the services that somebody answers or answered for and that have
// too few owners at present.
func (a *Authority) Stranded(who principal.Principal) (out []Service) {
	if who.Kind != principal.Human {
		return nil
	}
	for _, p := range a.table.Services() {
		if p.Status == principal.Deprovisioned || !p.Tied(&who) {
			continue
		}
		if v := a.service(p); !v.Stands() {
			out = append(out, v)
		}
	}
	return out
}

// ServiceTokens lists the newest tokens of a service.
func (a *Authority) ServiceTokens(ctx context.Context, s *policy.Subject, idOrName string) ([]token.Token, error) {
	v, err := a.Service(ctx, s, idOrName)
	if err != nil {
		return nil, err
	}
	return a.Tokens(ctx, s, v.ID, "", 1000)
}

// CreateServiceToken issues a token of a service to one of its owners, who
// alone sees its secret. It never has more than the token that asks for it, nor
// more than a service may have.
func (a *Authority) CreateServiceToken(ctx context.Context, s *policy.Subject, idOrName string, c Create, idem Idem) (Issued, error) {
	v, err := a.serviceFor(ctx, s, policy.ServiceRead, idOrName)
	if err != nil {
		return Issued{}, err
	}
	if !a.answersFor(s, v.ID) {
		return Issued{}, fault.New(fault.Denied, "not_an_owner", "Only who answers for a service makes its tokens.").
			WithFix("Ask one of its owners: gradegate service show %s", v.Name)
	}
	if err := policy.Decide(s, policy.TokenCreate, a.resource(s, v.ID)); err != nil {
		return Issued{}, err
	}
	if v.Status != principal.Active {
		return Issued{}, fault.New(fault.Conflict, "user_inactive", "The service %s is %s.", v.Name, v.Status).
			WithFix("Ask an administrator to run: gradegate user resume %s", v.Name)
	}
	r := repeat(s, idem, "service.token", []any{v.ID, c})
	return once(ctx, a, r, a.reissue(ctx, r), func() (Issued, error) {
		p, err := a.store.Principal(ctx, v.ID)
		if err != nil {
			return Issued{}, err
		}
		return a.createOnce(ctx, s, p, c, r)
	})
}

// ownerOf is the principal that owns a token: the subject's own, or a service.
func (a *Authority) ownerOf(ctx context.Context, s *policy.Subject, t *token.Token) (principal.Principal, error) {
	if t.Owner == s.Principal.ID {
		return s.Principal, nil
	}
	return a.store.Principal(ctx, t.Owner)
}
