// Package fill makes installations that hold a given number of tokens, for the
// benchmarks. Everything in them went the way of any decision: through the
// store, its ledger and its digest.
package fill

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/store"
	"gradegate/internal/token"
)

const (
	// perUser is how many tokens an ordinary user has, ended ones included: ten
	// years of rotations, or a year of sign-ins.
	perUser = 50
	// crowdShare is the part of all tokens that one single user owns.
	crowdShare = 10
	// known is how many tokens there are whose secrets are known.
	known = 1000
	// batch is how many tokens one decision holds.
	batch = 1000
	// fresh is how long an installation may be used again: its tokens grow old.
	fresh = 12 * time.Hour
	// form changes with what is made here.
	form = "1"
)

// The users whom benchmarks ask for by name.
const (
	Crowd = "crowd" // owns a tenth of all tokens
	Known = "known" // owns the tokens whose secrets are known
)

// User is the name of the i-th ordinary user.
func User(i int) string { return fmt.Sprintf("user-%06d", i) }

// Home is an installation as gradegate serve --data finds it.
type Home struct {
	Dir     string
	Users   int // ordinary ones
	Tokens  int
	Secrets []token.Secret // of the active tokens of the user known
}

// Config is how the tokens store of the installation is opened.
func (h *Home) Config() (store.TokensConfig, error) {
	ring, _, err := keys.Load(filepath.Join(h.Dir, "root.key"), filepath.Join(h.Dir, "ledger", "root.key"))
	return store.TokensConfig{Dir: h.Dir, Keys: ring}, err
}

// Make fills a folder with n tokens, unless it holds them already.
func Make(ctx context.Context, dir string, n int) (Home, error) {
	h := Home{Dir: dir, Tokens: n, Users: max(1, (n-n/crowdShare-known)/perUser)}
	if h.read() == nil {
		return h, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return h, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return h, err
	}
	cfg, err := h.Config()
	if err != nil {
		return h, err
	}
	s, err := store.OpenTokens(ctx, cfg)
	if err != nil {
		return h, err
	}
	f := filler{store: s, total: uint64(n), now: time.Now().UTC().Truncate(time.Microsecond)}
	err = errors.Join(f.fill(ctx, &h), s.Close())
	if err == nil {
		err = h.write()
	}
	return h, err
}

func (h *Home) note() string { return filepath.Join(h.Dir, "filled") }

func (h *Home) write() error {
	lines := []string{form, fmt.Sprint(h.Tokens)}
	for _, s := range h.Secrets {
		lines = append(lines, s.Reveal())
	}
	return os.WriteFile(h.note(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// read finds what an earlier run has made.
func (h *Home) read() error {
	info, err := os.Stat(h.note())
	if err != nil {
		return err
	}
	if time.Since(info.ModTime()) > fresh {
		return os.ErrNotExist
	}
	file, err := os.Open(h.note())
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for _, want := range []string{form, fmt.Sprint(h.Tokens)} {
		if !lines.Scan() || lines.Text() != want {
			return os.ErrNotExist
		}
	}
	for lines.Scan() {
		s, err := token.ReadSecret(lines.Text())
		if err != nil {
			return err
		}
		h.Secrets = append(h.Secrets, s)
	}
	return lines.Err()
}

// filler is one filling under way.
type filler struct {
	store  *store.Tokens
	now    time.Time
	d      authority.Decision
	uses   []authn.LastUse
	total  uint64
	made   int
	drafts uint64 // of tokens: at most total
	seq    uint64
}

func (f *filler) fill(ctx context.Context, h *Home) error {
	p := f.person(Known)
	for range min(known, h.Tokens/2) {
		s := token.NewSecret(token.Personal)
		h.Secrets = append(h.Secrets, s)
		k := f.token(p, 0)
		k.ID, k.Digest = s.Presented().Public.ID(), s.Presented().Digest
		if err := f.add(ctx, k); err != nil {
			return err
		}
	}
	p = f.person(Crowd)
	for range h.Tokens / crowdShare {
		if err := f.add(ctx, f.token(p, f.age())); err != nil {
			return err
		}
	}
	for i := 0; f.made < h.Tokens; i++ {
		p = f.person(User(i % h.Users))
		if i >= h.Users {
			return fmt.Errorf("%d users hold %d tokens only", h.Users, f.made)
		}
		if err := f.tokensOf(ctx, p, min(h.Tokens-f.made, h.share(i))); err != nil {
			return err
		}
	}
	return f.flush(ctx)
}

// share is how many tokens the i-th user has; the last one has the rest.
func (h *Home) share(i int) int {
	if i == h.Users-1 {
		return h.Tokens
	}
	return perUser
}

func (f *filler) person(name string) principal.Principal {
	p := principal.Principal{
		ID: principal.ID("usr_" + authority.SortableID(f.now.Add(time.Duration(f.made)*time.Microsecond))), Version: 1, Name: name, Email: name + "@example.org",
		Kind: principal.Human, Role: principal.User, Status: principal.Active, Epochs: principal.Epochs{Credentials: 1, Person: 1},
		Enrolled: f.now, CreatedAt: f.now, ChangedAt: f.now,
	}
	f.d.Principals = append(f.d.Principals, authority.PrincipalChange{New: p})
	return p
}

// tokensOf makes n tokens of one user: chains of rotated ones, sessions that
// are over, some suspended or revoked, and a few that are in use.
func (f *filler) tokensOf(ctx context.Context, p principal.Principal, n int) error {
	for n > 0 {
		chain := f.chain(p, min(n, 1+f.draw(4)))
		for _, k := range chain {
			if err := f.add(ctx, k); err != nil {
				return err
			}
		}
		n -= len(chain)
	}
	return nil
}

// chain is the generations of one token, or a session.
func (f *filler) chain(p principal.Principal, n int) []token.Token {
	age := f.age()
	if f.draw(4) == 0 {
		k := f.token(p, age)
		k.Kind, k.Name, k.Renewal, k.Lifetime = token.Session, "session", token.Fixed, token.SessionLifetime
		k.Idle, k.Unused, k.RotateAfter, k.MaxLifetime = 0, 0, 0, token.SessionMax
		k.FixedEnd = k.IssuedAt.Add(k.Lifetime)
		return []token.Token{k}
	}
	out := make([]token.Token, n)
	for i := range out {
		k := f.token(p, age)
		if i > 0 {
			last := &out[i-1]
			k.Family, k.Generation, k.BornAt, k.Predecessor = last.Family, last.Generation+1, last.BornAt, last.ID
			k.IssuedAt = last.IssuedAt.Add(age / time.Duration(n))
			last.Successor, last.GraceUntil, last.Version = k.ID, k.IssuedAt.Add(token.DefaultGrace), 2
		}
		out[i] = k
	}
	last := &out[n-1]
	switch f.draw(10) {
	case 0:
		*last, _ = last.Revoke(token.ByOwner, token.Keep, last.IssuedAt.Add(age/time.Duration(2*n)))
	case 1:
		if k, err := last.Suspend(token.ByAdmin); err == nil {
			*last = k
		}
	}
	return out
}

func (f *filler) token(p principal.Principal, age time.Duration) token.Token {
	f.drafts++
	at := f.now.Add(-age)
	public, digest := f.next()
	return token.Token{
		ID: public.ID(), Version: 1, Kind: token.Personal, Digest: digest,
		Name: names[f.draw(len(names))], Owner: p.ID, Epochs: p.Epochs, Scopes: scopes[f.draw(len(scopes))],
		Standing: token.Standard, Family: token.Family("fam_" + authority.SortableID(f.now.Add(time.Duration(f.drafts)*time.Microsecond))), Generation: 1,
		IssuedAt: at, IssuedBy: string(p.ID), BornAt: at, Renewal: token.Sliding, Lifetime: token.DefaultLifetime,
		Idle: token.DefaultIdle, Unused: token.DefaultUnused, MaxLifetime: token.DefaultMaxLifetime, RotateAfter: token.DefaultRotateAfter,
	}
}

// next is a public id and a digest that nobody has the secret of. They are
// spread like random ones, and come in order: databases take them much faster.
func (f *filler) next() (public token.PublicID, digest token.Digest) {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	_, _ = rand.Read(digest.Sum[:]) // never fails: the runtime stops the process instead
	binary.BigEndian.PutUint32(digest.Sum[:], uint32(f.drafts<<32/(f.total+1)))
	n := f.drafts * (62 * 62 * 62 * 62 * 62) / (f.total + 1)
	for i := 4; i >= 0; i-- {
		public[i] = letters[n%62]
		n /= 62
	}
	for i := 5; i < len(public); i++ {
		public[i] = letters[digest.Sum[i]%62]
	}
	return public, digest
}

var (
	names  = []string{"laptop", "cluster", "notebook", "ci", "workstation", "login-node-3", "gpu box"}
	scopes = [][]string{policy.UserScopes, {policy.ScopeRead}, {policy.ScopeSubmit, policy.ScopeRead, policy.ScopeTokens}}
)

// age is how long ago a token was issued: most are older than a quarter.
func (f *filler) age() time.Duration { return time.Duration(f.draw(400*24*3600)) * time.Second }

func (f *filler) draw(n int) int {
	f.seq += 0x9e3779b97f4a7c15 // splitmix64: the same installation each time
	z := f.seq
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) % uint64(n))
}

func (f *filler) add(ctx context.Context, k token.Token) error {
	f.d.Tokens = append(f.d.Tokens, authority.TokenChange{New: k})
	if f.draw(3) > 0 {
		f.uses = append(f.uses, authn.LastUse{Token: k.ID, Use: token.Use{At: k.IssuedAt.Add(time.Hour), Agent: "gradegate/1.0", Count: 7}})
	}
	f.made++
	if len(f.d.Tokens) < batch {
		return nil
	}
	return f.flush(ctx)
}

func (f *filler) flush(ctx context.Context) error {
	e := audit.Event{ID: "evt_" + authority.SortableID(f.now), At: f.now, Action: audit.TokenIssue, Outcome: audit.Done, Actor: "system"}
	if _, err := f.store.Commit(ctx, f.d, e); err != nil {
		return err
	}
	if err := f.store.RecordUses(ctx, f.uses, 0); err != nil {
		return err
	}
	f.d, f.uses = authority.Decision{}, f.uses[:0]
	return f.store.EventsWritten(ctx, []string{e.ID})
}
