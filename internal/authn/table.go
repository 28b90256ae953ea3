// Package authn turns a presented secret into the subject of a request.
//
// It holds every token, principal and job handle in memory and follows the
// store's changes, so that the hot path touches no database: verification and
// revocation go on while the database is dead. A refusal costs less than a
// success, and an unknown token takes the same steps as a known one.
package authn

import (
	"sync"
	"sync/atomic"
	"time"

	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Table is everything that can authenticate a request. It is safe for
// concurrent use: readers never wait for the store.
type Table struct {
	now clock.Func
	// MaxStaleness bounds how old the table may be when it follows a shared
	// database; zero means that this process is the only writer.
	maxStaleness time.Duration
	fresh        atomic.Int64 // microseconds: when the followed store last answered

	peppers  *keys.Peppers
	nobody   []byte // the packed token that is looked at when none is known: no secret has its digest
	noHandle Handle
	outworn  outworn
	foreign  foreign

	tokens  shelf
	shapes  shapes
	handles shards[*handle]

	mu       sync.RWMutex
	owners   map[principal.ID]*owner
	numbered atomic.Pointer[[]*owner] // by their numbers; only ever longer

	// applying is held by whoever changes what owners are under.
	applying sync.Mutex
	levels   policy.Levels
	outages  token.Outages
	services services

	projects projects

	consentMu sync.RWMutex
	consents  consents

	dirtyMu sync.Mutex
	dirty   []token.PublicID

	guesses guessBook
}

type handle struct {
	record atomic.Pointer[Handle]
	owner  *owner
}

// New makes an empty table. maxStaleness is zero when no other process writes
// to the store. base is what holds where the platform's policy says nothing.
func New(now clock.Func, maxStaleness time.Duration, base policy.Rules) *Table {
	t := &Table{now: now, maxStaleness: maxStaleness, owners: map[principal.ID]*owner{}}
	t.levels = policy.Levels{Base: base, Named: map[string]policy.Level{}}
	t.services = services{all: map[principal.ID]bool{}, members: map[string]map[principal.ID]bool{}}
	t.consents = consents{byID: map[string]principal.Consent{}, byGiver: map[principal.ID][]string{}}
	t.Use(nil)
	t.Fresh()
	return t
}

// Fresh tells the table that it has seen everything committed up to now.
func (t *Table) Fresh() { t.fresh.Store(t.now().UnixMicro()) }

// Apply takes over what a decision changed. It returns when every later
// Authenticate sees it.
func (t *Table) Apply(c Change) {
	t.applyPeople(c)
	t.applyConsents(c.Consents)
	var room [512]byte
	scratch := room[:0]
	for i := range c.Tokens {
		k := &c.Tokens[i]
		if k.Kind != token.Legacy {
			scratch = t.put(k, scratch)
			continue
		}
		var old held
		rehashed := t.find(publicOf(k.ID), &old) && old.Version < k.Version && old.Digest != k.Digest
		scratch = t.put(k, scratch)
		if t.foreign.apply(k); rehashed {
			t.foreign.drop(old.Digest)
		}
	}
	for _, id := range c.Archived {
		t.drop(publicOf(id))
	}
}

// ApplyHandle takes over the secret of a job, or the end of it.
func (t *Table) ApplyHandle(h Handle) {
	e := t.handles.getOrMake(h.Public, func() *handle { return &handle{owner: t.owner(h.Owner)} })
	e.record.Store(&h)
}

// DropHandles forgets the handles that ended before now.
func (t *Table) DropHandles(now time.Time) {
	t.handles.drop(func(h *handle) bool {
		r := h.record.Load()
		return r != nil && !r.Until.IsZero() && r.Until.Before(now)
	})
}

// Replay takes over a use that the trail has and the store does not: it is
// stored with the next ones, since their position in the trail is behind it.
func (t *Table) Replay(u LastUse) {
	t.ApplyUse(u)
	t.KeepUses([]LastUse{u})
}

func publicOf(id token.ID) (p token.PublicID) {
	const prefix = len("tok_")
	if len(id) == prefix+len(p) {
		copy(p[:], id[prefix:])
	}
	return p
}

// TokenOf finds the token that a secret belongs to, whatever its state: the
// holder of a secret may always report it.
func (t *Table) TokenOf(p token.Presented) (token.ID, bool) {
	var h held
	if !t.find(p.Public, &h) || !h.Digest.Is(p.Digest, t.peppers) {
		return "", false
	}
	return h.ID, true
}

// HandleJob finds the job that a job handle or run token belongs to, whatever
// its state. The id is empty if there is none.
func (t *Table) HandleJob(p token.Presented) (id string) {
	e, ok := t.handles.get(p.Public)
	if !ok {
		return ""
	}
	if r := e.record.Load(); r != nil && r.Kind == p.Kind && r.Digest.Is(p.Digest, t.peppers) {
		return r.Job
	}
	return ""
}
