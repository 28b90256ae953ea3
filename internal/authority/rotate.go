package authority

import (
	"context"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// Rotate asks for a successor of a token.
type Rotate struct {
	Token         string // id, name or "self"
	Grace         *time.Duration
	Compromised   bool
	ReplaceUnused bool
}

// RotateToken gives one of the subject's own tokens a successor with a new
// secret. Under any race there is exactly one successor per generation;
// everybody else is told that it exists. The same Idempotency-Key gives the
// same secret again for ten minutes, also after a crash.
func (a *Authority) RotateToken(ctx context.Context, s *policy.Subject, r Rotate, idem Idem) (Issued, error) {
	q := repeat(s, idem, "token.rotate", r)
	return once(ctx, a, q, a.reissue(ctx, q), func() (Issued, error) { return a.rotateOnce(ctx, s, r, q) })
}

func (a *Authority) rotateOnce(ctx context.Context, s *policy.Subject, r Rotate, q repeatable) (Issued, error) {
	old, err := a.find(ctx, s, r.Token)
	if err != nil {
		return Issued{}, err
	}
	if err := policy.Decide(s, policy.TokenRotate, policy.Resource{Owner: old.Owner}); err != nil {
		return Issued{}, masked(err)
	}
	if err := covers(s, &old); err != nil {
		return Issued{}, err
	}
	now := a.now()
	use := a.table.LastUse(old.ID)
	if err := rotatable(&old, s, use.At, now); err != nil {
		return Issued{}, err
	}
	var d Decision
	if old.Successor != "" {
		replaced, err := a.replaceSuccessor(ctx, old, r, now)
		if err != nil {
			return Issued{}, err
		}
		d.Tokens = append(d.Tokens, replaced)
	}
	grace := token.DefaultGrace
	if r.Grace != nil {
		grace = *r.Grace
	}
	secret := token.NewSecret(old.Kind)
	before, successor, err := old.Rotate(token.Rotation{Grace: grace, Compromised: r.Compromised}, secret.Presented(), use.At, now)
	if err != nil {
		return Issued{}, err
	}
	successor.IssuedBy = s.Actor()
	made := Issued{Secret: secret, Token: successor, Predecessor: &before}
	// The predecessor's row first: it carries the version that decides a race.
	d.Tokens = append([]TokenChange{{Old: &old, New: before}}, append(d.Tokens, TokenChange{New: successor})...)
	d.Reply = a.reply(q, string(successor.ID), secret, now)

	e := a.event(s, audit.TokenRotate, now)
	e.Target, e.Owner = string(old.ID), string(old.Owner)
	e.Detail = map[string]string{"successor": string(successor.ID), "grace_until": before.GraceUntil.Format(time.RFC3339)}
	if r.Compromised {
		e.Reason = string(token.Compromised)
	}
	if _, err := a.commit(ctx, s, d, e); err != nil {
		return Issued{}, err
	}
	if r.Compromised {
		a.table.Drain(old.Owner)
	}
	return made, nil
}

// covers refuses to hand out, by a rotation, a secret that can do more than
// the token that asks.
func covers(s *policy.Subject, t *token.Token) error {
	if t.ID == s.Token {
		return nil
	}
	if _, err := policy.Narrow(t.Scopes, s.Scopes); err != nil {
		return err
	}
	if len(s.Competitions) > 0 && len(t.Competitions) == 0 {
		return errWider
	}
	if err := narrowCompetitions(t.Competitions, s.Competitions); err != nil {
		return err
	}
	_, err := narrowNetworks(t.CIDRs, s.CIDRs, false)
	return err
}

var errWider = fault.New(fault.Denied, "token_wider", "That token can do more than the one you use.").
	WithFix("Use that token itself, or your session: gradegate login")

// rotatable refuses what has ended: a token that is over has nothing to pass on.
func rotatable(t *token.Token, s *policy.Subject, lastUse, now time.Time) error {
	switch t.Kind {
	case token.Personal, token.Service, token.Legacy:
	default:
		return fault.New(fault.Invalid, "kind_not_rotatable", "A token of kind %s is not rotated.", t.Kind).
			WithFix("Make a personal token: gradegate token create")
	}
	if state := t.State(s.Principal.Status, s.Principal.Epochs, lastUse, now); state != token.StateActive {
		return fault.New(fault.Conflict, "token_"+string(state), "The token is %s and has nothing to pass on.", state).
			WithFix("Create another one: gradegate token create")
	}
	return nil
}

// replaceSuccessor ends a successor whose secret was lost before it was used.
// Only an explicit wish does that; otherwise the successor's id is the answer.
func (a *Authority) replaceSuccessor(ctx context.Context, old token.Token, r Rotate, now time.Time) (TokenChange, error) {
	already := fault.New(fault.Conflict, "already_rotated", "The token was rotated already; its successor is %s.", old.Successor).
		With("successor", string(old.Successor))
	if !r.ReplaceUnused {
		return TokenChange{}, already.WithFix(
			"Use the successor. If its secret was lost and it was never used: gradegate token rotate %s --replace-unused", old.Name)
	}
	succ, err := a.store.Token(ctx, old.Successor)
	if err != nil {
		return TokenChange{}, err
	}
	if use := a.table.LastUse(succ.ID); !use.At.IsZero() || succ.Standing == token.Revoked || succ.Successor != "" {
		return TokenChange{}, already.WithFix("The successor was used or has ended: use it, or sign in again: gradegate login")
	}
	ended, _ := succ.Revoke(token.Superseded, token.Keep, now)
	return TokenChange{Old: &succ, New: ended}, nil
}

// Revocation is what Revoke answers.
type Revocation struct {
	Token    token.Token
	Already  bool // it was revoked before
	Revision int64
}

// Revoke ends a token for good. Any token may end itself; others need to be
// one's own, or an administrator's business. When it returns, no request with
// the token is allowed on this node, and no job of it is admitted.
func (a *Authority) Revoke(ctx context.Context, s *policy.Subject, idOrName, note string, jobs token.Wish) (Revocation, error) {
	return retry(func() (Revocation, error) {
		t, err := a.find(ctx, s, idOrName)
		if err != nil {
			return Revocation{}, err
		}
		if t.ID != s.Token {
			if err := policy.Decide(s, policy.TokenRevoke, policy.Resource{Owner: t.Owner}); err != nil {
				return Revocation{}, masked(err)
			}
		}
		return a.end(ctx, s, t, by(s, &t), jobs, audit.TokenRevoke, note)
	})
}

// by says in which part the subject acts on a token.
func by(s *policy.Subject, t *token.Token) token.Reason {
	if s.Local || s.Principal.ID != t.Owner {
		return token.ByAdmin
	}
	return token.ByOwner
}

// end revokes one token in one decision, and drains what was being admitted.
func (a *Authority) end(ctx context.Context, s *policy.Subject, t token.Token, reason token.Reason, jobs token.Wish, action audit.Action, note string) (Revocation, error) {
	now := a.now()
	ended, changed := t.Revoke(reason, jobs, now)
	if !changed {
		return Revocation{Token: t, Already: true}, nil
	}
	e := a.event(s, action, now)
	e.Target, e.Owner, e.Reason = string(t.ID), string(t.Owner), string(reason)
	e.Detail = map[string]string{"jobs": string(jobs)}
	if note != "" {
		e.Detail["note"] = audit.Clean(note, 200)
	}
	revision, err := a.commit(ctx, s, Decision{Tokens: []TokenChange{{Old: &t, New: ended}}}, e)
	if err != nil {
		return Revocation{}, err
	}
	a.table.Drain(t.Owner)
	return Revocation{Token: ended, Revision: revision}, nil
}

// Suspend stops a token until it is resumed.
func (a *Authority) Suspend(ctx context.Context, s *policy.Subject, idOrName string) (token.Token, error) {
	return a.stand(ctx, s, idOrName, audit.TokenSuspend, token.Token.Suspend)
}

// Resume lets a suspended token go on. Its clocks ran on meanwhile. What an
// administrator suspended, only an administrator resumes.
func (a *Authority) Resume(ctx context.Context, s *policy.Subject, idOrName string) (token.Token, error) {
	return a.stand(ctx, s, idOrName, audit.TokenResume, token.Token.Resume)
}

func (a *Authority) stand(ctx context.Context, s *policy.Subject, idOrName string, action audit.Action, to func(token.Token, token.Reason) (token.Token, error)) (token.Token, error) {
	return retry(func() (token.Token, error) {
		t, err := a.find(ctx, s, idOrName)
		if err != nil {
			return t, err
		}
		if err := policy.Decide(s, policy.TokenSuspend, policy.Resource{Owner: t.Owner}); err != nil {
			return token.Token{}, masked(err)
		}
		changed, err := to(t, by(s, &t))
		if err != nil {
			return t, err
		}
		e := a.event(s, action, a.now())
		e.Target, e.Owner = string(t.ID), string(t.Owner)
		if _, err = a.commit(ctx, s, Decision{Tokens: []TokenChange{{Old: &t, New: changed}}}, e); err != nil {
			return token.Token{}, err
		}
		if action == audit.TokenSuspend {
			a.table.Drain(t.Owner)
		}
		return changed, nil
	})
}

// maxLeaks bounds one report (R2.7).
const maxLeaks = 1000

// ReportLeak ends every token whose secret is in the list: possession is the
// proof, so anybody may report. What the caller learns is the same for
// everything: how many lines were read. The subject may be the zero value.
func (a *Authority) ReportLeak(ctx context.Context, s *policy.Subject, secrets []string) error {
	if len(secrets) == 0 || len(secrets) > maxLeaks {
		return fault.New(fault.Invalid, "leaks_out_of_range", "A report holds between 1 and %d tokens.", maxLeaks).
			WithFix("Split the list.")
	}
	for _, text := range secrets {
		p, err := token.Parse(text)
		if err != nil {
			continue
		}
		id, ok := a.table.Holder(p)
		if !ok {
			continue
		}
		_, err = retry(func() (Revocation, error) {
			t, err := a.store.Token(ctx, id)
			if err != nil {
				return Revocation{}, err
			}
			return a.end(ctx, s, t, token.Leaked, token.CancelQueued, audit.TokenLeak, "")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// View is a token as it is shown: the record, what it is at this moment, and
// which clock is the nearest.
type View struct {
	token.Token
	State  token.State
	Clocks token.Clocks
	Until  time.Time
	By     token.Clock
	Use    token.Use
}

// View computes what is shown of a token whose owner is known.
func (a *Authority) View(ctx context.Context, t token.Token) (View, error) {
	owner, err := a.store.Principal(ctx, t.Owner)
	if err != nil {
		return View{}, err
	}
	use := a.table.LastUse(t.ID)
	v := View{Token: t, Use: use, Clocks: t.Clocks(use.At)}
	v.State = t.State(owner.Status, owner.Epochs, use.At, clock.Micro(a.now().UnixMicro()))
	v.Until, v.By = t.Nearest(use.At)
	return v, nil
}
