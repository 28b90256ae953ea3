// Package authn turns a presented secret into the subject of a request.
//
// It holds every token, principal and job handle in memory and follows the
// store's changes, so that the hot path touches no database: verification and
// revocation go on while the database is dead. A refusal costs less than a
// success, and an unknown token takes the same steps as a known one.
package authn

import (
	"net/netip"
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
	nobody   token.Token // what is looked at when nothing is known: no secret has its digest
	noHandle Handle
	outworn  outworn
	foreign  foreign

	tokens  shards[*entry]
	handles shards[*handle]

	mu     sync.RWMutex
	owners map[principal.ID]*owner

	// applying is held by whoever changes what owners are under.
	applying sync.Mutex
	levels   policy.Levels
	outages  token.Outages
	services services

	consentMu sync.RWMutex
	consents  consents

	dirtyMu sync.Mutex
	dirty   []*entry

	guesses guessBook
}

// entry is one token. The record is replaced as a whole, so that a reader
// always sees one consistent version.
type entry struct {
	record atomic.Pointer[token.Token]
	owner  *owner

	useMu sync.Mutex
	use   token.Use
	dirty bool
	last  atomic.Int64 // use.At in microseconds, readable without the lock
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
	for i := range c.Tokens {
		k := c.Tokens[i]
		e := t.tokens.getOrMake(publicOf(k.ID), func() *entry { return &entry{owner: t.owner(k.Owner)} })
		if k.Kind == token.Legacy {
			defer t.foreign.apply(&k)
		}
		for {
			known := e.record.Load()
			if known != nil && known.Version >= k.Version || e.record.CompareAndSwap(known, &k) {
				break
			}
		}
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

// ApplyUse takes over a use that is in the store.
func (t *Table) ApplyUse(u LastUse) {
	e, ok := t.tokens.get(publicOf(u.Token))
	if !ok {
		return
	}
	e.useMu.Lock()
	defer e.useMu.Unlock()
	if u.At.After(e.use.At) {
		e.use.At, e.use.Addr, e.use.Agent = u.At, u.Addr, u.Agent
		e.last.Store(u.At.UnixMicro())
	}
	e.use.Count = max(e.use.Count, u.Count)
}

func publicOf(id token.ID) (p token.PublicID) {
	const prefix = len("tok_")
	if len(id) == prefix+len(p) {
		copy(p[:], id[prefix:])
	}
	return p
}

// Used records a successful use of the token behind ref.
func (t *Table) Used(ref *Ref, now time.Time, addr netip.Addr, agent string) {
	e := ref.entry
	if e == nil {
		return
	}
	e.useMu.Lock()
	if now.After(e.use.At) {
		e.use.At = now
		e.last.Store(now.UnixMicro())
	}
	e.use.Addr = addr
	if e.use.Agent != agent {
		e.use.Agent = agent
	}
	e.use.Count++
	first := !e.dirty
	e.dirty = true
	e.useMu.Unlock()
	if first {
		t.dirtyMu.Lock()
		t.dirty = append(t.dirty, e)
		t.dirtyMu.Unlock()
	}
}

// TakeUses returns the uses since the last call, one per token, and forgets
// that they were new. Give them back with KeepUses if they could not be stored.
func (t *Table) TakeUses() []LastUse {
	t.dirtyMu.Lock()
	dirty := t.dirty
	t.dirty = nil
	t.dirtyMu.Unlock()
	out := make([]LastUse, 0, len(dirty))
	for _, e := range dirty {
		e.useMu.Lock()
		e.dirty = false
		out = append(out, LastUse{Token: e.record.Load().ID, Use: e.use})
		e.useMu.Unlock()
	}
	return out
}

// KeepUses marks uses as not stored again.
func (t *Table) KeepUses(uses []LastUse) {
	for _, u := range uses {
		e, ok := t.tokens.get(publicOf(u.Token))
		if !ok {
			continue
		}
		e.useMu.Lock()
		first := !e.dirty
		e.dirty = true
		e.useMu.Unlock()
		if first {
			t.dirtyMu.Lock()
			t.dirty = append(t.dirty, e)
			t.dirtyMu.Unlock()
		}
	}
}

// LastUse is what is known of the token's uses.
func (t *Table) LastUse(id token.ID) token.Use {
	e, ok := t.tokens.get(publicOf(id))
	if !ok {
		return token.Use{}
	}
	e.useMu.Lock()
	defer e.useMu.Unlock()
	return e.use
}

// AssumeUsed takes every token that was issued before at, and of which no use is
// known, for used then.
func (t *Table) AssumeUsed(at time.Time) {
	t.tokens.each(func(e *entry) {
		if k := e.record.Load(); k == nil || !k.IssuedAt.Before(at) {
			return
		}
		e.useMu.Lock()
		defer e.useMu.Unlock()
		if e.use.At.IsZero() {
			e.use.At = at
			e.last.Store(at.UnixMicro())
		}
	})
}

// TokenOf finds the token that a secret belongs to, whatever its state: the
// holder of a secret may always report it.
func (t *Table) TokenOf(p token.Presented) (token.ID, bool) {
	e, ok := t.tokens.get(p.Public)
	if !ok {
		return "", false
	}
	k := e.record.Load()
	if k == nil || !k.Digest.Is(p.Digest, t.peppers) {
		return "", false
	}
	return k.ID, true
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

// Len is the number of tokens in memory.
func (t *Table) Len() int { return t.tokens.len() }
