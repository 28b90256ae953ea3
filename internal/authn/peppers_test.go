package authn

import (
	"errors"
	"testing"

	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// R7.1, R7.2: what is kept under a pepper is known with that pepper only; a use
// tells what is under an older one; a pepper that is missing is trouble of ours
// (503), and one that is lost is a refusal.
func TestPeppers(t *testing.T) {
	one, two := [keys.Size]byte{1}, [keys.Size]byte{2}
	both := keys.PeppersOf(map[uint8][keys.Size]byte{1: one, 2: two})
	s := token.NewSecret(token.Personal)
	at := func(server *keys.Peppers, kept token.Digest) (*Table, error) {
		_, f, _, _ := table(t)
		tab := New(f.Now, 0, policy.Rules{})
		tab.Use(server)
		r := record(s, ann.ID)
		r.Digest = kept
		tab.Apply(Change{Revision: 1, Principals: []principal.Principal{ann}, Tokens: []token.Token{r}})
		_, _, err := tab.Authenticate(s.Presented(), addr)
		return tab, err
	}
	bare := s.Presented().Digest
	under1 := bare.Under(keys.PeppersOf(map[uint8][keys.Size]byte{1: one}))
	under2 := bare.Under(both)
	for _, c := range []struct {
		name   string
		server *keys.Peppers
		kept   token.Digest
		err    error
		worn   bool
	}{
		{"none", nil, bare, nil, false},
		{"none yet", both, bare, nil, true},
		{"older", both, under1, nil, true},
		{"newest", both, under2, nil, false},
		{"missing", keys.PeppersOf(map[uint8][keys.Size]byte{1: one}), under2, ErrPepper, false},
		{"other pepper", keys.PeppersOf(map[uint8][keys.Size]byte{2: one}), under2, ErrUnknown, false},
		{"stripped", both, token.Digest{Sum: under2.Sum}, ErrUnknown, false},
	} {
		tab, err := at(c.server, c.kept)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
		worn := tab.TakeOutworn()
		if (len(worn) == 1) != c.worn || len(tab.TakeOutworn()) != 0 {
			t.Errorf("%s: worn %v", c.name, worn)
		}
		if c.worn && (worn[0].Was != c.kept || worn[0].Is != under2) {
			t.Errorf("%s: %+v", c.name, worn[0])
		}
		if n := tab.WithoutPepper()[c.kept.Pepper]; (n == 1) != (c.err == ErrPepper) {
			t.Errorf("%s: %d without their pepper", c.name, n)
		}
	}
	// Who has the database only, and presents what is in it.
	if (token.Digest{Pepper: 2, Sum: under2.Sum}).Is(under2, both) {
		t.Error("a digest is taken for a secret")
	}
}
