package token

import (
	"testing"
	"time"

	"gradegate/internal/principal"
)

// TestOver: what has ended for good, and when: the first of its clocks, its
// revocation, or at the latest the last change of its owner; what can come back
// by itself has not (R9.4).
func TestOver(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fixed := Token{Kind: Personal, Standing: Standard, IssuedAt: from, BornAt: from, Renewal: Fixed, FixedEnd: from.Add(10 * day)}
	with := func(change func(*Token)) Token {
		k := fixed
		change(&k)
		return k
	}
	active := Holder{Status: principal.Active}
	for name, c := range map[string]struct {
		token Token
		h     Holder
		past  History
		at    int // days after its beginning; -1: it is not over
		state State
	}{
		"expired":               {fixed, active, History{}, 10, StateExpired},
		"active":                {with(func(k *Token) { k.FixedEnd = from.Add(900 * day) }), active, History{}, -1, ""},
		"no clock":              {with(func(k *Token) { k.FixedEnd = time.Time{} }), active, History{}, -1, ""},
		"unused":                {with(func(k *Token) { k.Unused = 3 * day }), active, History{}, 3, StateIdleExpired},
		"used":                  {with(func(k *Token) { k.Unused, k.Idle = 3*day, 7*day }), active, History{LastUse: from.Add(2 * day)}, 9, StateIdleExpired},
		"revoked":               {with(func(k *Token) { k.Standing, k.RevokedAt = Revoked, from.Add(4*day) }), active, History{}, 4, StateRevoked},
		"expired, then revoked": {with(func(k *Token) { k.Standing, k.RevokedAt = Revoked, from.Add(20*day) }), active, History{}, 10, StateRevoked},
		"suspended":             {with(func(k *Token) { k.Standing, k.FixedEnd = Suspended, from.Add(900*day) }), active, History{}, -1, ""},
		"suspended and expired": {with(func(k *Token) { k.Standing = Suspended }), active, History{}, 10, StateExpired},
		"quarantined":           {with(func(k *Token) { k.Standing, k.FixedEnd = Quarantined, from.Add(900*day) }), active, History{}, -1, ""},
		"unproven":              {with(func(k *Token) { k.Standing, k.FixedEnd = Unproven, from.Add(900*day) }), active, History{}, -1, ""},
		"rotated":               {with(func(k *Token) { k.Successor, k.GraceUntil = "tok_next", from.Add(5*day) }), active, History{}, 5, StateRotated},
		"owner suspended":       {with(func(k *Token) { k.FixedEnd = from.Add(900 * day) }), Holder{Status: principal.Suspended}, History{}, -1, ""},
		"epoch":                 {with(func(k *Token) { k.FixedEnd = from.Add(900 * day) }), Holder{Status: principal.Active, Epochs: principal.Epochs{Person: 1}}, History{}, 6, StateRevoked},
		"expired before that":   {with(func(k *Token) { k.FixedEnd = from.Add(2 * day) }), Holder{Status: principal.Active, Epochs: principal.Epochs{Credentials: 1}}, History{}, 2, StateRevoked},
		"successor is revoked":  {with(func(k *Token) { k.Successor, k.GraceUntil = "tok_next", from.Add(900*day) }), active, History{After: Revoked}, 10, StateExpired},
	} {
		o, over := c.token.Over(&c.h, from.Add(6*day), c.past, from.Add(100*day))
		if over != (c.at >= 0) || over && (!o.At.Equal(from.Add(time.Duration(c.at)*day)) || o.State != c.state) {
			t.Errorf("%s: %v %v", name, o, over)
		}
	}
}
