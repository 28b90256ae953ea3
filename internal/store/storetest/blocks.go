package storetest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/block"
	"gradegate/internal/fault"
	"gradegate/internal/token"
)

// A block by address is kept whole, reaches followers, and its place is taken
// only by who has seen it.
func blocks(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	b := block.Block{
		ID: "blk_0000", Version: 1, Prefix: netip.MustParsePrefix("2001:db8::/48"), Note: "scanner", By: "usr_x", Since: T0, Until: T0.Add(time.Hour),
	}
	var told []block.Block
	s.Follow(func(c authn.Change) { told = append(told, c.Blocks...) })
	_, err := s.Commit(t.Context(), authority.Decision{Blocks: []authority.BlockChange{{New: b}}}, Event(audit.BlockAdd, "x"))
	must(t, err)
	_, err = s.Commit(t.Context(), authority.Decision{Blocks: []authority.BlockChange{{New: b}}}, Event(audit.BlockAdd, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
	lifted := b
	lifted.Version, lifted.Until, lifted.Lifted = 2, T0.Add(time.Minute), true
	allSet(t, lifted)
	change := authority.Decision{Blocks: []authority.BlockChange{{Old: &b, New: lifted}}}
	_, err = s.Commit(t.Context(), change, Event(audit.BlockRemove, "x"))
	must(t, err)
	_, err = s.Commit(t.Context(), change, Event(audit.BlockRemove, "x"))
	WantCode(t, err, fault.Conflict, "version_moved")
	if d := cmp.Diff([]block.Block{b, lifted}, told, Same); d != "" {
		t.Error(d)
	}
	must(t, s.Close())
	s = opened(t, open)
	got, err := s.Blocks(t.Context())
	must(t, err)
	if d := cmp.Diff([]block.Block{lifted}, got, Same); d != "" {
		t.Error(d)
	}
	loaded := 0
	must(t, s.Load(t.Context(), func(c authn.Change) error { loaded += len(c.Blocks); return nil }))
	if loaded != 1 {
		t.Errorf("%d were loaded", loaded)
	}
}

func guesses(t *testing.T, open TokensPlace) {
	s := opened(t, open)
	g := authn.Guessed{Token: "tok_a", Guesses: token.Guesses{Count: 3, Since: T0, Last: T0.Add(time.Minute), Sources: token.Sources{1, 0, 1 << 62, 0}}}
	more := authn.Guessed{Token: "tok_a", Guesses: token.Guesses{Count: 2, Since: T0.Add(-time.Minute), Last: T0, Sources: token.Sources{3, 0, 0, 7}}}
	other := authn.Guessed{Token: "tok_b", Guesses: token.Guesses{Count: 1, Since: T0, Last: T0.Add(time.Hour)}}
	must(t, s.RecordGuesses(t.Context(), []authn.Guessed{g, other}))
	must(t, s.RecordGuesses(t.Context(), []authn.Guessed{more}))
	must(t, s.Close())
	s = opened(t, open)
	var got []authn.Guessed
	must(t, s.Guesses(t.Context(), func(g authn.Guessed) error { got = append(got, g); return nil }))
	if d := cmp.Diff([]authn.Guessed{other, {Token: "tok_a", Guesses: g.And(more.Guesses)}}, got, Same); d != "" {
		t.Error(d)
	}
}
