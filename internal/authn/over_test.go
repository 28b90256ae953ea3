package authn

import (
	"fmt"
	"testing"
	"time"

	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// What is dropped is gone, its room is used again, and nobody else's record or
// use is touched by that, however often (R9.1).
func TestDropped(t *testing.T) {
	t.Parallel()
	tab := New(func() time.Time { return t0 }, 0, policy.Rules{})
	tab.Apply(Change{Principals: []principal.Principal{ann}})
	kept := map[token.ID]token.Secret{}
	for round := range 40 {
		var gone []token.ID
		for i := range 300 {
			s := token.NewSecret(token.Personal)
			k := record(s, ann.ID)
			k.Name = fmt.Sprint("a name of some length ", round, i)
			tab.Apply(Change{Tokens: []token.Token{k}})
			tab.ApplyUse(LastUse{Token: k.ID, Use: token.Use{At: t0, Agent: k.Name, Count: int64(i)}})
			if i%100 == 0 {
				kept[k.ID] = s
				continue
			}
			gone = append(gone, k.ID)
		}
		tab.Forget(gone)
		tab.Forget(gone[:1]) // twice does no harm
		for _, id := range gone {
			if _, ok := tab.Token(id); ok || tab.LastUse(id).Count != 0 {
				t.Fatalf("%s is still known", id)
			}
		}
	}
	if tab.Len() != len(kept) {
		t.Errorf("%d tokens, want %d", tab.Len(), len(kept))
	}
	slots := 0
	for i := range tab.tokens.part {
		slots += len(tab.tokens.part[i].slots)
	}
	if slots > 1500 {
		t.Errorf("%d slots for %d tokens", slots, len(kept))
	}
	n := 0
	tab.EachToken(func(k *token.Token, _ *principal.Principal) {
		n++
		if _, ok := kept[k.ID]; !ok || tab.LastUse(k.ID).Agent != k.Name {
			t.Errorf("%s: %+v", k.Name, tab.LastUse(k.ID))
		}
	})
	for id, s := range kept {
		if sub, _, err := tab.Authenticate(s.Presented(), addr); err != nil || sub.Token != id {
			t.Errorf("%s: %v", id, err)
		}
	}
	if n != len(kept) {
		t.Errorf("%d are gone through, want %d", n, len(kept))
	}
}
