package httpapi

import (
	"context"
	"fmt"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
)

type (
	createServiceIn struct {
		Idem
		Body api.CreateService
	}
	updateServiceIn struct {
		ByID
		IfMatch string `header:"If-Match" maxLength:"100"`
		Body    api.UpdateService
	}
	serviceTokensIn struct {
		ByID
		Paging
	}
	createServiceTokenIn struct {
		ByID
		Idem
		Body api.CreateToken
	}
)

func (a *API) listServices(ctx context.Context, s *policy.Subject, in *Paging) (api.Page[api.Service], error) {
	list, err := a.Authority.Services(ctx, s)
	if err != nil {
		return api.Page[api.Service]{Items: []api.Service{}}, err
	}
	return pageOf(in, list, a.viewService, func(v authority.Service) string { return string(v.ID) })
}

// pageOf is one page of a list that is had as a whole. The cursor is the last
// one that was shown.
func pageOf[T, V any](in *Paging, list []T, view func(T) V, id func(T) string) (api.Page[V], error) {
	page := api.Page[V]{Items: []V{}}
	if in.Cursor != "" {
		for len(list) > 0 && id(list[0]) != in.Cursor {
			list = list[1:]
		}
		if len(list) == 0 {
			return page, errCursor
		}
		list = list[1:]
	}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		page.NextCursor = id(list[in.Limit-1])
	}
	for _, v := range list {
		page.Items = append(page.Items, view(v))
	}
	return page, nil
}

func (a *API) createService(ctx context.Context, s *policy.Subject, in *createServiceIn) (api.Service, error) {
	return a.serviceOr(a.Authority.CreateService(ctx, s, authority.NewService(in.Body), authority.Idem{Key: in.Key, Presented: in.secret}))
}

func (a *API) serviceOr(v authority.Service, err error) (api.Service, error) {
	if err != nil {
		return api.Service{}, err
	}
	return a.viewService(v), nil
}

func (a *API) getService(ctx context.Context, s *policy.Subject, in *ByID) (api.Service, error) {
	return a.serviceOr(a.Authority.Service(ctx, s, in.ID))
}

func (a *API) updateService(ctx context.Context, s *policy.Subject, in *updateServiceIn) (api.Service, error) {
	version, err := ifMatch(in.IfMatch)
	if err != nil {
		return api.Service{}, err
	}
	b := in.Body
	return a.serviceOr(a.Authority.SetOwners(ctx, s, in.ID, authority.OwnerChange{
		Add: b.AddOwners, Remove: b.RemoveOwners, Group: b.Group, Force: b.Force, Version: version,
	}))
}

func (a *API) listServiceTokens(ctx context.Context, s *policy.Subject, in *serviceTokensIn) (api.Page[api.Token], error) {
	v, err := a.Authority.Service(ctx, s, in.ID)
	if err != nil {
		return api.Page[api.Token]{}, err
	}
	return a.tokensOf(ctx, s, v.ID, &in.Paging)
}

func (a *API) createServiceToken(ctx context.Context, s *policy.Subject, in *createServiceTokenIn) (api.Issued, error) {
	c, err := readCreate(in.Body)
	if err != nil {
		return api.Issued{}, err
	}
	made, err := a.Authority.CreateServiceToken(ctx, s, in.ID, c, authority.Idem{Key: in.Key, Presented: in.secret})
	if err != nil {
		return api.Issued{}, err
	}
	return a.viewIssued(ctx, made)
}

func (a *API) viewService(v authority.Service) api.Service {
	out := api.Service{
		ID: string(v.ID), Name: v.Name, Status: string(v.Status), Owners: []api.Owner{}, Group: v.OwnerGroup, ActiveOwners: len(v.Active),
		OwnerlessSince: instant(v.Since), QuarantineAt: instant(v.QuarantineAt()), Warning: a.ownerWarning(v.Name, v.Ownership),
		CreatedAt: v.CreatedAt, ETag: versionTag(v.Version),
	}
	ids := v.Owners
	if v.OwnerGroup != "" {
		ids = v.Active
	}
	for _, id := range ids {
		p, _ := a.Table.Principal(id)
		out.Owners = append(out.Owners, api.Owner{ID: string(id), Name: p.Name, Active: v.Controls(id)})
	}
	return out
}

// ownerWarning says what follows from too few owners; empty: there are enough.
func (a *API) ownerWarning(name string, o principal.Ownership) string {
	const fix = "Give it owners: gradegate service owners %s --add NAME"
	switch {
	case o.Stands():
		return ""
	case len(o.Active) == 1:
		return fmt.Sprintf("Only one active owner is left. "+fix, name)
	case a.Now().Before(o.QuarantineAt()):
		return fmt.Sprintf("Nobody has answered for it since %s; its tokens are quarantined from %s on. "+fix, stamp(o.Since), stamp(o.QuarantineAt()), name)
	}
	return fmt.Sprintf("Nobody has answered for it since %s: its tokens are quarantined. "+fix, stamp(o.Since), name)
}

func stamp(t time.Time) string { return t.UTC().Format("2 Jan 2006 at 15:04 MST") }

// warnings are what a holder should know of its own: a service of its owners.
func (a *API) warnings(s *policy.Subject) []api.Warning {
	if s.Principal.Kind != principal.Service {
		return nil
	}
	o := a.Table.Ownership(s.Principal)
	text := a.ownerWarning(s.Principal.Name, o)
	if text == "" {
		return nil
	}
	return []api.Warning{{Code: "service_owners", Detail: text}}
}

// userWithStrands is a person after a change, with the services that have too
// few owners by it.
func (a *API) userWithStrands(p principal.Principal, err error) (api.User, error) {
	if err != nil {
		return api.User{}, err
	}
	u := viewUser(p)
	if p.Status == principal.Active && len(p.Left) == 0 {
		return u, nil
	}
	for _, v := range a.Authority.Stranded(p) {
		u.Strands = append(u.Strands, a.viewService(v))
	}
	return u, nil
}

type (
	giveConsentIn struct {
		Idem
		Body api.GiveConsent
	}
	consentsIn struct {
		User string `query:"user" maxLength:"200" doc:"Somebody's id or name; for administrators and auditors, and for a service that one answers for"`
		Paging
	}
)

func (a *API) giveConsent(ctx context.Context, s *policy.Subject, in *giveConsentIn) (api.Consent, error) {
	span, err := duration(in.Body.ExpiresIn)
	if err != nil {
		return api.Consent{}, err
	}
	c, err := a.Authority.GiveConsent(ctx, s, authority.NewConsent{To: in.Body.To, For: span, Competitions: in.Body.Competitions},
		authority.Idem{Key: in.Key, Presented: in.secret})
	return consentOr(c, err)
}

func (a *API) listConsents(ctx context.Context, s *policy.Subject, in *consentsIn) (api.Page[api.Consent], error) {
	page := api.Page[api.Consent]{Items: []api.Consent{}}
	who, err := a.userOrService(ctx, s, in.User)
	if err != nil {
		return page, err
	}
	list, err := a.Authority.Consents(ctx, s, principal.ID(who))
	if err != nil {
		return page, err
	}
	return pageOf(&in.Paging, list, viewConsent, func(c authority.Consent) string { return c.ID })
}

func (a *API) withdrawConsent(ctx context.Context, s *policy.Subject, in *ByID) (api.Consent, error) {
	return consentOr(a.Authority.WithdrawConsent(ctx, s, in.ID))
}

func consentOr(c authority.Consent, err error) (api.Consent, error) {
	if err != nil {
		return api.Consent{}, err
	}
	return viewConsent(c), nil
}

func viewConsent(c authority.Consent) api.Consent {
	party := func(p principal.Principal) api.Party {
		return api.Party{ID: string(p.ID), Name: p.Name, Kind: string(p.Kind)}
	}
	return api.Consent{
		ID: c.ID, From: party(c.From), To: party(c.To), Competitions: allOr(c.Competitions), State: c.State,
		CreatedAt: c.GivenAt, ExpiresAt: c.Until, WithdrawnAt: instant(c.EndedAt),
	}
}

// userOrService is whose things are meant by a name: the subject's own, those of
// a service that it answers for, or anybody's for those who may see people.
func (a *API) userOrService(ctx context.Context, s *policy.Subject, name string) (string, error) {
	if p, ok := a.Table.PrincipalByName(strings.ToLower(name)); ok && a.Table.Controls(s.Principal.ID, p.ID) {
		return string(p.ID), nil
	}
	return a.userID(ctx, s, name)
}
