package authn

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// guessBook counts wrong secrets by the token whose id they bore, for at most
// mostGuessed tokens: those that were guessed at last.
type guessBook struct {
	mu sync.Mutex
	m  map[token.PublicID]*guessed
	// nobody is counted for an id that no token has, so that both take the same
	// steps.
	nobody guessed
	any    atomic.Bool // spares most requests the look-up
}

type guessed struct {
	token token.ID
	owner principal.ID
	all   token.Guesses
	fresh [purposes]token.Guesses // since they were last taken
}

// Guessed is guesses at one token.
type Guessed struct {
	Token token.ID
	Owner principal.ID
	token.Guesses
}

// Purpose is what fresh guesses are taken for.
type Purpose uint8

// The purposes.
const (
	ToTell  Purpose = iota // in the trail
	ToStore                // in the database
	purposes
)

const mostGuessed = 1 << 14

// Guess notes that a secret which was refused may have been a guess. If it was
// one at a token that there is, it tells which, and whose it is.
func (t *Table) Guess(p token.Presented, addr netip.Addr, now time.Time) (id token.ID, owner principal.ID, ok bool) {
	var record held
	known := t.find(p.Public, &record)
	ok = known && t.peppers.Knows(record.Digest.Pepper) && !record.Digest.Is(p.Digest, t.peppers)
	t.guesses.note(p.Public, &record.Token, ok, addr, now)
	return record.ID, record.Owner, ok
}

func (b *guessBook) note(id token.PublicID, record *token.Token, known bool, addr netip.Addr, now time.Time) {
	g := token.Guesses{Count: 1, Since: now, Last: now}
	g.Sources.Add(addr)
	b.mu.Lock()
	defer b.mu.Unlock()
	at := &b.nobody
	if known {
		at = b.at(id, record.ID, record.Owner)
	}
	at.all = at.all.And(g)
	for i := range at.fresh {
		at.fresh[i] = at.fresh[i].And(g)
	}
}

// at is the place of a token, made if need be.
func (b *guessBook) at(public token.PublicID, id token.ID, owner principal.ID) *guessed {
	if g := b.m[public]; g != nil {
		return g
	}
	if b.m == nil {
		b.m = map[token.PublicID]*guessed{}
	}
	if len(b.m) >= mostGuessed {
		b.makeRoom()
	}
	g := &guessed{token: id, owner: owner}
	b.m[public] = g
	b.any.Store(true)
	return g
}

// looks bounds the work of making room; Go's map order is random enough for a sample.
const looks = 16

// makeRoom drops the token of a sample that was not guessed at for longest.
func (b *guessBook) makeRoom() {
	var oldest token.PublicID
	var at time.Time
	seen := 0
	for id, g := range b.m {
		if seen == 0 || g.all.Last.Before(at) {
			oldest, at = id, g.all.Last
		}
		if seen++; seen == looks {
			break
		}
	}
	delete(b.m, oldest)
}

// Guesses is what is known of guesses at a token.
func (t *Table) Guesses(id token.ID) token.Guesses {
	b := &t.guesses
	if !b.any.Load() {
		return token.Guesses{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if g := b.m[publicOf(id)]; g != nil {
		return g.all
	}
	return token.Guesses{}
}

// GuessedTokens is at how many tokens guesses are remembered.
func (t *Table) GuessedTokens() int {
	t.guesses.mu.Lock()
	defer t.guesses.mu.Unlock()
	return len(t.guesses.m)
}

// ApplyGuesses takes over guesses that are in the store.
func (t *Table) ApplyGuesses(g Guessed) {
	var r held
	if !t.find(publicOf(g.Token), &r) {
		return
	}
	t.guesses.mu.Lock()
	defer t.guesses.mu.Unlock()
	at := t.guesses.at(publicOf(g.Token), r.ID, r.Owner)
	at.all = at.all.And(g.Guesses)
}

// TakeGuesses returns the guesses since the last call, one per token, and
// forgets that they were new. Give back with KeepGuesses what was of no use.
func (t *Table) TakeGuesses(use Purpose) (out []Guessed) {
	t.guesses.mu.Lock()
	defer t.guesses.mu.Unlock()
	for _, g := range t.guesses.m {
		if g.fresh[use].Count > 0 {
			out = append(out, Guessed{Token: g.token, Owner: g.owner, Guesses: g.fresh[use]})
			g.fresh[use] = token.Guesses{}
		}
	}
	return out
}

// KeepGuesses marks guesses as new again.
func (t *Table) KeepGuesses(use Purpose, list []Guessed) {
	t.guesses.mu.Lock()
	defer t.guesses.mu.Unlock()
	for _, g := range list {
		if at := t.guesses.m[publicOf(g.Token)]; at != nil {
			at.fresh[use] = at.fresh[use].And(g.Guesses)
		}
	}
}
