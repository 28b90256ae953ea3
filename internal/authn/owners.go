package authn

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"gradegate/internal/clock"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// owner is one principal, with the gate of what is decided in its name.
type owner struct {
	id     principal.ID
	number uint32 // by which packed tokens name it
	// person is replaced as a whole, so that a reader sees one consistent state.
	person atomic.Pointer[person]
	// gate is held for reading while a job of this owner is admitted, and taken
	// for writing before a revocation is acknowledged.
	gate sync.RWMutex
}

// person is a principal together with what bears on its tokens, computed when
// either changes: on the hot path nothing is looked up.
type person struct {
	principal.Principal
	token.Holder
	networks []policy.Rules      // those that limit where tokens may be used from
	owned    principal.Ownership // of a service
}

func (t *Table) owner(id principal.ID) *owner {
	t.mu.RLock()
	o := t.owners[id]
	t.mu.RUnlock()
	if o != nil {
		return o
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if o = t.owners[id]; o == nil {
		var all []*owner
		if known := t.numbered.Load(); known != nil {
			all = *known
		}
		o = &owner{id: id, number: uint32(len(all))} //nolint:gosec // there are fewer people
		all = append(all, o)
		t.numbered.Store(&all)
		t.owners[id] = o
	}
	return o
}

func (t *Table) ownerAt(number uint64) *owner { return (*t.numbered.Load())[number] }

// applyPeople takes over principals and policies. A change of policy is rare,
// and goes to everybody at once.
func (t *Table) applyPeople(c Change) {
	if len(c.Principals)+len(c.Levels) == 0 {
		return
	}
	t.applying.Lock()
	defer t.applying.Unlock()
	touched := t.touched(c.Principals) // before and after: whom they left counts as well
	for _, p := range c.Principals {
		o := t.owner(p.ID)
		if known := o.person.Load(); known == nil || known.Principal.Version < p.Version {
			o.person.Store(t.personUnder(p))
			t.index(p)
		}
	}
	for id := range t.touched(c.Principals) {
		touched[id] = true
	}
	t.recompute(touched)
	changed := false
	for _, l := range c.Levels {
		if known, ok := t.levels.Named[l.Name]; ok && known.Version >= l.Version {
			continue
		}
		if !changed {
			t.levels.Named, changed = maps.Clone(t.levels.Named), true
		}
		t.levels.Named[l.Name] = l
	}
	if changed {
		t.everybody()
	}
}

// ApplyOutages takes over the spans in which uses could not be recorded.
func (t *Table) ApplyOutages(o token.Outages) {
	t.applying.Lock()
	defer t.applying.Unlock()
	t.outages = o
	t.everybody()
}

// everybody is computed anew. The list is taken first: who answers for a
// service is looked up in it again.
func (t *Table) everybody() {
	t.mu.RLock()
	all := slices.Collect(maps.Values(t.owners))
	t.mu.RUnlock()
	for _, o := range all {
		if p := o.person.Load(); p != nil {
			o.person.Store(t.personUnder(p.Principal))
		}
	}
}

// personUnder is a principal with what bears on it now. Call it with applying held.
func (t *Table) personUnder(p principal.Principal) *person {
	rules := t.levels.For(p.Groups)
	limited := slices.DeleteFunc(slices.Clone(rules), func(r policy.Rules) bool { return len(r.Networks) == 0 })
	out := &person{
		Principal: p, networks: limited,
		Holder: token.Holder{Status: p.Status, Epochs: p.Epochs, Terms: policy.Terms(rules), Outages: t.outages},
	}
	if p.Kind == principal.Service {
		out.owned = t.ownedBy(&p)
		out.QuarantineAt = out.owned.QuarantineAt()
	}
	return out
}

// Holder is what bears on the tokens of a principal as it stands in p, which
// may be newer than what the table has.
func (t *Table) Holder(p principal.Principal) token.Holder {
	t.applying.Lock()
	defer t.applying.Unlock()
	return t.personUnder(p).Holder
}

// Rules are the rules that bear on members of the groups.
func (t *Table) Rules(groups []string) []policy.Rules {
	t.applying.Lock()
	defer t.applying.Unlock()
	return t.levels.For(groups)
}

// Levels are all levels of policy that were ever set.
func (t *Table) Levels() policy.Levels {
	t.applying.Lock()
	defer t.applying.Unlock()
	return t.levels
}

// History is what is known of the uses of a token that stands as in k.
func (t *Table) History(k *token.Token) token.History {
	last, ok := t.lastUsed(k.ID)
	if !ok {
		return token.History{}
	}
	return t.history(k, last)
}

// lastUsed is when a token was last used, in microseconds; 0: never.
func (t *Table) lastUsed(id token.ID) (at int64, ok bool) {
	public := publicOf(id)
	p := t.tokens.of(public)
	p.RLock()
	defer p.RUnlock()
	s := p.found(public)
	if s == nil {
		return 0, false
	}
	return s.last, true
}

func (t *Table) history(k *token.Token, last int64) token.History {
	past := token.History{LastUse: clock.Micro(last)}
	if k.Successor == "" || k.GraceUntil.IsZero() {
		return past
	}
	next := k.Successor
	for generation := 0; next != "" && generation < mostGenerations; generation++ {
		var s held
		if !t.find(publicOf(next), &s) {
			break
		}
		if generation == 0 && s.last != 0 {
			past.Succeeded = s.IssuedAt
		}
		if s.Standing.StricterThan(past.After) {
			past.After = s.Standing
		}
		next = s.Successor
	}
	return past
}

// mostGenerations bounds the walk along the successors of one token, all of
// which were made within one grace period.
const mostGenerations = 100

// SeenToken takes over a record that was read from the store, if it is newer.
func (t *Table) SeenToken(k token.Token) { t.Apply(Change{Tokens: []token.Token{k}}) }

// SeenPrincipal takes over a record that was read from the store, if it is newer.
func (t *Table) SeenPrincipal(p principal.Principal) {
	t.Apply(Change{Principals: []principal.Principal{p}})
}

// EachToken goes through all tokens with their owners. What is added meanwhile
// may be left out.
func (t *Table) EachToken(do func(*token.Token, *principal.Principal)) {
	t.each(func(h *held) {
		if p := h.owner.person.Load(); p != nil {
			do(&h.Token, &p.Principal)
		}
	})
}
