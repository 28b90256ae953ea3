package authn

import (
	"sync"

	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/token"
)

// ErrPepper is for tokens whose pepper this server does not have: it cannot
// tell a right secret from a wrong one.
var ErrPepper = fault.New(fault.Unavailable, "pepper_missing", "This server lacks the pepper that the token was kept under.").
	WithFix("Tell the operator: the pepper file (pepper_file) must be the same, and whole, on every server.")

// unknown is the refusal of what is not the secret behind a digest, if this
// server can tell.
func (t *Table) unknown(d token.Digest) error {
	if !t.peppers.Knows(d.Pepper) {
		return ErrPepper
	}
	return ErrUnknown
}

// Use takes over the peppers; call it before the table has any record. What is
// looked at when nothing is known costs as much as what was made last.
func (t *Table) Use(p *keys.Peppers) {
	t.peppers = p
	t.noHandle.Digest.Pepper = p.Newest()
	t.nobody = t.pack(nil, &token.Token{Digest: t.noHandle.Digest})
}

// outworn collects them until somebody takes them.
type outworn struct {
	mu   sync.Mutex
	seen map[token.ID]token.Outworn
}

// mostOutworn bounds what is remembered at a time: the next use tells again.
const mostOutworn = 200

// worn notes that a token was used whose digest is under an older pepper.
func (t *Table) worn(k *token.Token, p *token.Presented) {
	is := p.Digest.Under(t.peppers)
	o := &t.outworn
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil {
		o.seen = map[token.ID]token.Outworn{}
	}
	if len(o.seen) < mostOutworn {
		o.seen[k.ID] = token.Outworn{Token: k.ID, Was: k.Digest, Is: is}
	}
}

// TakeOutworn returns the outworn tokens that were used since the last call.
func (t *Table) TakeOutworn() []token.Outworn {
	t.outworn.mu.Lock()
	defer t.outworn.mu.Unlock()
	out := make([]token.Outworn, 0, len(t.outworn.seen))
	for _, o := range t.outworn.seen {
		out = append(out, o)
	}
	t.outworn.seen = nil
	return out
}

// WithoutPepper counts the secrets that are not over and cannot be told, by the
// version of the pepper that is missing.
func (t *Table) WithoutPepper() map[uint8]int {
	out := map[uint8]int{}
	count := func(d token.Digest) {
		if !t.peppers.Knows(d.Pepper) {
			out[d.Pepper]++
		}
	}
	t.each(func(h *held) {
		if h.Standing != token.Revoked {
			count(h.Digest)
		}
	})
	t.handles.each(func(h *handle) {
		if r := h.record.Load(); r != nil {
			count(r.Digest)
		}
	})
	return out
}
