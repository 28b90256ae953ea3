package authority_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// team is a service with its owners ann and bob.
func (h house) team(t *testing.T) (ann, bob *policy.Subject, ci authority.Service) {
	t.Helper()
	ann, bob = h.subject(t, h.signIn(t, "ann").Secret), h.subject(t, h.signIn(t, "bob").Secret)
	ci, err := h.CreateService(t.Context(), local, authority.NewService{Name: "ci", Owners: []string{"ann", "bob"}}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	return ann, bob, ci
}

var local = &policy.Subject{Local: true}

func (h house) mint(t *testing.T, s *policy.Subject, name string) authority.Issued {
	t.Helper()
	made, err := h.CreateServiceToken(t.Context(), s, "ci", authority.Create{Name: name}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	if fault.CodeOf(err) != code || err == nil {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

// B14: the owners of a service make its tokens and end them; to everybody else
// there is no such service, and an administrator sees and ends, and makes none.
func TestServiceTokens(t *testing.T) {
	h, _ := timed(t)
	ann, bob, ci := h.team(t)
	eve := h.subject(t, h.signIn(t, "eve").Secret)
	made := h.mint(t, ann, "runner")
	k := made.Token
	if k.Kind != token.Service || k.Owner != ci.ID || k.Idle != token.ServiceIdle || slices.Contains(k.Scopes, policy.ScopeTokens) || !slices.Contains(k.Scopes, policy.ScopeSubmit) {
		t.Errorf("%+v", k)
	}
	runner := h.subject(t, made.Secret)
	if runner.Principal.ID != ci.ID || runner.Mode != "" {
		t.Errorf("%+v", runner)
	}
	_, err := h.CreateServiceToken(t.Context(), bob, "ci", authority.Create{Name: "runner"}, authority.Idem{})
	wantCode(t, "a name that is taken", err, "name_taken")
	_, err = h.CreateServiceToken(t.Context(), ann, "ci", authority.Create{Name: "x", Scopes: []string{policy.ScopeAdmin}}, authority.Idem{})
	wantCode(t, "a scope too many", err, "scope_widened")
	_, err = h.CreateToken(t.Context(), runner, authority.Create{Name: "x"}, authority.Idem{})
	wantCode(t, "a token of a service makes none", err, "scope_missing")
	own, err := h.CreateServiceToken(t.Context(), ann, "ci", authority.Create{Name: "rotating", Scopes: []string{policy.ScopeTokens}}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	rotating := h.subject(t, own.Secret)
	_, err = h.CreateToken(t.Context(), rotating, authority.Create{Name: "x"}, authority.Idem{})
	wantCode(t, "nor with the scope", err, "service_mints")
	_, err = h.EnsureToken(t.Context(), rotating, authority.Create{Name: "x"}, authority.Idem{})
	wantCode(t, "nor by name", err, "service_mints")
	if _, err := h.RotateToken(t.Context(), rotating, authority.Rotate{Token: "self"}, authority.Idem{}); err != nil {
		t.Errorf("it rotates itself: %v", err)
	}

	id := string(k.ID)
	for name, try := range map[string]func(s *policy.Subject) error{
		"show": func(s *policy.Subject) error { _, err := h.Find(t.Context(), s, id); return err },
		"rotate": func(s *policy.Subject) error {
			_, err := h.RotateToken(t.Context(), s, authority.Rotate{Token: id}, authority.Idem{})
			return err
		},
		"renew":   func(s *policy.Subject) error { _, err := h.Renew(t.Context(), s, id); return err },
		"suspend": func(s *policy.Subject) error { _, err := h.Suspend(t.Context(), s, id); return err },
		"revoke":  func(s *policy.Subject) error { _, err := h.Revoke(t.Context(), s, id, "", token.Keep); return err },
		"narrow": func(s *policy.Subject) error {
			_, err := h.NarrowToken(t.Context(), s, id, authority.Narrowing{Scopes: []string{policy.ScopeRead}})
			return err
		},
	} {
		wantCode(t, name+" by a stranger", try(eve), "token_not_found")
	}
	_, err = h.Service(t.Context(), eve, "ci")
	wantCode(t, "a stranger looks", err, "service_not_found")
	_, err = h.Service(t.Context(), eve, "no-such")
	wantCode(t, "a stranger looks for nothing", err, "service_not_found")
	_, err = h.CreateServiceToken(t.Context(), eve, "ci", authority.Create{Name: "x"}, authority.Idem{})
	wantCode(t, "a stranger mints", err, "service_not_found")
	_, err = h.CreateServiceToken(t.Context(), local, "ci", authority.Create{Name: "x"}, authority.Idem{})
	wantCode(t, "an administrator mints", err, "not_an_owner")
	_, err = h.RotateToken(t.Context(), local, authority.Rotate{Token: id}, authority.Idem{})
	if err == nil {
		t.Error("an administrator gets a secret by rotation")
	}
	_, err = h.Invite(t.Context(), local, authority.NewUser{Name: "ci"}, authority.Idem{})
	wantCode(t, "an administrator invites a service", err, "service_invite")
	admin := principal.Admin
	_, err = h.UpdateUser(t.Context(), local, "ci", authority.UserUpdate{Role: &admin})
	wantCode(t, "a service is raised", err, "service_role")

	if _, err := h.Renew(t.Context(), bob, id); err != nil {
		t.Error(err)
	}
	if _, err := h.Suspend(t.Context(), ann, id); err != nil {
		t.Error(err)
	}
	if _, err := h.Resume(t.Context(), bob, id); err != nil {
		t.Errorf("what one owner suspended the other resumes: %v", err)
	}
	if _, err := h.Suspend(t.Context(), local, id); err != nil {
		t.Error(err)
	}
	_, err = h.Resume(t.Context(), bob, id)
	wantCode(t, "what an administrator suspended", err, "suspended_by_admin")
	if _, err := h.Resume(t.Context(), local, id); err != nil {
		t.Error(err)
	}
	next, err := h.RotateToken(t.Context(), bob, authority.Rotate{Token: id}, authority.Idem{})
	if err != nil || next.Token.Owner != ci.ID || next.Token.Kind != token.Service || !h.alive(made.Secret) || !h.alive(next.Secret) {
		t.Errorf("%+v %v", next.Token, err)
	}
	_, err = h.ServiceTokens(t.Context(), eve, "ci")
	wantCode(t, "a stranger lists them", err, "service_not_found")
	if list, err := h.ServiceTokens(t.Context(), bob, "ci"); err != nil || len(list) < 4 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
}

// B14: nobody is taken by surprise when the owners go. One left is a warning, and
// a week after the last one the tokens are quarantined by the clock at their use;
// whoever becomes an owner sets them going again.
func TestOwnerLoss(t *testing.T) {
	h, clock := timed(t)
	ann, _, ci := h.team(t)
	made := h.mint(t, ann, "runner")
	owns := func() principal.Ownership {
		v, err := h.Service(t.Context(), local, "ci")
		must(t, err)
		return v.Ownership
	}
	state := func() string {
		s, _, err := h.table.Authenticate(made.Secret.Presented(), netip.Addr{})
		if err != nil {
			return fault.CodeOf(err)
		}
		return s.Mode
	}
	offboard := func(name string) []authority.Service {
		p, err := h.Offboard(t.Context(), local, name, false)
		must(t, err)
		return h.Stranded(p)
	}
	if got := offboard("bob"); len(got) != 1 || got[0].ID != ci.ID || len(owns().Active) != 1 || state() != "" {
		t.Errorf("one is left: %v, %+v, %s", got, owns(), state())
	}
	week := clock.Now().Add(principal.OwnerlessFor)
	if got := offboard("ann"); len(got) != 1 || !owns().QuarantineAt().Equal(week) || state() != "" {
		t.Errorf("none is left: %v, %+v, %s", got, owns(), state())
	}
	if h.alive(made.Secret) != true {
		t.Error("its tokens die at once")
	}
	clock.Add(week.Add(-time.Microsecond).Sub(clock.Now()))
	if state() != "" {
		t.Error("quarantined too early:", state())
	}
	clock.Add(time.Microsecond)
	if state() != policy.ModeQuarantined {
		t.Error("not quarantined in time:", state())
	}
	s := h.subject(t, made.Secret)
	wantCode(t, "it submits", policy.Decide(s, policy.JobSubmit, policy.Resource{Owner: ci.ID}), "service_ownerless")
	if err := policy.Decide(s, policy.JobCancel, policy.Resource{Owner: ci.ID}); err != nil {
		t.Errorf("its own jobs: %v", err)
	}
	if _, err := h.table.Admit(s); err == nil {
		t.Error("something is admitted for it")
	}
	// A node that starts with the records alone comes to the same.
	if v, err := h.View(t.Context(), made.Token); err != nil || v.State != token.StateQuarantined || !v.Ownerless {
		t.Errorf("%+v %v", v, err)
	}
	h.person(t, "carol")
	_, err := h.SetOwners(t.Context(), local, "ci", authority.OwnerChange{Add: []string{"carol"}})
	if err != nil || state() != "" {
		t.Errorf("somebody answers for it again: %v, %s", err, state())
	}
	events, err := h.store.PendingEvents(t.Context(), 1000)
	must(t, err)
	var told []string
	for _, e := range events {
		if e.Action == audit.ServiceOrphan {
			told = append(told, e.Detail["active_owners"]+" "+e.Detail["quarantine_at"])
		}
	}
	if want := []string{"1 ", "0 " + week.Format(time.RFC3339)}; !slices.Equal(told, want) {
		t.Errorf("the record says %q, want %q", told, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// B14: two active people, or a group of which two are active, answer for a
// service; fewer only by an administrator who says so, and nobody makes himself
// one of them.
func TestServiceOwners(t *testing.T) {
	h, clock := timed(t)
	ann, bob, _ := h.team(t)
	carol := h.subject(t, h.signIn(t, "carol").Secret)
	_, err := h.Invite(t.Context(), local, authority.NewUser{Name: "root", Role: principal.Admin}, authority.Idem{})
	must(t, err)
	rootP, err := h.User(t.Context(), local, "root")
	must(t, err)
	root := &policy.Subject{Principal: rootP, Scopes: policy.RoleScopes(principal.Admin)}
	set := func(s *policy.Subject, c authority.OwnerChange) (authority.Service, error) {
		return h.SetOwners(t.Context(), s, "ci", c)
	}
	for code, n := range map[string]authority.NewService{
		"owners_too_few": {Name: "a", Owners: []string{"ann"}}, "owners_invalid": {Name: "b", Owners: []string{"ann", "bob"}, Group: "vision"},
		"user_not_found": {Name: "c", Owners: []string{"ann", "nobody"}}, "owner_service": {Name: "d", Owners: []string{"ann", "ci"}},
	} {
		_, err := h.CreateService(t.Context(), local, n, authority.Idem{})
		wantCode(t, n.Name, err, code)
	}
	_, err = h.CreateService(t.Context(), local, authority.NewService{Name: "e", Owners: []string{"ann", "ann"}}, authority.Idem{})
	wantCode(t, "one person twice", err, "owners_too_few")
	_, err = h.CreateService(t.Context(), ann, authority.NewService{Name: "f", Owners: []string{"bob", "carol"}}, authority.Idem{})
	wantCode(t, "no administrator", err, "denied")
	_, err = h.CreateService(t.Context(), local, authority.NewService{Name: "g", Group: "vision"}, authority.Idem{})
	wantCode(t, "an empty group", err, "owners_too_few")

	_, err = set(carol, authority.OwnerChange{Add: []string{"ann"}})
	wantCode(t, "a stranger", err, "service_not_found")
	_, err = set(ann, authority.OwnerChange{Remove: []string{"bob"}})
	wantCode(t, "one would be left", err, "owners_too_few")
	_, err = set(ann, authority.OwnerChange{Remove: []string{"bob"}, Force: true})
	wantCode(t, "also by force", err, "owners_too_few")
	if fault.KindOf(err) != fault.Denied {
		t.Errorf("%v", err)
	}
	_, err = set(root, authority.OwnerChange{Add: []string{"root"}})
	wantCode(t, "an administrator himself", err, "that_is_you")
	if v, err := set(ann, authority.OwnerChange{Add: []string{"carol"}, Remove: []string{"bob"}}); err != nil || len(v.Active) != 2 {
		t.Errorf("%+v %v", v, err)
	}
	_, err = h.Service(t.Context(), bob, "ci")
	wantCode(t, "bob is no owner any more", err, "service_not_found")
	if v, err := set(local, authority.OwnerChange{Remove: []string{"ann", "carol"}, Force: true}); err != nil || len(v.Active) != 0 || !v.Since.Equal(clock.Now()) {
		t.Errorf("%+v %v", v, err)
	}

	team := []string{"vision"}
	for _, name := range []string{"ann", "bob"} {
		_, err := h.UpdateUser(t.Context(), local, name, authority.UserUpdate{Groups: &team})
		must(t, err)
	}
	if v, err := set(local, authority.OwnerChange{Group: "vision"}); err != nil || len(v.Active) != 2 {
		t.Errorf("%+v %v", v, err)
	}
	_, err = h.UpdateUser(t.Context(), root, "root", authority.UserUpdate{Groups: &team})
	wantCode(t, "an administrator joins", err, "that_is_you")
	made := h.mint(t, bob, "runner")
	none := []string{}
	left, err := h.UpdateUser(t.Context(), local, "bob", authority.UserUpdate{Groups: &none})
	must(t, err)
	if got := h.Stranded(left); len(got) != 1 || len(got[0].Active) != 1 {
		t.Errorf("bob left the group: %+v", got)
	}
	_, err = h.Suspend(t.Context(), bob, string(made.Token.ID))
	wantCode(t, "bob left", err, "token_not_found")
	if _, err := h.Suspend(t.Context(), ann, string(made.Token.ID)); err != nil {
		t.Error(err)
	}
}

// B14: no token of a service is made for somebody after it was acknowledged that
// they do not answer for it any more.
func TestNoMintAfterRemoval(t *testing.T) {
	h := open(t, policy.Rules{})
	ann, _ := h.person(t, "ann")
	h.person(t, "bob")
	h.person(t, "carol")
	if _, err := h.CreateService(t.Context(), local, authority.NewService{Name: "ci", Owners: []string{"ann", "bob", "carol"}}, authority.Idem{}); err != nil {
		t.Fatal(err)
	}
	for round := range 100 {
		var acknowledged atomic.Bool
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				began := acknowledged.Load()
				made, err := h.CreateServiceToken(context.Background(), ann, "ci", authority.Create{Name: string(token.NewSecret(token.Service).Presented().Public.ID()[4:])}, authority.Idem{})
				if err == nil && began {
					t.Errorf("round %d: %s was made afterwards", round, made.Token.ID)
				}
			})
		}
		if _, err := h.SetOwners(t.Context(), local, "ci", authority.OwnerChange{Remove: []string{"ann"}}); err != nil {
			t.Fatal(err)
		}
		n := len(h.tokensOf(t, "ci"))
		acknowledged.Store(true)
		wg.Wait()
		if after := len(h.tokensOf(t, "ci")); after != n {
			t.Fatalf("round %d: %d tokens at the acknowledgement, %d afterwards", round, n, after)
		}
		if _, err := h.SetOwners(t.Context(), local, "ci", authority.OwnerChange{Add: []string{"ann"}}); err != nil {
			t.Fatal(err)
		}
	}
}

func (h house) tokensOf(t *testing.T, name string) []token.Token {
	t.Helper()
	p, err := h.store.PrincipalByName(t.Context(), name)
	must(t, err)
	list, err := h.store.TokensOf(t.Context(), p.ID, authority.Among{})
	must(t, err)
	return list
}

// A token of a service, leaked, does not say who answers for it.
func TestServiceIsNoOwner(t *testing.T) {
	h, _ := timed(t)
	ann, _, ci := h.team(t)
	h.signIn(t, "eve")
	made, err := h.CreateServiceToken(t.Context(), ann, "ci", authority.Create{Name: "runner", Scopes: []string{policy.ScopeSubmit, policy.ScopeTokens}}, authority.Idem{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.SetOwners(t.Context(), h.subject(t, made.Secret), "ci", authority.OwnerChange{Add: []string{"eve"}, Remove: []string{"ann"}})
	wantCode(t, "takes itself over", err, "not_an_owner")
	if is, err := h.Service(t.Context(), ann, "ci"); err != nil || !slices.Equal(is.Owners, ci.Owners) {
		t.Error(is.Owners, err)
	}
}

// Nobody makes himself an owner by way of a group, nor hands a service over to one
// that he is not in; and force needs the right, not the role alone.
func TestServiceGroups(t *testing.T) {
	h, _ := timed(t)
	ann, _, _ := h.team(t)
	team := []string{"vision"}
	_, err := h.Invite(t.Context(), local, authority.NewUser{Name: "root", Role: principal.Admin}, authority.Idem{})
	must(t, err)
	for _, name := range []string{"root", "bob"} {
		_, err := h.UpdateUser(t.Context(), local, name, authority.UserUpdate{Groups: &team})
		must(t, err)
	}
	rootP, err := h.User(t.Context(), local, "root")
	must(t, err)
	root := &policy.Subject{Principal: rootP, Scopes: policy.RoleScopes(principal.Admin)}
	_, err = h.CreateService(t.Context(), root, authority.NewService{Name: "mine", Group: "vision"}, authority.Idem{})
	wantCode(t, "an administrator's own group", err, "that_is_you")
	_, err = h.SetOwners(t.Context(), ann, "ci", authority.OwnerChange{Group: "vision"})
	wantCode(t, "a group of others", err, "group_not_yours")

	_, err = h.SetOwners(t.Context(), local, "ci", authority.OwnerChange{Add: []string{"root"}, Remove: []string{"bob"}})
	must(t, err)
	root.Scopes = policy.UserScopes
	_, err = h.SetOwners(t.Context(), root, "ci", authority.OwnerChange{Remove: []string{"ann"}, Force: true})
	if wantCode(t, "by force, without the right", err, "owners_too_few"); fault.KindOf(err) != fault.Denied {
		t.Error(err)
	}
	_, err = h.UpdateUser(t.Context(), local, "ann", authority.UserUpdate{Groups: &team})
	must(t, err)
	ann.Principal.Groups = team
	if v, err := h.SetOwners(t.Context(), ann, "ci", authority.OwnerChange{Group: "vision"}); err != nil || v.OwnerGroup != "vision" {
		t.Errorf("her own group: %+v %v", v, err)
	}
}

// leaving is a table in which something happens just before a decision is admitted.
type leaving struct {
	*authn.Table
	do func()
}

func (l leaving) Admit(s *policy.Subject) (func(), error) {
	l.do()
	return l.Table.Admit(s)
}

// B14: who left the group that answers for a service decides nothing for it, also
// when the decision was begun before.
func TestNoOwnersAfterLeaving(t *testing.T) {
	h, clock := timed(t)
	ann, _, _ := h.team(t)
	h.signIn(t, "carol")
	team, none := []string{"vision"}, []string{}
	for _, name := range []string{"ann", "bob", "carol"} {
		_, err := h.UpdateUser(t.Context(), local, name, authority.UserUpdate{Groups: &team})
		must(t, err)
	}
	_, err := h.SetOwners(t.Context(), local, "ci", authority.OwnerChange{Group: "vision"})
	must(t, err)
	late := authority.New(h.store, leaving{h.table, func() {
		_, err := h.UpdateUser(t.Context(), local, "ann", authority.UserUpdate{Groups: &none})
		must(t, err)
	}}, keys.New([keys.Size]byte{1}), clock.Now)
	_, err = late.SetOwners(t.Context(), ann, "ci", authority.OwnerChange{Add: []string{"bob", "carol"}})
	wantCode(t, "she has left", err, "service_not_found")
	if v, err := h.Service(t.Context(), local, "ci"); err != nil || v.OwnerGroup != "vision" || len(v.Owners) > 0 {
		t.Errorf("%+v %v", v, err)
	}
}
