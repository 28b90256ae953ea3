package authn

import (
	"sync"
	"sync/atomic"

	"gradegate/internal/token"
)

// foreign finds imported tokens, whose secrets do not say which record is theirs.
type foreign struct {
	any atomic.Bool // nearly every installation has none: then nobody waits for the lock
	mu  sync.RWMutex
	ids map[token.Digest]token.PublicID
	// under counts by the version of the pepper, so that only those are tried that
	// something is under.
	under [256]int
}

// apply takes over an imported token as it is now.
func (f *foreign) apply(k *token.Token) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ids == nil {
		f.ids = map[token.Digest]token.PublicID{}
	}
	if _, known := f.ids[k.Digest]; !known {
		f.ids[k.Digest] = publicOf(k.ID)
		f.under[k.Digest.Pepper]++
	}
	f.any.Store(true)
}

// drop forgets an imported token.
func (f *foreign) drop(d token.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.ids[d]; known {
		delete(f.ids, d)
		f.under[d.Pepper]--
	}
}

// Read reduces a secret that was presented, of ours or imported, to what may be
// kept of it. The error is token.Parse's.
func (t *Table) Read(text string) (token.Presented, error) {
	p, err := token.Parse(text)
	if err == nil || !t.foreign.any.Load() {
		return p, err
	}
	if f, ok := token.Foreign(text); ok {
		if f.Public, ok = t.Imported(f.Digest); ok {
			return f, nil
		}
	}
	return p, err
}

// Imported finds the imported token whose secret has this bare digest.
func (t *Table) Imported(bare token.Digest) (token.PublicID, bool) {
	f := &t.foreign
	f.mu.RLock()
	defer f.mu.RUnlock()
	for version, n := range f.under {
		if n == 0 {
			continue
		}
		kept := token.Digest{Pepper: uint8(version)} //nolint:gosec // an index of 256
		var ok bool
		if kept.Sum, ok = t.peppers.Sum(kept.Pepper, bare.Sum); !ok {
			continue
		}
		if id, found := f.ids[kept]; found {
			return id, true
		}
	}
	return token.PublicID{}, false
}
