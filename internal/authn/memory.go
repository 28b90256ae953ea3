package authn

import (
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// The table answers the store's reads while the database is dead: everything
// that was acknowledged is in it.

// Token is a token's record.
func (t *Table) Token(id token.ID) (token.Token, bool) {
	public := publicOf(id)
	p := t.tokens.of(public)
	p.RLock()
	defer p.RUnlock()
	s := p.found(public)
	if s == nil {
		return token.Token{}, false
	}
	var h held
	t.whole(p, s, &h)
	return h.Token, true
}

// TokensOf is an owner's tokens. It looks at every token there is: it is for
// emergencies.
func (t *Table) TokensOf(owner principal.ID) []token.Token {
	var out []token.Token
	t.each(func(h *held) {
		if h.Owner == owner {
			out = append(out, h.Token)
		}
	})
	return out
}

// Principal is a principal's record.
func (t *Table) Principal(id principal.ID) (principal.Principal, bool) {
	t.mu.RLock()
	o := t.owners[id]
	t.mu.RUnlock()
	if o == nil {
		return principal.Principal{}, false
	}
	p := o.person.Load()
	if p == nil {
		return principal.Principal{}, false
	}
	return p.Principal, true
}

// PrincipalByName finds a principal; somebody active comes before a leaver of
// the same name.
func (t *Table) PrincipalByName(name string) (found principal.Principal, ok bool) {
	t.eachPrincipal(func(p *principal.Principal) {
		if p.Name == name && (!ok || found.Status != principal.Active) {
			found, ok = *p, true
		}
	})
	return found, ok
}

// HadAdmin reports whether any administrator ever held a credential, whatever
// became of them: who was suspended or off-boarded is not brought back by a
// restart.
func (t *Table) HadAdmin() (had bool) {
	t.eachPrincipal(func(p *principal.Principal) {
		had = had || p.Role == principal.Admin && !p.Enrolled.IsZero()
	})
	return had
}

// NameOf is a principal's name; "" if there is none of that id.
func (t *Table) NameOf(id principal.ID) string {
	p, _ := t.Principal(id)
	return p.Name
}

func (t *Table) eachPrincipal(do func(*principal.Principal)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, o := range t.owners {
		if p := o.person.Load(); p != nil {
			do(&p.Principal)
		}
	}
}
