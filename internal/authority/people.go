package authority

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/budget"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// NewUser asks for a principal.
type NewUser struct {
	Name  string
	Role  principal.Role
	Email string
}

// CreateUser makes a principal that holds no credential yet: invite it.
func (a *Authority) CreateUser(ctx context.Context, s *policy.Subject, u NewUser, idem Idem) (principal.Principal, error) {
	if err := policy.Decide(s, policy.UserManage, policy.Resource{}); err != nil {
		return principal.Principal{}, err
	}
	r := repeat(s, idem, "user.create", u)
	again := func(known Reply) (principal.Principal, error) { return a.store.Principal(ctx, principal.ID(known.Ref)) }
	return once(ctx, a, r, again, func() (principal.Principal, error) {
		p, e, err := a.draftUser(s, u)
		if err != nil {
			return p, err
		}
		d := Decision{Principals: []PrincipalChange{{New: p}}, Reply: a.reply(r, string(p.ID), p.CreatedAt)}
		_, err = a.commit(ctx, s, d, e)
		return p, err
	})
}

func (a *Authority) draftUser(s *policy.Subject, u NewUser) (principal.Principal, audit.Event, error) {
	name, err := principal.CanonicalName(u.Name)
	if err != nil {
		return principal.Principal{}, audit.Event{}, err
	}
	if err := principal.CheckEmail(u.Email); err != nil {
		return principal.Principal{}, audit.Event{}, err
	}
	now := a.now()
	p := principal.Principal{
		ID: principal.ID(newID("usr_", now)), Version: 1, Name: name, Email: u.Email,
		Kind: principal.Human, Role: u.Role, Status: principal.Active, CreatedAt: now, ChangedAt: now,
	}
	if p.Role == "" {
		p.Role = principal.User
	}
	e := a.event(s, audit.UserCreate, now)
	e.Target, e.Owner = string(p.ID), string(p.ID)
	e.Detail = map[string]string{"name": p.Name, "role": string(p.Role)}
	return p, e, nil
}

// Invited is a one-time code for a person. Whoever redeems it is that person.
type Invited struct {
	Code      token.Secret
	Token     token.Token
	Principal principal.Principal
	// Reenrolled is set when the person held credentials before: they are dead now.
	Reenrolled bool
	// Replayed is set when the same answer was given before.
	Replayed bool
}

// Invite makes a one-time code for a user, who is created if there is none of
// that name (u.Role and u.Email are for that case). For somebody who ever held
// a credential this is a re-enrolment: everything issued before is dead.
func (a *Authority) Invite(ctx context.Context, s *policy.Subject, u NewUser, idem Idem) (Invited, error) {
	if err := policy.Decide(s, policy.UserManage, policy.Resource{}); err != nil {
		return Invited{}, err
	}
	r := repeat(s, idem, "user.invite", u)
	return once(ctx, a, r, a.reinvite(ctx, r), func() (Invited, error) {
		out, err := a.inviteOnce(ctx, s, u, r)
		if fault.CodeOf(err) == "name_taken" && err != nil {
			return out, ErrMoved // somebody made the same user meanwhile: invite that one
		}
		return out, err
	})
}

// reinvite gives the code of a repeated request again.
func (a *Authority) reinvite(ctx context.Context, r repeatable) func(Reply) (Invited, error) {
	return func(known Reply) (Invited, error) {
		made, err := a.reissue(ctx, r)(known)
		if err != nil {
			return Invited{}, err
		}
		p, err := a.store.Principal(ctx, made.Token.Owner)
		held := !p.Enrolled.IsZero() && p.Enrolled.Before(made.Token.IssuedAt)
		return Invited{Code: made.Secret, Token: made.Token, Principal: p, Reenrolled: held, Replayed: true}, err
	}
}

func (a *Authority) inviteOnce(ctx context.Context, s *policy.Subject, u NewUser, r repeatable) (Invited, error) {
	now := a.now()
	var d Decision
	var events []audit.Event
	var out Invited
	known, err := a.lookUp(ctx, u.Name)
	switch {
	case err != nil && fault.KindOf(err) == fault.NotFound:
		p, e, err := a.draftUser(s, u)
		if err != nil {
			return out, err
		}
		out.Principal = p
		d.Principals, events = []PrincipalChange{{New: p}}, append(events, e)
	case err != nil:
		return out, err
	case known.Kind == principal.Service:
		return out, fault.New(fault.Invalid, "service_invite", "%s is a service: nobody signs in as one.", known.Name).
			WithFix("One of its owners makes its tokens: gradegate token create --service %s", known.Name)
	default:
		if u.Role != "" && u.Role != known.Role {
			return out, fault.New(fault.Conflict, "role_differs", "%s exists with the role %s; an invite does not change it.", known.Name, known.Role).
				WithFix("Leave --role out.")
		}
		out.Principal = known
		if !known.Enrolled.IsZero() || known.Status != principal.Active {
			out.Principal, out.Reenrolled = known.Reenrol(now), !known.Enrolled.IsZero()
			e := a.event(s, audit.UserReenrol, now)
			e.Target, e.Owner = string(known.ID), string(known.ID)
			d.Principals, events = []PrincipalChange{{Old: &known, New: out.Principal}}, append(events, e)
		}
		if d.Tokens, err = a.endInvites(ctx, known.ID); err != nil {
			return out, err
		}
	}
	out.Code = token.NewSecret(token.Invite)
	p := out.Code.Presented()
	out.Token = token.Token{
		ID: p.Public.ID(), Version: 1, Kind: token.Invite, Digest: p.Digest, Name: "invite",
		Owner: out.Principal.ID, Epochs: out.Principal.Epochs, Standing: token.Standard,
		Family: token.Family(newID("fam_", now)), Generation: 1, IssuedAt: now, IssuedBy: s.Actor(), BornAt: now,
		Renewal: token.Fixed, Lifetime: token.InviteLifetime, FixedEnd: now.Add(token.InviteLifetime),
	}
	d.Tokens = append(d.Tokens, TokenChange{New: out.Token})
	d.Reply = a.reply(r, string(out.Token.ID), now, out.Code)
	e := a.event(s, audit.InviteIssue, now)
	e.Target, e.Owner = string(out.Token.ID), string(out.Principal.ID)
	_, err = a.commit(ctx, s, d, append(events, e)...)
	return out, err
}

// endInvites ends the invites that were not redeemed: the newest one counts.
func (a *Authority) endInvites(ctx context.Context, owner principal.ID) ([]TokenChange, error) {
	open, err := a.store.TokensOf(ctx, owner, Among{Kind: token.Invite, Open: true})
	if err != nil {
		return nil, err
	}
	var out []TokenChange
	for _, t := range open {
		ended, _ := t.Revoke(token.Superseded, token.Keep, a.now())
		out = append(out, TokenChange{Old: &t, New: ended})
	}
	return out, nil
}

// Redeem turns a one-time code into a session token for the person it was made
// for. A code works once; the same Idempotency-Key gives the same answer again
// for ten minutes, so that a lost answer locks nobody out.
func (a *Authority) Redeem(ctx context.Context, s *policy.Subject, code token.Secret, name, key string) (Issued, principal.Principal, error) {
	if _, known := a.table.TokenOf(code.Presented()); !known {
		return Issued{}, principal.Principal{}, errInvite // before the store is asked for an answer under the key
	}
	r := repeat(s, Idem{Key: key, Presented: code}, "invite.redeem", name)
	made, err := once(ctx, a, r, a.reissue(ctx, r), func() (Issued, error) { return a.redeemOnce(ctx, s, code, name, r) })
	if err != nil {
		return Issued{}, principal.Principal{}, err
	}
	who, err := a.store.Principal(ctx, made.Token.Owner)
	return made, who, err
}

var errInvite = fault.New(fault.Unauthenticated, "invite_invalid", "The invite code is not valid: it was used, replaced or has lapsed, or it was mistyped.").
	WithFix("Ask an administrator for another one: gradegate user invite NAME")

func (a *Authority) redeemOnce(ctx context.Context, s *policy.Subject, code token.Secret, name string, r repeatable) (Issued, error) {
	shown := code.Presented()
	id, ok := a.table.TokenOf(shown)
	if !ok || shown.Kind != token.Invite {
		return Issued{}, errInvite
	}
	invite, err := a.store.Token(ctx, id)
	if err != nil {
		return Issued{}, err
	}
	p, err := a.store.Principal(ctx, invite.Owner)
	if err != nil {
		return Issued{}, err
	}
	now := a.now()
	if state, _ := a.state(&invite, &p, now); state != token.StateActive {
		return Issued{}, errInvite
	}
	if name == "" {
		name = "session"
	}
	if name, err = tokenName(name); err != nil {
		return Issued{}, err
	}
	used, _ := invite.Revoke(token.Redeemed, token.Keep, now)
	made := a.session(p, name, now)
	refresh := a.signIn(&made, installMark(s, ""))
	d := Decision{Tokens: []TokenChange{{Old: &invite, New: used}, {New: made.Token}, {New: refresh}}}
	d.Reply = a.reply(r, string(made.Token.ID), now, made.Secret, made.Refresh)
	e := a.event(s, audit.InviteRedeem, now)
	e.Actor, e.Token, e.Target, e.Owner = string(p.ID), string(invite.ID), string(made.Token.ID), string(p.ID)
	e.Detail = map[string]string{"name": name}
	events := []audit.Event{e}
	if p.Enrolled.IsZero() {
		before := p
		p = before.Enrol(now)
		d.Principals = []PrincipalChange{{Old: &before, New: p}}
		first := a.event(s, audit.UserEnrol, now)
		first.Actor, first.Target, first.Owner = string(p.ID), string(p.ID), string(p.ID)
		events = append(events, first)
	}
	_, err = a.commit(ctx, s, d, events...)
	return made, err
}

// session is a new session token of the person, for one machine.
func (a *Authority) session(p principal.Principal, name string, now time.Time) Issued {
	secret := token.NewSecret(token.Session)
	shown := secret.Presented()
	return Issued{Secret: secret, Token: token.Token{
		ID: shown.Public.ID(), Version: 1, Kind: token.Session, Digest: shown.Digest, Name: name,
		Owner: p.ID, Epochs: p.Epochs, Scopes: policy.RoleScopes(p.Role), Standing: token.Standard,
		Family: token.Family(newID("fam_", now)), Generation: 1, IssuedAt: now, IssuedBy: string(p.ID), BornAt: now,
		Renewal: token.Fixed, Lifetime: token.SessionLifetime, FixedEnd: now.Add(token.SessionLifetime), MaxLifetime: token.SessionMax,
	}}
}

// User finds a principal by id or name.
func (a *Authority) User(ctx context.Context, s *policy.Subject, idOrName string) (principal.Principal, error) {
	if err := policy.Decide(s, policy.UserRead, policy.Resource{}); err != nil {
		return principal.Principal{}, err
	}
	return a.lookUp(ctx, idOrName)
}

// Users lists principals by id, after the given one.
func (a *Authority) Users(ctx context.Context, s *policy.Subject, after principal.ID, limit int) ([]principal.Principal, error) {
	if err := policy.Decide(s, policy.UserRead, policy.Resource{}); err != nil {
		return nil, err
	}
	return a.store.Principals(ctx, after, limit)
}

func (a *Authority) lookUp(ctx context.Context, idOrName string) (principal.Principal, error) {
	var p principal.Principal
	var err error
	if strings.HasPrefix(idOrName, "usr_") {
		p, err = a.store.Principal(ctx, principal.ID(idOrName))
	} else {
		name, bad := principal.CanonicalName(idOrName)
		if bad != nil {
			return p, bad
		}
		p, err = a.store.PrincipalByName(ctx, name)
	}
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return p, fault.New(fault.NotFound, "user_not_found", "There is no such user.").WithFix("gradegate user list")
	}
	return p, err
}

// Offboard ends everything of a leaver at once: every token, session and job
// handle, for ever. Queued jobs never start; running ones are stopped if
// cancelJobs says so.
func (a *Authority) Offboard(ctx context.Context, s *policy.Subject, idOrName string, cancelJobs bool) (principal.Principal, error) {
	return a.person(ctx, s, idOrName, audit.UserOffboard, func(p principal.Principal) (principal.Principal, bool, error) {
		out, changed := p.Offboard(cancelJobs, a.now())
		return out, changed, nil
	})
}

// SuspendUser stops everything of a person until it is resumed.
func (a *Authority) SuspendUser(ctx context.Context, s *policy.Subject, idOrName string) (principal.Principal, error) {
	return a.person(ctx, s, idOrName, audit.UserSuspend, func(p principal.Principal) (principal.Principal, bool, error) {
		out, err := p.Suspend(a.now())
		return out, p.Status != principal.Suspended, err
	})
}

// ResumeUser lets a suspended person go on with the credentials they have.
func (a *Authority) ResumeUser(ctx context.Context, s *policy.Subject, idOrName string) (principal.Principal, error) {
	return a.person(ctx, s, idOrName, audit.UserResume, func(p principal.Principal) (principal.Principal, bool, error) {
		out, err := p.Resume(a.now())
		return out, p.Status != principal.Active, err
	})
}

func (a *Authority) person(ctx context.Context, s *policy.Subject, idOrName string, action audit.Action,
	to func(principal.Principal) (principal.Principal, bool, error),
) (principal.Principal, error) {
	if err := policy.Decide(s, policy.UserManage, policy.Resource{}); err != nil {
		return principal.Principal{}, err
	}
	return retry(func() (principal.Principal, error) {
		p, err := a.lookUp(ctx, idOrName)
		if err != nil {
			return p, err
		}
		if !s.Local && p.ID == s.Principal.ID && action.Tightens() {
			return p, errSelf
		}
		out, changed, err := to(p)
		if err == nil && !changed {
			a.table.SeenPrincipal(p) // it must be in force before it is said to be
			a.table.Drain(p.ID)
		}
		if err != nil || !changed {
			return p, err
		}
		e := a.event(s, action, a.now())
		e.Target, e.Owner = string(p.ID), string(p.ID)
		if action == audit.UserOffboard {
			e.Detail = map[string]string{"cancel_jobs": strconv.FormatBool(out.CancelBefore == out.Epochs.Person)}
		}
		events := append([]audit.Event{e}, a.orphans(s, p, out, e.At)...)
		if _, err := a.commit(ctx, s, Decision{Principals: []PrincipalChange{{Old: &p, New: out}}}, events...); err != nil {
			return p, err
		}
		a.table.Drain(p.ID)
		return out, nil
	})
}

// errSelf keeps the last administrator from locking everybody out.
var errSelf = fault.New(fault.Conflict, "that_is_you", "You cannot suspend or off-board yourself.").
	WithFix("Let another administrator do it, or do it on the server's machine with --data DIR.")

// RevokeAll ends all tokens of a user in one write. With keep, the token that
// asks is stamped with the new epoch and lives on; that is for one's own only.
func (a *Authority) RevokeAll(ctx context.Context, s *policy.Subject, idOrName string, keep bool) (principal.Principal, error) {
	own := idOrName == "" || idOrName == string(s.Principal.ID) || idOrName == s.Principal.Name
	if own {
		idOrName = string(s.Principal.ID)
		if err := policy.Decide(s, policy.TokenRevoke, policy.Resource{Owner: s.Principal.ID}); err != nil {
			return principal.Principal{}, err
		}
	} else if err := policy.Decide(s, policy.UserManage, policy.Resource{}); err != nil {
		return principal.Principal{}, err
	}
	return retry(func() (principal.Principal, error) {
		p, err := a.lookUp(ctx, idOrName)
		if err != nil {
			return p, err
		}
		now := a.now()
		out := p.RevokeAll(now)
		d := Decision{Principals: []PrincipalChange{{Old: &p, New: out}}}
		e := a.event(s, audit.UserRevokeAll, now)
		e.Target, e.Owner = string(p.ID), string(p.ID)
		if own && keep {
			t, err := a.store.Token(ctx, s.Token)
			if err != nil {
				return p, err
			}
			// Judged by the very records that the decision replaces: a token that
			// is dead by now must not stamp itself alive.
			if state, _ := a.state(&t, &p, now); state != token.StateActive {
				return p, fault.New(fault.Unauthenticated, "token_"+string(state), "The token is %s.", state)
			}
			d.Tokens = []TokenChange{{Old: &t, New: t.Restamp(out.Epochs)}}
			if err := a.restampRefresh(ctx, &d, t, p.Epochs, out.Epochs); err != nil {
				return p, err
			}
			e.Detail = map[string]string{"kept": string(t.ID)}
		}
		if _, err := a.commit(ctx, s, d, e); err != nil {
			return p, err
		}
		a.table.Drain(p.ID)
		return out, nil
	})
}

// restampRefresh keeps what gives a kept session its successors: without it the
// session would be the last of its sign-in.
func (a *Authority) restampRefresh(ctx context.Context, d *Decision, t token.Token, before, after principal.Epochs) error {
	others, err := a.signInOf(ctx, t)
	for _, k := range others {
		if k.Kind == token.Refresh && k.Successor == "" && k.Standing == token.Standard && k.Epochs == before {
			d.Tokens = append(d.Tokens, TokenChange{Old: &k, New: k.Restamp(after)})
		}
	}
	return err
}

// UserUpdate changes what is said of a person; nil members stay as they are.
type UserUpdate struct {
	Role   *principal.Role
	Email  *string
	Groups *[]string
	Budget *budget.Budget
}

// UpdateUser changes a person's role, address, groups or budget. Rights and policies
// follow at the next request, since they are looked at when a token is used.
func (a *Authority) UpdateUser(ctx context.Context, s *policy.Subject, idOrName string, u UserUpdate) (principal.Principal, error) {
	if err := policy.Decide(s, policy.UserManage, policy.Resource{}); err != nil {
		return principal.Principal{}, err
	}
	return retry(func() (principal.Principal, error) {
		p, err := a.lookUp(ctx, idOrName)
		if err != nil {
			return p, err
		}
		if u.Role != nil && *u.Role != p.Role && !s.Local && p.ID == s.Principal.ID {
			return p, errOwnRole
		}
		if u.Role != nil && *u.Role != principal.User && p.Kind == principal.Service {
			return p, fault.New(fault.Invalid, "service_role", "A service has no role but user.").WithFix("Leave --role out.")
		}
		if u.Groups != nil && !s.Local && p.ID == s.Principal.ID && a.wouldOwn(p, *u.Groups) {
			return p, errOwnGroups
		}
		out, err := p.Update(u.Role, u.Email, u.Groups, a.now())
		if err == nil && u.Budget != nil {
			out, err = out.SetBudget(*u.Budget, a.now())
		}
		if err != nil || out.Version == p.Version {
			return p, err
		}
		e := a.event(s, audit.UserUpdate, a.now())
		e.Target, e.Owner = string(p.ID), string(p.ID)
		e.Detail = map[string]string{"role": string(out.Role), "groups": strings.Join(out.Groups, " ")}
		if out.Budget != p.Budget {
			e.Detail["budget"] = cmp.Or(out.Budget.String(), "none")
		}
		events := append([]audit.Event{e}, a.orphans(s, p, out, e.At)...)
		if _, err := a.commit(ctx, s, Decision{Principals: []PrincipalChange{{Old: &p, New: out}}}, events...); err != nil {
			return p, err
		}
		a.table.Drain(p.ID)
		return out, nil
	})
}

// wouldOwn reports whether these groups would make somebody an owner of a
// service who is none.
func (a *Authority) wouldOwn(p principal.Principal, groups []string) bool {
	return slices.ContainsFunc(a.table.Services(), func(v principal.Principal) bool {
		return v.OwnerGroup != "" && slices.Contains(groups, v.OwnerGroup) && !slices.Contains(p.Groups, v.OwnerGroup)
	})
}

var errOwnGroups = fault.New(fault.Conflict, "that_is_you", "You cannot put yourself into a group that answers for a service.").
	WithFix("Let another administrator do it, or do it on the server's machine with --data DIR.")

// errOwnRole keeps the last administrator from locking everybody out.
var errOwnRole = fault.New(fault.Conflict, "that_is_you", "You cannot change your own role.").
	WithFix("Let another administrator do it, or do it on the server's machine with --data DIR.")
