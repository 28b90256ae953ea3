package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Token implements authority.Store.
func (t *Tokens) Token(ctx context.Context, id token.ID) (token.Token, error) {
	k, err := one(ctx, t, tokensTable.selectByKey, tokensTable, string(id))
	switch {
	case err == nil:
		return t.acked.token(k.(*tokenRow).token()), nil
	case errors.Is(err, sql.ErrNoRows):
		return token.Token{}, errNoToken
	}
	if t.cfg.Memory != nil && isTrouble(err) {
		if k, ok := t.cfg.Memory.Token(id); ok {
			return k, nil
		}
	}
	return token.Token{}, err
}

// TokensOf implements authority.Store.
func (t *Tokens) TokensOf(ctx context.Context, owner principal.ID, about authority.Among) ([]token.Token, error) {
	where, args := "owner = $1", []any{string(owner)}
	switch {
	case about.Family != "":
		where, args = "family = $1", []any{string(about.Family)}
	case about.Open && about.Kind != 0:
		where, args = where+" AND kind = $2 AND "+open, append(args, about.Kind.String())
	case about.Open:
		where += " AND " + open
	}
	if about.Name != "" {
		args = append(args, about.Name)
		where += " AND name = $" + strconv.Itoa(len(args))
	}
	var list []token.Token
	rows, err := many(ctx, t, tokensTable.selectAll+" WHERE "+where+" ORDER BY id", tokensTable, args...)
	switch {
	case err == nil:
		list = t.acked.all(rows)
	case t.cfg.Memory != nil && isTrouble(err):
		list = t.cfg.Memory.TokensOf(owner)
	default:
		return nil, err
	}
	return slices.DeleteFunc(list, func(k token.Token) bool { return k.Owner != owner || !about.Has(&k) }), nil
}

// open is what the index of tokens that may still be used is of.
const open = "standing <> 'revoked' AND successor = ''"

// pageOf is a page of an owner's tokens behind an instant and an id.
var pageOf = tokensTable.selectAll + ` WHERE owner = $1 AND (issued_at, id) < ($2, $3)
	ORDER BY issued_at DESC, id DESC LIMIT $4`

// TokensPage implements authority.Store.
func (t *Tokens) TokensPage(ctx context.Context, owner principal.ID, after token.ID, limit int) ([]token.Token, error) {
	at := int64(math.MaxInt64)
	if after != "" {
		last, err := t.Token(ctx, after)
		if err != nil {
			return nil, err
		}
		if last.Owner != owner {
			return nil, errNoToken
		}
		at = clock.Micros(last.IssuedAt)
	}
	rows, err := many(ctx, t, pageOf, tokensTable, string(owner), at, string(after), limit)
	if err != nil && t.cfg.Memory != nil && isTrouble(err) {
		return page(t.cfg.Memory.TokensOf(owner), at, after, limit), nil
	}
	return t.acked.all(rows), err
}

// page does in memory what pageOf does in the database.
func page(list []token.Token, at int64, after token.ID, limit int) []token.Token {
	newest := func(x, y token.Token) int {
		return cmp.Or(y.IssuedAt.Compare(x.IssuedAt), cmp.Compare(y.ID, x.ID))
	}
	slices.SortFunc(list, newest)
	first := slices.IndexFunc(list, func(k token.Token) bool {
		return cmp.Or(cmp.Compare(clock.Micros(k.IssuedAt), at), cmp.Compare(k.ID, after)) < 0
	})
	if first < 0 {
		return nil
	}
	return list[first:min(len(list), first+limit)]
}

// Principal implements authority.Store.
func (t *Tokens) Principal(ctx context.Context, id principal.ID) (principal.Principal, error) {
	var memory func() (principal.Principal, bool)
	if t.cfg.Memory != nil {
		memory = func() (principal.Principal, bool) { return t.cfg.Memory.Principal(id) }
	}
	return t.principal(ctx, principalsTable.selectByKey, string(id), memory)
}

// byName finds whoever holds the name now before a leaver who held it.
var byName = principalsTable.selectAll + ` WHERE name = $1
	ORDER BY CASE WHEN status = 'deprovisioned' THEN 1 ELSE 0 END, changed_at DESC, id DESC LIMIT 1`

// PrincipalByName implements authority.Store. Somebody active comes before a
// leaver of the same name.
func (t *Tokens) PrincipalByName(ctx context.Context, name string) (principal.Principal, error) {
	var memory func() (principal.Principal, bool)
	if t.cfg.Memory != nil {
		memory = func() (principal.Principal, bool) { return t.cfg.Memory.PrincipalByName(name) }
	}
	return t.principal(ctx, byName, name, memory)
}

func (t *Tokens) principal(ctx context.Context, query, arg string, memory func() (principal.Principal, bool)) (principal.Principal, error) {
	r, err := one(ctx, t, query, principalsTable, arg)
	switch {
	case err == nil:
		return t.acked.principal(r.(*principalRow).principal()), nil
	case errors.Is(err, sql.ErrNoRows):
		return principal.Principal{}, errNoPrincipal
	}
	if memory != nil && isTrouble(err) {
		if p, ok := memory(); ok {
			return p, nil
		}
	}
	return principal.Principal{}, err
}

// Principals implements authority.Store.
func (t *Tokens) Principals(ctx context.Context, after principal.ID, limit int) ([]principal.Principal, error) {
	rows, err := many(ctx, t, principalsTable.selectAll+" WHERE id > $1 ORDER BY id LIMIT $2", principalsTable, string(after), limit)
	if err != nil {
		return nil, err
	}
	out := make([]principal.Principal, len(rows))
	for i, r := range rows {
		out[i] = t.acked.principal(r.(*principalRow).principal())
	}
	return out, nil
}

// Reply implements authority.Store.
func (t *Tokens) Reply(ctx context.Context, key authority.ReplyKey, now time.Time) (authority.Reply, error) {
	r, err := one(ctx, t, repliesTable.selectByKey, repliesTable, key[:])
	if errors.Is(err, sql.ErrNoRows) {
		return authority.Reply{}, errNoReply
	}
	if err != nil {
		return authority.Reply{}, err
	}
	if r.(*replyRow).Until <= clock.Micros(now) {
		return authority.Reply{}, errNoReply
	}
	return r.(*replyRow).reply(), nil
}

// one reads one row and proves it. sql.ErrNoRows is passed on as it is.
func one(ctx context.Context, t *Tokens, query string, of *table, args ...any) (row, error) {
	db, err := t.healthy()
	if err != nil {
		return nil, err
	}
	s, err := scan(of, db.read.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if err == nil {
		err = s.verify(t.cfg.Keys)
	}
	if err != nil {
		return nil, db.trouble(err)
	}
	return s.row, nil
}

func many(ctx context.Context, t *Tokens, query string, of *table, args ...any) ([]row, error) {
	db, err := t.healthy()
	if err != nil {
		return nil, err
	}
	var out []row
	err = each(ctx, db.read, query, of, func(s stored) error {
		if err := s.verify(t.cfg.Keys); err != nil {
			return err
		}
		out = append(out, s.row)
		return nil
	}, args...)
	return out, db.trouble(err)
}

// each streams rows, without checking their seals.
func each(ctx context.Context, q querier, query string, of *table, do func(stored) error, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		s, err := scan(of, rows)
		if err != nil {
			return err
		}
		if err := do(s); err != nil {
			return err
		}
	}
	return rows.Err()
}

// overlay is what was acknowledged while the database could not take it.
type overlay struct {
	mu         sync.RWMutex
	tokens     map[token.ID]token.Token
	principals map[principal.ID]principal.Principal
	consents   map[string]principal.Consent
}

func (o *overlay) token(k token.Token) token.Token {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if image, ok := o.tokens[k.ID]; ok && image.Version > k.Version {
		return image
	}
	return k
}

func (o *overlay) all(rows []row) []token.Token {
	out := make([]token.Token, len(rows))
	for i, r := range rows {
		out[i] = o.token(r.(*tokenRow).token())
	}
	return out
}

func (o *overlay) principal(p principal.Principal) principal.Principal {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if image, ok := o.principals[p.ID]; ok && image.Version > p.Version {
		return image
	}
	return p
}

func (o *overlay) consent(c principal.Consent) principal.Consent {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if image, ok := o.consents[c.ID]; ok && image.Version > c.Version {
		return image
	}
	return c
}

func (o *overlay) add(rows []row) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tokens == nil {
		o.tokens, o.principals = map[token.ID]token.Token{}, map[principal.ID]principal.Principal{}
		o.consents = map[string]principal.Consent{}
	}
	for _, r := range rows {
		switch r := r.(type) {
		case *tokenRow:
			o.tokens[token.ID(r.ID)] = r.token()
		case *principalRow:
			o.principals[principal.ID(r.ID)] = r.principal()
		case *consentRow:
			o.consents[r.ID] = r.consent()
		}
	}
}

func (o *overlay) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tokens, o.principals, o.consents = nil, nil, nil
}

// version is the one that is known of a row outside the database; ok is false
// if nothing is.
func (t *Tokens) knownVersion(r row) (version int64, ok bool) {
	t.acked.mu.RLock()
	defer t.acked.mu.RUnlock()
	switch r := r.(type) {
	case *tokenRow:
		if k, found := t.acked.tokens[token.ID(r.ID)]; found {
			return k.Version, true
		}
		if t.cfg.Memory != nil {
			k, found := t.cfg.Memory.Token(token.ID(r.ID))
			return k.Version, found
		}
	case *consentRow:
		if c, found := t.acked.consents[r.ID]; found {
			return c.Version, true
		}
		if t.cfg.Memory != nil {
			c, found := t.cfg.Memory.Consent(r.ID)
			return c.Version, found
		}
	case *principalRow:
		if p, found := t.acked.principals[principal.ID(r.ID)]; found {
			return p.Version, true
		}
		if t.cfg.Memory != nil {
			p, found := t.cfg.Memory.Principal(principal.ID(r.ID))
			return p.Version, found
		}
	}
	return 0, false
}

// names are sorted ids for the change feed.
func names(rows []row) string {
	ids := make([]string, 0, len(rows))
	for _, r := range rows {
		switch r.(type) {
		case *replyRow, *holdRow:
		default:
			ids = append(ids, key(r))
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}
