package authority

import (
	"context"
	"fmt"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Import is a token of an earlier system: whose it is, and SHA-256 of its secret.
type Import struct {
	User   string
	Digest token.Digest // bare
	// Unreadable is set if what was given is no digest.
	Unreadable bool
	Name       string
	// ExpiresAt is its end there; zero: none, and it gets one.
	ExpiresAt    time.Time
	Scopes       []string // none: what a personal token has
	Competitions []string
}

// ImportOptions say how a list is taken over.
type ImportOptions struct {
	// CreateUsers makes those that do not exist, without a credential of ours.
	CreateUsers bool
	DryRun      bool // say what would be done, and do nothing
}

// Imported is what became of one line.
type Imported struct {
	Token   token.Token // of "imported" and "known"
	User    string
	Outcome string // "imported", "known" (it was imported before), "refused"
	NewUser bool
	Refusal error
}

// MaxImports bounds a list.
const MaxImports = 500

// ImportTokens takes over tokens of an earlier system, which go on under their
// old secrets as kind "legacy", with clocks of ours (B21). Whoever can write a
// digest can make a token for anybody, so only the administrator on the
// server's machine may, who has the keys in any case. A line that is refused
// does not hold up the others.
func (a *Authority) ImportTokens(ctx context.Context, s *policy.Subject, list []Import, o ImportOptions) ([]Imported, error) {
	if err := policy.Decide(s, policy.TokenImport, policy.Resource{}); err != nil {
		return nil, err
	}
	if !s.Local {
		return nil, fault.New(fault.Denied, "local_only", "Tokens are imported on the server's own machine only: whoever can write digests can make tokens for anybody.").
			WithFix("Run it there, as the user that runs the server: gradegate token import FILE --data DIR")
	}
	if len(list) == 0 || len(list) > MaxImports {
		return nil, fault.New(fault.Invalid, "imports_out_of_range", "A list holds between 1 and %d tokens.", MaxImports).WithFix("Split it.")
	}
	out := make([]Imported, len(list))
	made := map[string]bool{} // users
	for i := range list {
		x, err := a.importOne(ctx, s, list[i], o, made)
		if f := fault.Of(err); err != nil && (f.Kind == fault.Unavailable || f.Kind == fault.Internal) {
			return nil, err // repeated, it goes on where it stopped
		}
		if err != nil {
			x.Outcome, x.Refusal = "refused", err
		}
		x.User = list[i].User
		out[i] = x
	}
	return out, nil
}

func (a *Authority) importOne(ctx context.Context, s *policy.Subject, x Import, o ImportOptions, made map[string]bool) (Imported, error) {
	if x.Unreadable {
		return Imported{}, fault.New(fault.Invalid, "sha256_invalid", "SHA-256 is 64 hexadecimal digits.").
			WithFix("Give the digest of the secret, never the secret itself.")
	}
	return retry(func() (Imported, error) {
		return token.Draw(func() (Imported, error) { return a.importOnce(ctx, s, x, o, made) })
	})
}

func (a *Authority) importOnce(ctx context.Context, s *policy.Subject, x Import, o ImportOptions, made map[string]bool) (Imported, error) {
	if id, ok := a.table.Imported(x.Digest); ok {
		return a.known(ctx, x, id.ID())
	}
	now := a.now()
	var d Decision
	var events []audit.Event
	p, err := a.lookUp(ctx, x.User)
	isNew := fault.KindOf(err) == fault.NotFound && o.CreateUsers
	if isNew {
		var e audit.Event
		p, e, err = a.draftUser(s, NewUser{Name: x.User})
		d.Principals, events = []PrincipalChange{{New: p}}, []audit.Event{e}
	}
	if err != nil {
		return Imported{}, err
	}
	if p.Status != principal.Active || p.Kind != principal.Human {
		return Imported{}, fault.New(fault.Conflict, "owner_inactive", "%s is no active user.", p.Name).WithFix("gradegate user show %s", p.Name)
	}
	t, err := a.imported(s, p, x, now)
	if err != nil {
		return Imported{}, err
	}
	out := Imported{Token: t, Outcome: "imported", NewUser: isNew && !made[p.Name]}
	made[p.Name] = true
	if o.DryRun {
		return out, nil
	}
	d.Tokens = []TokenChange{{New: t}}
	e := a.event(s, audit.TokenImport, now)
	e.Target, e.Owner = string(t.ID), string(p.ID)
	e.Detail = map[string]string{"name": t.Name, "ends": t.FixedEnd.Format(time.RFC3339)}
	_, err = a.commit(ctx, s, d, append(events, e)...)
	return out, err
}

// known is a token that was imported before: by an earlier try, or for another line
// of the list.
func (a *Authority) known(ctx context.Context, x Import, id token.ID) (Imported, error) {
	t, err := a.store.Token(ctx, id)
	if err != nil {
		return Imported{}, err
	}
	if p, err := a.lookUp(ctx, x.User); err != nil || p.ID != t.Owner {
		return Imported{}, fault.New(fault.Conflict, "import_shared", "The same secret is imported for another user already (%s).", t.ID).
			WithFix("Find out whose it is. A secret that two people have is best ended: gradegate token revoke %s", t.ID)
	}
	return Imported{Token: t, Outcome: "known"}, nil
}

// imported is the record of a token that is taken over.
func (a *Authority) imported(s *policy.Subject, p principal.Principal, x Import, now time.Time) (token.Token, error) {
	if x.Name == "" {
		x.Name = fmt.Sprintf("imported-%x", x.Digest.Sum[:3])
	}
	name, err := tokenName(x.Name)
	if err != nil {
		return token.Token{}, err
	}
	scopes, err := policy.Narrow(x.Scopes, policy.UserScopes)
	if err != nil {
		return token.Token{}, err
	}
	rules := a.demands(&p, now)
	end := x.ExpiresAt
	if end.IsZero() {
		end = token.StaggeredEnd(x.Digest, now)
	}
	if latest := now.Add(rules.MaxLifetime.Value); end.After(latest) {
		end = latest
	}
	if !end.After(now) {
		return token.Token{}, fault.New(fault.Invalid, "import_expired", "The token has expired already (%s).", end.Format(time.RFC3339)).WithFix("Leave the line out.")
	}
	public := token.NewSecret(token.Personal).Presented().Public // a record's name; its secret is elsewhere
	return token.Token{
		ID: public.ID(), Version: 1, Kind: token.Legacy, Digest: x.Digest, Name: name, Owner: p.ID, Epochs: p.Epochs,
		Scopes: scopes, Competitions: x.Competitions, Standing: token.Standard, Family: token.Family(newID("fam_", now)), Generation: 1,
		IssuedAt: now, IssuedBy: s.Actor(), BornAt: now, Renewal: token.Fixed, FixedEnd: end, Lifetime: end.Sub(now),
		Idle: token.DefaultIdle, Unused: token.DefaultIdle, // it was used elsewhere before
		MaxLifetime: rules.MaxLifetime.Value, RotateAfter: token.DefaultRotateAfter, Note: "imported",
	}, nil
}

// adopted is the first generation of an imported token that is ours: a personal
// token like any other.
func adopted(t token.Token, rules policy.Demands) token.Token {
	t.Renewal, t.FixedEnd, t.Lifetime, t.Unused = token.Sliding, time.Time{}, rules.Lifetime.Value, token.DefaultUnused
	return t
}
