// Package authority decides about credentials: it issues, rotates, revokes and
// suspends them, enrols people, and cuts a leaver or a leaked token off.
//
// Every method takes the subject that asks, asks policy, and makes one decision
// in the store together with its audit events. Nobody, an administrator
// included, can mint or see somebody else's secret: others are invited, and an
// invite to somebody who held a credential cuts the old ones off.
package authority

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/budget"
	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Table is what the authority needs of the table in memory.
type Table interface {
	LastUse(token.ID) token.Use
	// Read reduces a secret that was presented, of ours or imported.
	Read(text string) (token.Presented, error)
	// Imported finds the imported token whose secret has this bare digest.
	Imported(token.Digest) (token.PublicID, bool)
	// Reach is what competitions and projects come to at this moment, and Handed
	// what of that is handed on to another token.
	Reach(competitions []string) []string
	Handed(reach []string) []string
	// Guesses is what is known of wrong secrets tried with a token's id.
	Guesses(token.ID) token.Guesses
	// TokenOf finds the token of a secret, whatever its state.
	TokenOf(token.Presented) (token.ID, bool)
	// SeenToken and SeenPrincipal hand over records that were read from the store.
	// What is said to have happened already must be in force before it is said:
	// another call may have committed it a moment ago, and be about to tell.
	SeenToken(token.Token)
	SeenPrincipal(principal.Principal)
	// History is what is known of a token's uses.
	History(*token.Token) token.History
	// Judge is what a token is at now, its parents included, and its nearest end.
	Judge(*token.Token, *principal.Principal, time.Time) (token.State, token.Ending)
	// Holder is what bears on the tokens of a principal.
	Holder(principal.Principal) token.Holder
	// Controls reports whether somebody is one of the active owners of a service.
	Controls(who, service principal.ID) bool
	// Ownership is who answers for a service as it stands there, with people as
	// they are in the place of those in the table.
	Ownership(service principal.Principal, instead ...principal.Principal) principal.Ownership
	// Services are all services.
	Services() []principal.Principal
	// Consent is a consent by its id.
	Consent(id string) (principal.Consent, bool)
	// SeenConsent is like SeenToken.
	SeenConsent(principal.Consent)
	// Rules are what bears on the members of groups.
	Rules(groups []string) []policy.Rules
	// Levels are all levels of policy.
	Levels() policy.Levels
	// Bounds are the budgets that bear on what is taken with a token.
	Bounds(principal.ID, token.ID) []budget.Bound
	// Vouched reports whether the token that gave a consent was not reported leaked.
	Vouched(*principal.Consent) bool
	// EachToken goes through all tokens with their owners.
	EachToken(func(*token.Token, *principal.Principal))
	// Admit checks once more that the subject is active, and holds off the
	// acknowledgement of a revocation until release is called.
	Admit(*policy.Subject) (release func(), err error)
	// Drain waits until the admissions that began before have ended.
	Drain(principal.ID)
}

// Authority issues and ends credentials. It is safe for concurrent use.
type Authority struct {
	store Store
	table Table
	keys  *keys.Ring
	now   clock.Func
}

// New makes an authority over its store and the table that follows it.
func New(s Store, t Table, k *keys.Ring, now clock.Func) *Authority {
	return &Authority{store: peppered{s, k.Peppers()}, table: t, keys: k, now: now}
}

// state is what a token is at now, given its owner, and its nearest clock.
func (a *Authority) state(t *token.Token, owner *principal.Principal, now time.Time) (token.State, token.Ending) {
	return a.table.Judge(t, owner, now)
}

// demands are what the levels of policy ask of a person's new tokens.
func (a *Authority) demands(p *principal.Principal, now time.Time) policy.Demands {
	d := policy.Demanded(a.table.Rules(p.Groups), now)
	orElse(&d.Lifetime, token.DefaultLifetime)
	orElse(&d.MaxLifetime, token.DefaultMaxLifetime)
	orElse(&d.MaxPersonal, 1)
	return d
}

func orElse[T any](d *policy.Demand[T], v T) {
	if d.Level == "" {
		*d = policy.Demand[T]{Value: v, Level: token.Platform}
	}
}

// Issued is a new credential. Its secret is here and nowhere else.
type Issued struct {
	Secret      token.Secret
	Token       token.Token
	Refresh     token.Secret // of a sign-in: for its next session
	Predecessor *token.Token // after a rotation
	// Replayed is set when the same answer was given before under the same
	// Idempotency-Key.
	Replayed bool
}

// newID makes a sortable id with the prefix: the time in microseconds, then 80
// random bits, all in a base-32 alphabet whose order is that of its bytes.
func newID(prefix string, now time.Time) string { return prefix + SortableID(now) }

const sortable = "0123456789abcdefghjkmnpqrstvwxyz"

// SortableID is the part of an id behind its prefix: 26 characters that sort
// by time and cannot be guessed.
func SortableID(now time.Time) string {
	var out [26]byte
	us := uint64(now.UnixMicro())
	for i := 10; i >= 0; i-- {
		out[i] = sortable[us&31]
		us >>= 5
	}
	var random [15]byte
	_, _ = rand.Read(random[:]) // never fails: the runtime stops the process instead
	for i, b := range random {
		out[11+i] = sortable[b&31]
	}
	return string(out[:])
}

// TimeOf is the instant in an id that SortableID made, whatever stands before it;
// false of anything else.
func TimeOf(id string) (time.Time, bool) {
	_, id, _ = strings.Cut(id, "_")
	if len(id) != 26 {
		return time.Time{}, false
	}
	var us uint64
	for i := range len(id) {
		n := strings.IndexByte(sortable, id[i])
		if n < 0 {
			return time.Time{}, false
		}
		if i < 11 {
			us = us<<5 | uint64(n)
		}
	}
	return time.UnixMicro(int64(us)).UTC(), us < 1<<52
}

// commit makes a decision on behalf of a subject, if the subject may still act
// at this moment: a request can take long, and its token can be revoked while
// its body is on the way. Nothing is decided for it after the acknowledgement.
func (a *Authority) commit(ctx context.Context, s *policy.Subject, d Decision, events ...audit.Event) (int64, error) {
	if s.Token == "" || s.Mode == policy.ModeQuarantined {
		// The local administrator and whoever has no token; and the quarantined,
		// to whom policy leaves nothing but ending their own.
		return a.store.Commit(ctx, d, events...)
	}
	release, err := a.table.Admit(s)
	if err != nil {
		return 0, err
	}
	defer release()
	for i := range d.Tokens {
		// Who answered for a service when the request came may not do so any more.
		if t := &d.Tokens[i]; t.New.Kind == token.Service && t.New.Owner != s.Principal.ID && (t.Old == nil || !s.IsAdmin()) && !a.answersFor(s, t.New.Owner) {
			return 0, ErrNoToken
		}
	}
	for i := range d.Principals {
		if p := &d.Principals[i]; p.Old != nil && p.Old.Kind == principal.Service && p.Old.ID != s.Principal.ID && !s.IsAdmin() && !a.answersFor(s, p.Old.ID) {
			return 0, errNoService
		}
	}
	return a.store.Commit(ctx, d, events...)
}

// event begins the record of what the subject does.
func (a *Authority) event(s *policy.Subject, action audit.Action, now time.Time) audit.Event {
	e := audit.Event{
		ID: newID("evt_", now), At: now, Action: action, Outcome: audit.Done,
		Actor: s.Actor(), Token: string(s.Token), Request: s.Request, Agent: s.Agent,
	}
	if s.Kind != 0 {
		e.Kind = s.Kind.String()
	}
	if s.Addr.IsValid() {
		e.Addr = s.Addr.String()
	}
	return e
}
