package authority

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gradegate/internal/audit"
	"gradegate/internal/budget"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Create asks for a personal token.
type Create struct {
	Name         string
	Scopes       []string
	Competitions []string
	Lifetime     time.Duration // zero: the default; renewal slides
	ExpiresAt    time.Time     // set: a fixed end, and no renewal
	CIDRs        []netip.Prefix
	Observe      bool // a use from outside of CIDRs is marked and not refused
	Budget       budget.Budget
	Note         string
	// Replace revokes the personal token of this id or name in the same decision.
	Replace string
}

// CreateToken issues a personal token to the subject's owner. The token never
// has more scopes than the one that asks for it.
func (a *Authority) CreateToken(ctx context.Context, s *policy.Subject, c Create, idem Idem) (Issued, error) {
	if err := policy.Decide(s, policy.TokenCreate, policy.Resource{Owner: s.Principal.ID}); err != nil {
		return Issued{}, err
	}
	if s.Principal.Kind == principal.Service {
		return Issued{}, errServiceMints
	}
	r := repeat(s, idem, "token.create", c)
	return once(ctx, a, r, a.reissue(ctx, r), func() (Issued, error) { return a.createOnce(ctx, s, s.Principal, c, r) })
}

var errServiceMints = fault.New(fault.Denied, "service_mints", "A service makes no tokens: those who answer for it do.").
	WithFix("Ask one of its owners to run: gradegate token create --service NAME")

// createOnce issues a token to its owner: the subject itself, or a service that
// it answers for.
func (a *Authority) createOnce(ctx context.Context, s *policy.Subject, owner principal.Principal, c Create, r repeatable) (Issued, error) {
	now := a.now()
	rules, kind := a.demands(&owner, now), token.Personal
	if owner.Kind == principal.Service {
		kind = token.Service
	}
	if only := rules.SessionsOnly; only.Value && kind == token.Personal {
		return Issued{}, fault.New(fault.Denied, "sessions_only", "The policy of %s allows sessions only.", only.Level).
			With("policy", only.Level).WithFix("Use the session of your login: gradegate login --invite CODE")
	}
	d := Decision{
		MaxPersonal: rules.MaxPersonal.Value,
		Counts:      func(t *token.Token) bool { return a.counts(t, &owner, now) },
		Named:       func(t *token.Token) bool { return a.lives(t, &owner, now) },
	}
	var events []audit.Event
	if c.Replace != "" {
		change, e, err := a.replaced(ctx, s, &owner, c.Replace, now)
		if err != nil {
			return Issued{}, err
		}
		d.Tokens, events = append(d.Tokens, change), append(events, e)
	}
	var err error
	if c.Name, err = a.freeName(ctx, kind, c.Name, &owner, &d, now); err != nil {
		return Issued{}, err
	}
	secret := token.NewSecret(kind)
	t, err := a.draft(s, &owner, c, secret, rules, now)
	if err != nil {
		return Issued{}, err
	}
	maker, err := a.store.Token(ctx, s.Token)
	if err != nil {
		return Issued{}, err
	}
	if err := outlive(&t, &maker, c, now); err != nil {
		return Issued{}, err
	}
	made := Issued{Secret: secret, Token: t}
	d.Tokens = append(d.Tokens, TokenChange{New: t})
	d.Reply = a.reply(r, string(t.ID), now, secret)
	e := a.event(s, audit.TokenIssue, now)
	e.Target, e.Owner = string(t.ID), string(t.Owner)
	e.Detail = map[string]string{"kind": t.Kind.String(), "name": t.Name, "scopes": strings.Join(t.Scopes, " ")}
	if !t.Budget.IsZero() {
		e.Detail["budget"] = t.Budget.String()
	}
	if _, err := a.commit(ctx, s, d, append(events, e)...); err != nil {
		return Issued{}, a.explainLimit(ctx, err, s, now)
	}
	return made, nil
}

// replaced ends the token whose place a new one takes.
func (a *Authority) replaced(ctx context.Context, s *policy.Subject, owner *principal.Principal, idOrName string, now time.Time) (TokenChange, audit.Event, error) {
	old, err := a.among(ctx, owner, idOrName)
	if err != nil {
		return TokenChange{}, audit.Event{}, err
	}
	if old.Standing == token.Quarantined || old.Standing == token.Suspended && old.Reason != token.ByOwner {
		return TokenChange{}, audit.Event{}, fault.New(fault.Denied, "suspended_by_admin", "That token is stopped, and not by you: it is not replaced before an administrator has looked at it.").
			WithFix("Ask an administrator to run: gradegate token resume %s", old.ID)
	}
	ended, _ := old.Revoke(token.Replaced, token.Keep, now)
	e := a.event(s, audit.TokenRevoke, now)
	e.Target, e.Owner, e.Reason = string(old.ID), string(old.Owner), string(token.Replaced)
	return TokenChange{Old: &old, New: ended}, e, nil
}

// counts reports whether a token is one of the personal tokens that its owner
// has: not over, not dead by an epoch, and not followed by a successor.
func (a *Authority) counts(t *token.Token, owner *principal.Principal, now time.Time) bool {
	return t.Kind == token.Personal && a.lives(t, owner, now)
}

// lives reports whether a token is not over, and not followed by a successor.
func (a *Authority) lives(t *token.Token, owner *principal.Principal, now time.Time) bool {
	if t.Successor != "" {
		return false
	}
	switch state, _ := a.state(t, owner, now); state {
	case token.StateActive, token.StateSuspended, token.StateQuarantined, token.StateUnproven:
		return true
	}
	return false
}

// draft is the record of a new token of the owner, under the rules.
func (a *Authority) draft(s *policy.Subject, owner *principal.Principal, c Create, secret token.Secret, rules policy.Demands, now time.Time) (token.Token, error) {
	p := secret.Presented()
	scopes, err := grant(c.Scopes, s.Scopes, p.Kind)
	if err != nil {
		return token.Token{}, err
	}
	if err := narrowCompetitions(c.Competitions, s.Competitions); err != nil {
		return token.Token{}, err
	}
	networks, err := narrowNetworks(c.CIDRs, s.CIDRs, true)
	if err == nil && c.Observe {
		err = observable(c.CIDRs, s.CIDRs)
	}
	if err != nil {
		return token.Token{}, err
	}
	if err := c.Budget.Check(); err != nil {
		return token.Token{}, err
	}
	// Its account would be its own.
	if err := policy.Covers(a.table.Bounds(s.Principal.ID, s.Token), nil); err != nil {
		return token.Token{}, err
	}
	competitions := c.Competitions
	if len(competitions) == 0 {
		competitions = a.table.Handed(s.Competitions)
	}
	t := token.Token{
		ID: p.Public.ID(), Version: 1, Kind: p.Kind, Digest: p.Digest, Name: c.Name,
		Owner: owner.ID, Epochs: owner.Epochs, Scopes: scopes, Competitions: competitions,
		CIDRs: networks, Observe: c.Observe, Budget: c.Budget, Standing: token.Standard, Family: token.Family(newID("fam_", now)), Generation: 1,
		IssuedAt: now, IssuedBy: s.Actor(), BornAt: now, Note: audit.Clean(c.Note, 200),
		Renewal: token.Sliding, Lifetime: rules.Lifetime.Value, Idle: token.DefaultIdle, Unused: token.DefaultUnused,
		MaxLifetime: rules.MaxLifetime.Value, RotateAfter: token.DefaultRotateAfter,
	}
	if t.Kind == token.Service {
		t.Idle = token.ServiceIdle
	}
	return withLifetime(t, c, rules, now)
}

// freeName is the name of a new token, unless a living one of its owner has it
// that the decision does not end.
func (a *Authority) freeName(ctx context.Context, kind token.Kind, name string, owner *principal.Principal, d *Decision, now time.Time) (string, error) {
	name, err := tokenName(name)
	if err != nil {
		return "", err
	}
	same, err := a.store.TokensOf(ctx, owner.ID, Among{Kind: kind, Name: name, Open: true})
	for _, t := range same {
		ends := slices.ContainsFunc(d.Tokens, func(c TokenChange) bool { return c.Old.ID == t.ID })
		if !ends && a.lives(&t, owner, now) {
			return "", nameTaken(&t)
		}
	}
	return name, err
}

func nameTaken(t *token.Token) error {
	if t.Kind == token.Service {
		return fault.New(fault.Conflict, "name_taken", "The service already has a token of that name.").
			WithFix("Rotate it (gradegate token rotate %s) or choose another name: --name NAME", t.ID)
	}
	return fault.New(fault.Conflict, "name_taken", "You already have a token of that name.").
		WithFix("Rotate it (gradegate token rotate %s) or choose another name.", fault.Word(t.Name))
}

// grant gives the scopes of a new token. That of a service has those that a
// program needs, and handles tokens only if that is asked for.
func grant(asked, granted []string, kind token.Kind) ([]string, error) {
	if kind != token.Service {
		return policy.Narrow(asked, granted)
	}
	most := slices.DeleteFunc(slices.Clone(granted), func(x string) bool {
		return !slices.Contains(policy.ServiceScopes, x) || len(asked) == 0 && x == policy.ScopeTokens
	})
	scopes, err := policy.Narrow(asked, most)
	if err == nil && len(scopes) == 0 {
		err = fault.New(fault.Denied, "scope_widened", "The token that you use has no scope that a service may have.").
			Lacking(policy.ServiceScopes, granted).
			WithFix("Use your session: gradegate login --invite CODE")
	}
	return scopes, err
}

// outlive refuses a token that would outlive the one that makes it: only a
// sign-in begins a life of its own. What was not asked for is cut to fit.
func outlive(t, maker *token.Token, c Create, now time.Time) error {
	if maker.Kind == token.Session && maker.Parent == "" {
		return nil
	}
	t.BornAt = maker.BornAt
	if maker.MaxLifetime > 0 {
		t.MaxLifetime = min(t.MaxLifetime, maker.MaxLifetime)
	}
	longer := t.Lifetime > maker.Lifetime
	t.Lifetime = min(t.Lifetime, maker.Lifetime)
	if maker.Renewal == token.Fixed {
		longer = longer || c.Lifetime > 0 || t.FixedEnd.After(maker.FixedEnd)
		if t.Renewal != token.Fixed || t.FixedEnd.After(maker.FixedEnd) {
			t.Renewal, t.FixedEnd = token.Fixed, maker.FixedEnd
		}
	}
	if longer && (c.Lifetime > 0 || !c.ExpiresAt.IsZero()) {
		return fault.New(fault.Denied, "lifetime_widened", "A token cannot make another one that outlives it.").
			WithFix("Ask with a session (gradegate login --invite CODE), or for less.")
	}
	return nil
}

func withLifetime(t token.Token, c Create, rules policy.Demands, now time.Time) (token.Token, error) {
	asked := c.Lifetime
	if !c.ExpiresAt.IsZero() {
		asked = c.ExpiresAt.Sub(now)
		t.Renewal, t.FixedEnd = token.Fixed, c.ExpiresAt.UTC().Truncate(time.Microsecond)
	}
	if asked == 0 {
		return t, nil
	}
	if most := rules.MaxLifetime; asked < token.MinLifetime || asked > most.Value {
		return t, fault.New(fault.Invalid, "lifetime_out_of_range", "A token lives between 15 minutes and %s, says the policy of %s.", config.FormatDuration(most.Value), most.Level).
			With("policy", most.Level).WithFix("Use for example --expires %s", config.FormatDuration(min(token.DefaultLifetime, most.Value)))
	}
	t.Lifetime = asked
	return t, nil
}

func narrowCompetitions(asked, granted []string) error {
	if len(granted) == 0 {
		return nil
	}
	for _, c := range asked {
		if !slices.Contains(granted, c) {
			return fault.New(fault.Denied, "competition_widened", "A token cannot be for more competitions than the one that makes it.").
				Lacking(asked, granted).
				WithFix("Ask for some of them, or with a credential that is for all of it: gradegate whoami")
		}
	}
	return nil
}

// narrowNetworks gives the networks of a child: those asked for, which must lie
// within its parent's, or the parent's own if it may inherit them.
func narrowNetworks(asked, granted []netip.Prefix, inherit bool) ([]netip.Prefix, error) {
	if len(granted) == 0 {
		return asked, nil
	}
	if len(asked) == 0 && inherit {
		return granted, nil
	}
	for _, p := range asked {
		inside := slices.ContainsFunc(granted, func(g netip.Prefix) bool { return g.Bits() <= p.Bits() && g.Contains(p.Addr()) })
		if !inside {
			return nil, errNetworks
		}
	}
	if len(asked) == 0 {
		return nil, errNetworks
	}
	return asked, nil
}

// observable refuses to observe only where there is nothing to observe, or where
// a use from elsewhere is refused.
func observable(asked, granted []netip.Prefix) error {
	if len(granted) > 0 {
		return fault.New(fault.Denied, "network_widened", "A use from outside of its networks is refused already; to mark it only would be more.").
			WithFix("Make another token with your session: gradegate token create --cidr 10.0.0.0/8 --observe")
	}
	if len(asked) == 0 {
		return fault.New(fault.Invalid, "observe_nothing", "Without networks there is nothing to observe.").WithFix("Name them: --cidr 10.0.0.0/8 --observe")
	}
	return nil
}

var errNetworks = fault.New(fault.Denied, "network_widened", "A token cannot be for more networks than the one that makes it.").
	WithFix("Ask for networks within those of the token you use: gradegate token show self")

func tokenName(s string) (string, error) {
	name := strings.TrimSpace(s)
	if name == "" || len(name) > 63 || !utf8.ValidString(name) || name != audit.Clean(name, 63) || strings.HasPrefix(name, "tok_") || name == "self" || name[0] == '-' ||
		strings.ContainsAny(name, `/\\;%`) || name == "." || name == ".." {
		return "", fault.New(fault.Invalid, "token_name_invalid",
			"A token's name has 1 to 63 printable characters without / \\ ; and %, does not begin with a dash, and is not \"self\" or an id.").
			WithFix("Name it after the machine or purpose: --name laptop")
	}
	return name, nil
}

// explainLimit adds the choices to a refusal for too many personal tokens.
func (a *Authority) explainLimit(ctx context.Context, err error, s *policy.Subject, now time.Time) error {
	f := fault.Of(err)
	if f.Code != "token_limit" {
		return err
	}
	own, err := a.store.TokensOf(ctx, s.Principal.ID, Among{Kind: token.Personal, Open: true})
	if err != nil {
		return err
	}
	var have []string
	for _, t := range own {
		if a.counts(&t, &s.Principal, now) {
			have = append(have, t.Name)
		}
	}
	name := "NAME"
	if len(have) > 0 {
		name = fault.Word(have[0])
	}
	most := a.demands(&s.Principal, now).MaxPersonal
	f.Detail = fmt.Sprintf("You have %d of the %d personal tokens that the policy of %s allows you.", len(have), most.Value, most.Level)
	return f.With("policy", most.Level).With("existing", have).With("choices", []string{"rotate", "replace"}).
		WithFix("gradegate token rotate %s    or    gradegate token create --name NEW --replace %s --save    (or ask an administrator to raise it: gradegate policy set)", name, name)
}

// among finds one of an owner's tokens by id, or by name: one that may still be
// used before one that is over.
func (a *Authority) among(ctx context.Context, owner *principal.Principal, idOrName string) (token.Token, error) {
	if strings.HasPrefix(idOrName, "tok_") {
		t, err := a.store.Token(ctx, token.ID(idOrName))
		if err == nil && t.Owner != owner.ID || err != nil && fault.KindOf(err) == fault.NotFound {
			return token.Token{}, ErrNoToken
		}
		return t, err
	}
	now := a.now()
	for _, open := range []bool{true, false} {
		own, err := a.store.TokensOf(ctx, owner.ID, Among{Name: idOrName, Open: open})
		if err != nil {
			return token.Token{}, err
		}
		if t := a.best(own, owner, now); t != nil && (!open || a.use(t, owner, now) > 0) {
			return *t, nil
		}
	}
	return token.Token{}, ErrNoToken
}

// best is the token that somebody means by a name which several have.
func (a *Authority) best(own []token.Token, owner *principal.Principal, now time.Time) (found *token.Token) {
	for i := range own {
		t := &own[i]
		if t.Kind != token.Invite && (found == nil || a.better(t, found, owner, now)) {
			found = t
		}
	}
	return found
}

// better prefers what is of use, then what was given the name over the session of
// a machine that is called so, then what is of more use, then the newest generation.
func (a *Authority) better(t, than *token.Token, owner *principal.Principal, now time.Time) bool {
	use, other := a.use(t, owner, now), a.use(than, owner, now)
	named := func(t *token.Token) bool { return t.Kind != token.Session && t.Kind != token.Refresh }
	switch {
	case (use > 0) != (other > 0):
		return use > 0
	case named(t) != named(than):
		return named(t)
	case use != other:
		return use > other
	}
	return t.IssuedAt.After(than.IssuedAt)
}

// use is of how much use a token still is: 2, it lives; 1, it is in its grace
// period or can be resumed; 0, it is over.
func (a *Authority) use(t *token.Token, owner *principal.Principal, now time.Time) int {
	state, end := a.state(t, owner, now)
	switch {
	case a.lives(t, owner, now):
		return 2
	case state == token.StateActive, state == token.StateIdleExpired && now.Before(end.At.Add(token.ReactivateWithin)):
		return 1
	}
	return 0
}

// ErrNoToken is the answer for a token that is absent or somebody else's.
var ErrNoToken = fault.New(fault.NotFound, "token_not_found", "There is no such token, or it is not yours.").
	WithFix("gradegate token list")

var errLocalName = fault.New(fault.NotFound, "token_not_found", "The local administrator has no tokens of its own, and somebody else's go by their id.").
	WithFix("gradegate user tokens NAME --data DIR shows the ids.")

// Tokens lists the owner's tokens, newest first, after the given one (empty:
// from the start). The owner may be "" for the subject's own.
func (a *Authority) Tokens(ctx context.Context, s *policy.Subject, owner principal.ID, after token.ID, limit int) ([]token.Token, error) {
	if owner == "" {
		owner = s.Principal.ID
	}
	if err := policy.Decide(s, policy.TokenRead, a.resource(s, owner)); err != nil {
		return nil, err
	}
	return a.store.TokensPage(ctx, owner, after, limit)
}

// Find gives one token by id, by name among the subject's own, or "self".
func (a *Authority) Find(ctx context.Context, s *policy.Subject, idOrName string) (token.Token, error) {
	t, err := a.find(ctx, s, idOrName)
	if err != nil {
		return t, err
	}
	if t.ID == s.Token {
		return t, nil // whoever holds a token may look at it
	}
	if err := policy.Decide(s, policy.TokenRead, a.resource(s, t.Owner)); err != nil {
		return token.Token{}, masked(err)
	}
	return t, nil
}

func (a *Authority) find(ctx context.Context, s *policy.Subject, idOrName string) (token.Token, error) {
	if idOrName == "self" {
		if s.Token == "" {
			return token.Token{}, ErrNoToken
		}
		idOrName = string(s.Token)
	}
	if strings.HasPrefix(idOrName, "tok_") {
		t, err := a.store.Token(ctx, token.ID(idOrName))
		if err != nil && fault.KindOf(err) == fault.NotFound {
			return t, ErrNoToken
		}
		return t, err
	}
	if s.Local {
		return token.Token{}, errLocalName
	}
	return a.among(ctx, &s.Principal, idOrName)
}

// masked gives everything that may not be known one and the same face.
func masked(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return ErrNoToken
	}
	return err
}
