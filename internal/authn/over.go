package authn

import (
	"time"

	"gradegate/internal/token"
)

// Ended looks at tokens from a place on until it has seen most of them, or a few
// more, and hands over those that have ended for good; what do is given is its
// own until it returns. next is the place to go on from, and -1 behind the last one.
func (t *Table) Ended(from, most int, now time.Time, do func(*token.Token, token.Over)) (next, looked int) {
	for ; from < shardCount && looked < most; from++ {
		t.in(from, func(h *held) {
			looked++
			if o, over := t.over(h, token.Use{}, now); over {
				do(&h.Token, o)
			}
		})
	}
	if from == shardCount {
		return -1, looked
	}
	return from, looked
}

// Ancestors are a token and what it was made from.
func (t *Table) Ancestors(id token.ID) (out []token.ID) {
	t.line(id, func(k *token.Token) { out = append(out, k.ID) })
	return out
}

// Over tells whether a token that stands as in k has ended for good, and when.
// use is what the store knows of its uses, those on other nodes included.
func (t *Table) Over(k *token.Token, use token.Use, now time.Time) (token.Over, bool) {
	last, _ := t.lastUsed(k.ID)
	return t.over(&held{Token: *k, owner: t.owner(k.Owner), last: last}, use, now)
}

func (t *Table) over(h *held, use token.Use, now time.Time) (token.Over, bool) {
	p := h.owner.person.Load()
	if p == nil {
		return token.Over{}, false // without an owner nobody can tell
	}
	past := t.history(&h.Token, h.last)
	if use.At.After(past.LastUse) {
		past.LastUse = use.At
	}
	return h.Token.Over(&p.Holder, p.ChangedAt, past, now)
}

// Forget drops tokens that the store has no more: another node archived them.
func (t *Table) Forget(ids []token.ID) { t.Apply(Change{Archived: ids}) }

// drop forgets a token. Its slot is used again.
func (t *Table) drop(id token.PublicID) {
	var h held
	if t.find(id, &h) && h.Kind == token.Legacy {
		t.foreign.drop(h.Digest)
	}
	p := t.tokens.of(id)
	p.Lock()
	defer p.Unlock()
	i, ok := p.at[id]
	if !ok {
		return
	}
	s := &p.slots[i]
	n := 0
	if s.record != 0 {
		n = len(p.bytes.read(s.record))
	}
	if s.use != 0 {
		n += len(p.bytes.read(s.use))
	}
	*s = slot{}
	delete(p.at, id)
	p.free = append(p.free, i)
	p.wasted(n)
}
