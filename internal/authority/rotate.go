package authority

import (
	"context"
	"strconv"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
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
	if err := policy.Decide(s, policy.TokenRotate, a.resource(s, old.Owner)); err != nil {
		return Issued{}, masked(err)
	}
	if err := a.covers(s, &old); err != nil {
		return Issued{}, err
	}
	owner, err := a.ownerOf(ctx, s, &old)
	if err != nil {
		return Issued{}, err
	}
	now := a.now()
	if err := a.rotatable(&old, &owner, now); err != nil {
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
	secret := token.NewSecret(old.NextKind())
	h := a.table.Holder(owner)
	how := token.Rotation{Grace: grace, Compromised: r.Compromised}
	if !s.SignedIn.IsZero() && now.Sub(s.SignedIn) <= freshSignIn {
		how.NewFamily = token.Family(newID("fam_", now))
	}
	before, successor, err := old.Rotate(how, secret.Presented(), &h, a.table.History(&old), now)
	if err != nil {
		return Issued{}, err
	}
	successor.IssuedBy = s.Actor()
	if old.Kind == token.Legacy { // it joins the personal ones, of which there are only so many
		rules := a.demands(&s.Principal, now)
		d.MaxPersonal, d.Counts = rules.MaxPersonal.Value, func(t *token.Token) bool { return a.counts(t, &s.Principal, now) }
		successor = adopted(successor, rules)
	}
	made := Issued{Secret: secret, Token: successor, Predecessor: &before}
	// The predecessor's row first: it carries the version that decides a race.
	d.Tokens = append([]TokenChange{{Old: &old, New: before}}, append(d.Tokens, TokenChange{New: successor})...)
	d.Reply = a.reply(q, string(successor.ID), now, secret)

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

// freshSignIn is how long a sign-in counts as proof that the owner is here: a
// successor made after it begins a family of its own.
const freshSignIn = 15 * time.Minute

// covers refuses to hand out, by a rotation, a secret that can do more than
// the token that asks.
func (a *Authority) covers(s *policy.Subject, t *token.Token) error {
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
	if _, err := narrowNetworks(t.Networks(), s.CIDRs, false); err != nil {
		return err
	}
	return policy.Covers(a.table.Bounds(s.Principal.ID, s.Token), a.table.Bounds(t.Owner, t.ID))
}

var errWider = fault.New(fault.Denied, "token_wider", "That token can do more than the one you use.").
	WithFix("Use that token itself, or your session: gradegate login --invite CODE")

// rotatable refuses what has ended: a token that is over has nothing to pass on.
func (a *Authority) rotatable(t *token.Token, owner *principal.Principal, now time.Time) error {
	switch t.Kind {
	case token.Personal, token.Service, token.Legacy:
	default:
		return fault.New(fault.Invalid, "kind_not_rotatable", "A token of kind %s is not rotated.", t.Kind).
			WithFix("Make a personal token: gradegate token create")
	}
	if state, _ := a.state(t, owner, now); state != token.StateActive {
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
			"Use the successor. If its secret was lost and it was never used: gradegate token rotate %s --replace-unused", fault.Word(old.Name))
	}
	succ, err := a.store.Token(ctx, old.Successor)
	if err != nil {
		return TokenChange{}, err
	}
	if use := a.table.LastUse(succ.ID); !use.At.IsZero() || succ.Standing != token.Standard || succ.Successor != "" {
		return TokenChange{}, already.WithFix("The successor was used or has ended: use it, or sign in again: gradegate login --invite CODE")
	}
	ended, _ := succ.Revoke(token.Superseded, token.Keep, now)
	return TokenChange{Old: &succ, New: ended}, nil
}

// Reused ends the family of a predecessor whose grace period is over and whose
// secret was presented for a rotation: two hold it, and nobody can tell which
// of them is the owner. The subject is the one that was refused.
func (a *Authority) Reused(ctx context.Context, s *policy.Subject) error {
	_, err := retry(func() (struct{}, error) {
		old, err := a.store.Token(ctx, s.Token)
		if err != nil {
			return struct{}{}, err
		}
		family, err := a.store.TokensOf(ctx, old.Owner, Among{Family: old.Family})
		if err != nil {
			return struct{}{}, err
		}
		var d Decision
		for _, t := range family {
			if ended, changed := t.Revoke(token.Reused, token.CancelQueued, a.now()); changed {
				d.Tokens = append(d.Tokens, TokenChange{Old: &t, New: ended})
			} else {
				a.already(t)
			}
		}
		if len(d.Tokens) == 0 {
			return struct{}{}, nil
		}
		e := a.event(s, audit.TokenReuse, a.now())
		e.Target, e.Owner, e.Reason = string(old.ID), string(old.Owner), string(token.Reused)
		e.Detail = map[string]string{"family": string(old.Family), "tokens": strconv.Itoa(len(d.Tokens))}
		if _, err := a.store.Commit(ctx, d, e); err != nil {
			return struct{}{}, err
		}
		a.table.Drain(old.Owner)
		return struct{}{}, nil
	})
	return err
}
