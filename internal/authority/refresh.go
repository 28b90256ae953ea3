package authority

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// A sign-in gives a session and a refresh token, which takes turns with its
// successors: each is used once, for the next session and the next refresh
// token. All of them are one family, and end together (RFC 6749 section 6, RFC
// 9700 section 4.14).

// refreshAgain is how long a lost answer to a refresh may be asked for again.
const refreshAgain = time.Minute

// Refresh asks for the next session of a sign-in.
type Refresh struct {
	Secret token.Secret
	Scopes []string // none: all that the sign-in has
	// Install is what the client calls its installation; empty: the address
	// stands for it. A used token that comes from the same one was repeated by
	// mistake; from another one, it was stolen.
	Install string
}

// signIn adds a refresh token to a new session.
func (a *Authority) signIn(made *Issued, install string) token.Token {
	made.Refresh = token.NewSecret(token.Refresh)
	p, s := made.Refresh.Presented(), &made.Token
	return token.Token{
		ID: p.Public.ID(), Version: 1, Kind: token.Refresh, Digest: p.Digest, Name: s.Name, Owner: s.Owner, Epochs: s.Epochs,
		Scopes: s.Scopes, Standing: token.Standard, Family: s.Family, Generation: s.Generation + 1, IssuedAt: s.IssuedAt, IssuedBy: s.IssuedBy,
		BornAt: s.BornAt, Renewal: token.Fixed, Lifetime: token.RefreshLifetime, FixedEnd: s.IssuedAt.Add(token.RefreshLifetime),
		MaxLifetime: token.RefreshMax, Note: install,
	}
}

// installMark is an installation as a record keeps it: recognised, not told.
func installMark(s *policy.Subject, install string) string {
	if install == "" {
		install = "at " + s.Addr.String()
	}
	sum := sha256.Sum256([]byte(install))
	return "install " + hex.EncodeToString(sum[:8])
}

// RefreshSession gives the next session of a sign-in and the next refresh token.
// The same refresh token gives the same answer for a minute, so that a lost
// answer signs nobody out; after that, or from another installation, a used one
// ends the family of who stole it, and of who lost it.
func (a *Authority) RefreshSession(ctx context.Context, s *policy.Subject, x Refresh) (Issued, error) {
	shown := x.Secret.Presented()
	id, ok := a.table.TokenOf(shown)
	if !ok || shown.Kind != token.Refresh {
		return Issued{}, errRefresh
	}
	mark := installMark(s, x.Install)
	r := repeat(s, Idem{Key: "refresh", Presented: x.Secret}, "session.refresh", nil)
	again := func(known Reply) (Issued, error) {
		used, err := a.store.Token(ctx, id)
		if err != nil {
			return Issued{}, err
		}
		if used.Note != mark {
			return Issued{}, a.stolen(ctx, s, used)
		}
		return a.reissue(ctx, r)(known)
	}
	return once(ctx, a, r, again, func() (Issued, error) { return a.refreshOnce(ctx, s, id, x, mark, r) })
}

func (a *Authority) refreshOnce(ctx context.Context, s *policy.Subject, id token.ID, x Refresh, mark string, r repeatable) (Issued, error) {
	old, err := a.store.Token(ctx, id)
	if err != nil {
		return Issued{}, err
	}
	p, err := a.store.Principal(ctx, old.Owner)
	if err != nil {
		return Issued{}, err
	}
	now := a.now()
	switch state, _ := a.state(&old, &p, now); {
	case state == token.StateRotated && old.Note != mark:
		return Issued{}, a.stolen(ctx, s, old)
	case state != token.StateActive:
		return Issued{}, fault.New(fault.Unauthenticated, "token_"+string(state), "The refresh token is %s.", strings.ReplaceAll(string(state), "_", " ")).
			WithFix("Sign in again: gradegate login --invite CODE")
	}
	made := a.session(p, old.Name, now)
	if made.Token.Scopes, err = policy.Narrow(x.Scopes, granted(&old, &p)); err != nil {
		return Issued{}, err
	}
	h := a.table.Holder(p)
	made.Refresh = token.NewSecret(token.Refresh)
	used, next, err := old.Rotate(token.Rotation{}, made.Refresh.Presented(), &h, a.table.History(&old), now)
	if err != nil {
		return Issued{}, err
	}
	// Sessions and refresh tokens are generations of one family, in turns.
	made.Token.Family, made.Token.Generation, next.Generation = old.Family, old.Generation+1, old.Generation+2
	used.Note, next.Note, next.FixedEnd = mark, mark, now.Add(old.Lifetime)
	d := Decision{Tokens: []TokenChange{{Old: &old, New: used}, {New: made.Token}, {New: next}}}
	d.Reply = a.reply(r, string(made.Token.ID), now, made.Secret, made.Refresh)
	d.Reply.Until = now.Add(refreshAgain)
	e := a.event(s, audit.TokenRenew, now)
	e.Actor, e.Token, e.Target, e.Owner = string(p.ID), string(old.ID), string(made.Token.ID), string(p.ID)
	e.Detail = map[string]string{"family": string(old.Family)}
	_, err = a.store.Commit(ctx, d, e)
	return made, err
}

// granted are the scopes of a sign-in that its owner still has.
func granted(t *token.Token, p *principal.Principal) (out []string) {
	has := policy.RoleScopes(p.Role)
	for _, s := range t.Scopes {
		if policy.Granted(has, s) {
			out = append(out, s)
		}
	}
	return out
}

// stolen ends the family of a used refresh token that came from elsewhere.
func (a *Authority) stolen(ctx context.Context, s *policy.Subject, used token.Token) error {
	who := *s
	who.Token, who.Kind = used.ID, used.Kind
	if err := a.Reused(ctx, &who); err != nil {
		return err
	}
	return errRefreshReused
}

var (
	errRefresh       = fault.New(fault.Unauthenticated, "token_unknown", "The refresh token is not valid.").WithFix("Sign in again: gradegate login --invite CODE")
	errRefreshReused = fault.New(fault.Unauthenticated, "token_reused",
		"The refresh token was used before, from another installation. Somebody may have stolen it, so this sign-in was ended everywhere.").
		WithFix("Sign in again (gradegate login --invite CODE) and look at what was done: gradegate audit search --actor ME")
)
