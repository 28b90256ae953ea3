package authority

import (
	"context"
	"slices"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

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
			if err := policy.Decide(s, policy.TokenRevoke, a.resource(s, t.Owner)); err != nil {
				return Revocation{}, masked(err)
			}
		}
		return a.end(ctx, s, t, a.by(s, &t), jobs, audit.TokenRevoke, note)
	})
}

// by says in which part the subject acts on a token.
func (a *Authority) by(s *policy.Subject, t *token.Token) token.Reason {
	if s.Local || s.Principal.ID != t.Owner && !a.answersFor(s, t.Owner) {
		return token.ByAdmin
	}
	return token.ByOwner
}

// end revokes one token in one decision, and drains what was being admitted.
func (a *Authority) end(ctx context.Context, s *policy.Subject, t token.Token, reason token.Reason, jobs token.Wish, action audit.Action, note string) (Revocation, error) {
	now := a.now()
	ended, changed := t.Revoke(reason, jobs, now)
	if !changed {
		a.already(t)
		return Revocation{Token: t, Already: true}, nil
	}
	e := a.event(s, action, now)
	e.Target, e.Owner, e.Reason = string(t.ID), string(t.Owner), string(reason)
	e.Detail = map[string]string{"jobs": string(jobs)}
	if note != "" {
		e.Detail["note"] = audit.Clean(note, 200)
	}
	d := Decision{Tokens: []TokenChange{{Old: &t, New: ended}}}
	if err := a.endSignIn(ctx, &d, t, reason); err != nil {
		return Revocation{}, err
	}
	revision, err := a.commit(ctx, s, d, e)
	if err != nil {
		return Revocation{}, err
	}
	a.table.Drain(t.Owner)
	return Revocation{Token: ended, Revision: revision}, nil
}

// already makes sure that what stands in the store is in force here, before
// somebody is told that it was so already.
func (a *Authority) already(t token.Token) {
	a.table.SeenToken(t)
	a.table.Drain(t.Owner)
}

// signInOf are the other tokens of the sign-in that a session or refresh token
// belongs to: what ends or stops one of them ends or stops them all, since each
// can make the next.
func (a *Authority) signInOf(ctx context.Context, t token.Token) ([]token.Token, error) {
	if t.Kind != token.Session && t.Kind != token.Refresh || t.Parent != "" {
		return nil, nil
	}
	family, err := a.store.TokensOf(ctx, t.Owner, Among{Family: t.Family})
	return slices.DeleteFunc(family, func(k token.Token) bool { return k.ID == t.ID }), err
}

// endSignIn adds the other tokens of a sign-in to the end of one of them.
func (a *Authority) endSignIn(ctx context.Context, d *Decision, t token.Token, reason token.Reason) error {
	others, err := a.signInOf(ctx, t)
	for _, k := range others {
		if ended, changed := k.Revoke(reason, token.Keep, a.now()); changed {
			d.Tokens = append(d.Tokens, TokenChange{Old: &k, New: ended})
		}
	}
	return err
}

// stopSignIn adds what becomes of the other tokens of a sign-in where one of them
// is stopped, or goes on. Those that were used up say so still.
func (a *Authority) stopSignIn(ctx context.Context, d *Decision, t token.Token, to func(token.Token) (token.Token, error)) error {
	others, err := a.signInOf(ctx, t)
	for _, k := range others {
		if k.Successor != "" {
			continue
		}
		if is, err := to(k); err == nil && (is.Standing != k.Standing || is.Reason != k.Reason) {
			d.Tokens = append(d.Tokens, TokenChange{Old: &k, New: is})
		}
	}
	return err
}

// Suspend stops a token until it is resumed.
func (a *Authority) Suspend(ctx context.Context, s *policy.Subject, idOrName string) (token.Token, error) {
	return a.stand(ctx, s, idOrName, audit.TokenSuspend, func(t token.Token, now time.Time) (token.Token, error) {
		return t.Suspend(a.by(s, &t))
	})
}

// Resume lets a suspended token go on. Its clocks ran on meanwhile. What an
// administrator suspended, and what is quarantined, only an administrator
// resumes. One that ended because it was not used comes back for an owner who
// has signed in.
func (a *Authority) Resume(ctx context.Context, s *policy.Subject, idOrName string) (token.Token, error) {
	return a.stand(ctx, s, idOrName, audit.TokenResume, func(t token.Token, now time.Time) (token.Token, error) {
		own := a.by(s, &t) == token.ByOwner
		if err := a.covers(s, &t); err != nil && own {
			return t, err
		}
		owner, err := a.ownerOf(ctx, s, &t)
		if err != nil {
			return t, err
		}
		state, end := a.state(&t, &owner, now)
		if state == token.StateIdleExpired && own && !s.SignedIn.IsZero() {
			back, err := t.Reactivate(end, now)
			if err == nil {
				if state, _ = a.state(&back, &owner, now); state != token.StateActive {
					err = fault.New(fault.Conflict, "token_expired", "The token has passed another end than that of being unused, and that cannot be undone.").
						WithFix("Create another one: gradegate token create")
				}
			}
			if err == nil {
				err = a.room(ctx, &back, &owner, now)
			}
			return back, err
		}
		return t.Resume(a.by(s, &t))
	})
}

// room refuses to bring a personal token back beside as many others as its owner
// may have (R3.1): one of them took its place.
func (a *Authority) room(ctx context.Context, t *token.Token, owner *principal.Principal, now time.Time) error {
	if t.Kind != token.Personal {
		return nil
	}
	own, err := a.store.TokensOf(ctx, owner.ID, Among{Kind: token.Personal, Open: true})
	if err != nil {
		return err
	}
	n := 0
	for i := range own {
		if own[i].ID != t.ID && a.counts(&own[i], owner, now) {
			n++
		}
	}
	if most := a.demands(owner, now).MaxPersonal; n >= most.Value {
		return fault.New(fault.Conflict, "token_limit", "You have %d of the %d personal tokens that the policy of %s allows you.", n, most.Value, most.Level).
			With("policy", most.Level).WithFix("Revoke one of them (gradegate token list), or go on with it.")
	}
	return nil
}

func (a *Authority) stand(ctx context.Context, s *policy.Subject, idOrName string, action audit.Action, to func(token.Token, time.Time) (token.Token, error)) (token.Token, error) {
	return retry(func() (token.Token, error) {
		t, err := a.find(ctx, s, idOrName)
		if err != nil {
			return t, err
		}
		if err := policy.Decide(s, policy.TokenSuspend, a.resource(s, t.Owner)); err != nil {
			return token.Token{}, masked(err)
		}
		now := a.now()
		changed, err := to(t, now)
		if err != nil {
			return t, err
		}
		e := a.event(s, action, now)
		e.Target, e.Owner = string(t.ID), string(t.Owner)
		d := Decision{Tokens: []TokenChange{{Old: &t, New: changed}}}
		if err := a.stopSignIn(ctx, &d, t, func(k token.Token) (token.Token, error) { return to(k, now) }); err != nil {
			return token.Token{}, err
		}
		if _, err = a.commit(ctx, s, d, e); err != nil {
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
		p, err := a.table.Read(text)
		if err != nil {
			continue
		}
		id, ok := a.table.TokenOf(p)
		if !ok {
			continue
		}
		_, err = retry(func() (Revocation, error) {
			t, err := a.store.Token(ctx, id)
			if err != nil {
				return Revocation{}, err
			}
			// What is revoked already needs no look, and its job handles are still to end.
			if t.Standing != token.Revoked && t.Kind != token.Invite && policy.Demanded(a.table.Rules(nil), a.now()).Quarantine {
				return a.quarantine(ctx, s, t)
			}
			return a.end(ctx, s, t, token.Leaked, token.CancelQueued, audit.TokenLeak, "")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// quarantine is what becomes of a reported token where the platform's policy
// wants a look before it is revoked.
func (a *Authority) quarantine(ctx context.Context, s *policy.Subject, t token.Token) (Revocation, error) {
	held, err := t.Quarantine()
	if err != nil || held.Version == t.Version {
		a.already(t)
		return Revocation{Token: t, Already: true}, err
	}
	e := a.event(s, audit.TokenLeak, a.now())
	e.Target, e.Owner, e.Reason = string(t.ID), string(t.Owner), string(token.Quarantined)
	d := Decision{Tokens: []TokenChange{{Old: &t, New: held}}}
	if err := a.stopSignIn(ctx, &d, t, token.Token.Quarantine); err != nil {
		return Revocation{}, err
	}
	revision, err := a.commit(ctx, s, d, e)
	if err != nil {
		return Revocation{}, err
	}
	a.table.Drain(t.Owner)
	return Revocation{Token: held, Revision: revision}, nil
}

// RevokePresented ends the token whose secret the subject has shown, in whatever
// state it is: possession is the proof (RFC 7009).
func (a *Authority) RevokePresented(ctx context.Context, s *policy.Subject) error {
	_, err := retry(func() (struct{}, error) {
		t, err := a.store.Token(ctx, s.Token)
		if err != nil {
			return struct{}{}, err
		}
		ended, changed := t.Revoke(token.ByOwner, token.Keep, a.now())
		if !changed {
			a.already(t)
			return struct{}{}, nil
		}
		e := a.event(s, audit.TokenRevoke, a.now())
		e.Target, e.Owner, e.Reason = string(t.ID), string(t.Owner), string(token.ByOwner)
		d := Decision{Tokens: []TokenChange{{Old: &t, New: ended}}}
		if err := a.endSignIn(ctx, &d, t, token.ByOwner); err != nil {
			return struct{}{}, err
		}
		if _, err := a.store.Commit(ctx, d, e); err != nil {
			return struct{}{}, err
		}
		a.table.Drain(t.Owner)
		return struct{}{}, nil
	})
	return err
}
