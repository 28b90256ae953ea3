package authority

import (
	"context"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// peppered is a store that keeps of new secrets what the newest pepper makes of
// them, so that nobody who issues one can forget it.
type peppered struct {
	Store
	peppers *keys.Peppers
}

func (s peppered) Commit(ctx context.Context, d Decision, events ...audit.Event) (int64, error) {
	for i := range d.Tokens {
		c := &d.Tokens[i]
		if c.Old != nil {
			continue
		}
		if c.New.Kind == token.Legacy {
			c.Forms = c.New.Digest.Forms(s.peppers)
		}
		c.New.Digest = c.New.Digest.Under(s.peppers)
	}
	return s.Store.Commit(ctx, d, events...)
}

// Rehash keeps a token that is in use under the newest pepper (R7.2). A token
// that has changed meanwhile is left for its next use.
func (a *Authority) Rehash(ctx context.Context, o token.Outworn, request string) error {
	t, err := a.store.Token(ctx, o.Token)
	if err != nil || t.Digest != o.Was {
		return err
	}
	is := t
	is.Digest = o.Is
	is.Version++
	e := a.event(&policy.Subject{Request: request}, audit.TokenRehash, a.now())
	e.Actor, e.Target, e.Owner = "system", string(t.ID), string(t.Owner)
	_, err = a.store.Commit(ctx, Decision{Tokens: []TokenChange{{Old: &t, New: is}}}, e)
	if fault.KindOf(err) == fault.Conflict {
		return nil
	}
	return err
}
