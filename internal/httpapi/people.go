package httpapi

import (
	"context"
	"errors"
	"strings"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

type (
	createUserIn struct {
		Idem
		Body api.CreateUser
	}
	inviteIn struct {
		ByID
		Idem
		Body *api.Invite
	}
	updateUserIn struct {
		ByID
		Body api.UpdateUser
	}
	offboardIn struct {
		ByID
		Body *api.Offboard
	}
	redeemIn struct {
		Idem
		Body api.Redeem
	}
	userTokensIn struct {
		ByID
		Paging
	}
)

// listUsers goes through users by id; the cursor is the last one shown.
func (a *API) listUsers(ctx context.Context, s *policy.Subject, in *Paging) (api.Page[api.User], error) {
	page := api.Page[api.User]{Items: []api.User{}}
	list, err := a.Authority.Users(ctx, s, principal.ID(in.Cursor), in.Limit+1)
	if err != nil {
		return page, err
	}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		page.NextCursor = string(list[in.Limit-1].ID)
	}
	for _, p := range list {
		page.Items = append(page.Items, viewUser(p))
	}
	return page, nil
}

func (a *API) createUser(ctx context.Context, s *policy.Subject, in *createUserIn) (api.User, error) {
	role, err := principal.ParseRole(in.Body.Role)
	if err != nil {
		return api.User{}, err
	}
	p, err := a.Authority.CreateUser(ctx, s, authority.NewUser{Name: in.Body.Name, Role: role, Email: in.Body.Email},
		authority.Idem{Key: in.Key, Presented: in.secret})
	return userOr(p, err)
}

func (a *API) updateUser(ctx context.Context, s *policy.Subject, in *updateUserIn) (api.User, error) {
	u := authority.UserUpdate{Email: in.Body.Email, Groups: in.Body.Groups}
	if in.Body.Role != nil {
		role, err := principal.ParseRole(*in.Body.Role)
		if err != nil {
			return api.User{}, err
		}
		u.Role = &role
	}
	if in.Body.Budget != nil {
		b, err := readBudget(in.Body.Budget)
		if err != nil {
			return api.User{}, err
		}
		u.Budget = &b
	}
	return a.userWithStrands(a.Authority.UpdateUser(ctx, s, in.ID, u))
}

func userOr(p principal.Principal, err error) (api.User, error) {
	if err != nil {
		return api.User{}, err
	}
	return viewUser(p), nil
}

func (a *API) getUser(ctx context.Context, s *policy.Subject, in *ByID) (api.User, error) {
	return userOr(a.Authority.User(ctx, s, in.ID))
}

func (a *API) listUserTokens(ctx context.Context, s *policy.Subject, in *userTokensIn) (api.Page[api.Token], error) {
	p, err := a.Authority.User(ctx, s, in.ID)
	if err != nil {
		return api.Page[api.Token]{}, err
	}
	return a.tokensOf(ctx, s, p.ID, &in.Paging)
}

func (a *API) inviteUser(ctx context.Context, s *policy.Subject, in *inviteIn) (api.Invited, error) {
	u := authority.NewUser{Name: in.ID}
	if b := in.Body; b != nil {
		u.Email = b.Email
		if b.Role != "" { // nothing said is not the same as "user": it never differs
			role, err := principal.ParseRole(b.Role)
			if err != nil {
				return api.Invited{}, err
			}
			u.Role = role
		}
	}
	i, err := a.Authority.Invite(ctx, s, u, authority.Idem{Key: in.Key, Presented: in.secret})
	if err != nil {
		return api.Invited{}, err
	}
	return api.Invited{
		Code: i.Code.Reveal(), ExpiresAt: i.Token.FixedEnd, User: viewUser(i.Principal), Reenrolled: i.Reenrolled,
	}, nil
}

func (a *API) suspendUser(ctx context.Context, s *policy.Subject, in *ByID) (api.User, error) {
	p, err := a.Authority.SuspendUser(ctx, s, in.ID)
	a.nudge()
	return a.userWithStrands(p, err)
}

func (a *API) resumeUser(ctx context.Context, s *policy.Subject, in *ByID) (api.User, error) {
	return userOr(a.Authority.ResumeUser(ctx, s, in.ID))
}

func (a *API) offboardUser(ctx context.Context, s *policy.Subject, in *offboardIn) (api.User, error) {
	wish := ""
	if in.Body != nil {
		wish = in.Body.Jobs
	}
	jobs, err := token.ParseWish(wish, token.CancelQueued)
	if err != nil {
		return api.User{}, err
	}
	if jobs == token.Keep {
		return api.User{}, fault.New(fault.Invalid, "jobs_unknown", "A leaver's queued jobs never start.").WithFix("Use cancel-queued or cancel.")
	}
	p, err := a.Authority.Offboard(ctx, s, in.ID, jobs == token.CancelAll)
	a.nudge()
	return a.userWithStrands(p, err)
}

func (a *API) revokeAllOfUser(ctx context.Context, s *policy.Subject, in *ByID) (api.User, error) {
	p, err := a.Authority.RevokeAll(ctx, s, in.ID, false)
	a.nudge()
	return userOr(p, err)
}

func (i *redeemIn) code() string { return i.Body.Code }

// redeem needs no credential: the code is one. A wrong code counts as a failed
// authentication of its address; the adapter sees to that.
func (a *API) redeem(ctx context.Context, s *policy.Subject, in *redeemIn) (api.Issued, error) {
	text := strings.TrimSpace(in.Body.Code)
	code, err := token.ReadSecret(text)
	if err != nil {
		return api.Issued{}, malformedCode(err, len(text))
	}
	made, who, err := a.Authority.Redeem(ctx, s, code, in.Body.Name, in.Key)
	if err != nil {
		return api.Issued{}, err
	}
	out, err := a.viewIssued(ctx, made)
	u := viewUser(who)
	out.User = &u
	return out, err
}

// malformedCode is like malformed, in words for an invite.
func malformedCode(err error, length int) error {
	if errors.Is(err, token.WrongLength) {
		return fault.New(fault.Unauthenticated, "invite_malformed", "The code has %d characters, an invite code has %d: it was probably cut off when it was copied.", length, token.SecretLen).WithFix("Copy the code again, whole. It begins with gginv_.")
	}
	return fault.New(fault.Unauthenticated, "invite_malformed", "The invite code is malformed: %v.", err).WithFix("Copy the code again, whole. It begins with gginv_.")
}
