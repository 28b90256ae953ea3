package authority

import (
	"context"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
)

// NewConsent asks for a consent of the subject.
type NewConsent struct {
	To           string        // name or id
	For          time.Duration // zero: the default
	Competitions []string      // none: all
}

// Consent is a consent with both its sides, and what it is at present.
type Consent struct {
	principal.Consent
	From, To principal.Principal
	State    string // active, expired, withdrawn, or ended by an off-boarding
}

// GiveConsent lets somebody hand in jobs that are the subject's. It takes the
// place of an earlier consent to the same one.
func (a *Authority) GiveConsent(ctx context.Context, s *policy.Subject, n NewConsent, idem Idem) (Consent, error) {
	if err := policy.Decide(s, policy.ConsentGive, policy.Resource{Owner: s.Principal.ID}); err != nil {
		return Consent{}, err
	}
	if err := narrowCompetitions(n.Competitions, s.Competitions); err != nil {
		return Consent{}, err
	}
	if len(n.Competitions) == 0 {
		n.Competitions = a.table.Handed(s.Competitions)
	}
	if err := a.mayVouch(ctx, s); err != nil {
		return Consent{}, err
	}
	r := repeat(s, idem, "consent.give", n)
	again := func(known Reply) (Consent, error) {
		c, _ := a.table.Consent(known.Ref)
		return a.consent(ctx, c)
	}
	return once(ctx, a, r, again, func() (Consent, error) {
		to, err := a.lookUp(ctx, n.To)
		if err == nil && to.Kind == principal.Service && !a.answersFor(s, to.ID) {
			err = errNoTaker // to everybody else there is no such service
		}
		if err != nil {
			return Consent{}, err
		}
		now := a.now()
		given, err := principal.Consenting(newID("cns_", now), s.Principal, to, n.For, n.Competitions, now)
		if err != nil {
			return Consent{}, err
		}
		known, err := a.store.Consents(ctx, s.Principal.ID)
		if err != nil {
			return Consent{}, err
		}
		if err := few(known, s.Principal.ID, now); err != nil {
			return Consent{}, err
		}
		given.Via = string(s.Token)
		d := Decision{Consents: []ConsentChange{{New: given}}, Reply: a.reply(r, given.ID, now)}
		for _, c := range known {
			if ended, changed := c.Withdraw(now); changed && c.Giver == given.Giver && c.Taker == given.Taker {
				d.Consents = append(d.Consents, ConsentChange{Old: &c, New: ended})
			}
		}
		e := a.event(s, audit.ConsentGive, now)
		e.Target, e.Owner = given.ID, string(given.Giver)
		e.Detail = map[string]string{"to": string(given.Taker), "until": given.Until.Format(time.RFC3339), "competitions": strings.Join(given.Competitions, " ")}
		if _, err := a.commit(ctx, s, d, e); err != nil {
			return Consent{}, err
		}
		a.table.Drain(given.Giver)
		return a.consent(ctx, given)
	})
}

var errNoTaker = fault.New(fault.NotFound, "user_not_found", "There is no such user.").WithFix("gradegate user list")

// vouches is what a consent hands on, so that the token that gives it must have it.
var vouches = []string{policy.ScopeSubmit, policy.ScopeRead, policy.ScopeCancel, policy.ScopeResults}

// mayVouch refuses to give by a consent what the token that gives it does not
// have: its rights, from everywhere, without a budget of its own, and for itself
// and not by the grace of a parent.
func (a *Authority) mayVouch(ctx context.Context, s *policy.Subject) error {
	if _, err := policy.Narrow(vouches, s.Scopes); err != nil {
		return err
	}
	t, err := a.store.Token(ctx, s.Token)
	if err != nil {
		return err
	}
	if len(t.CIDRs) > 0 || t.Parent != "" {
		return fault.New(fault.Denied, "consent_narrow", "This token is limited to networks, or was made from another one: it gives no consent, which has no such limits.").
			WithFix("Sign in: gradegate login --invite CODE")
	}
	return policy.Covers(a.table.Bounds(s.Principal.ID, s.Token), a.table.Bounds(s.Principal.ID, ""))
}

const (
	mostStanding = 100  // consents of one person that are in force at a time
	mostGiven    = 1000 // in as long as one may hold
)

// few bounds what one person gives, since the records stay.
func few(known []principal.Consent, giver principal.ID, now time.Time) error {
	standing, given := 0, 0
	for _, c := range known {
		if c.Giver != giver {
			continue
		}
		if c.EndedAt.IsZero() && now.Before(c.Until) {
			standing++
		}
		if now.Sub(c.GivenAt) < principal.ConsentMax {
			given++
		}
	}
	if standing < mostStanding && given < mostGiven {
		return nil
	}
	return fault.New(fault.Limited, "consents_many", "You have given more consents than one person needs: %d are in force, %d were given in 90 days.", standing, given).
		WithFix("Withdraw some: gradegate consent list")
}

func (a *Authority) consent(ctx context.Context, c principal.Consent) (out Consent, err error) {
	out.Consent = c
	if out.From, err = a.store.Principal(ctx, c.Giver); err != nil {
		return out, err
	}
	if out.To, err = a.store.Principal(ctx, c.Taker); err != nil {
		return out, err
	}
	now := a.now()
	switch {
	case !c.EndedAt.IsZero():
		out.State = "withdrawn"
	case !now.Before(c.Until):
		out.State = "expired"
	case !c.Holds(&out.From, &out.To, now), !a.table.Vouched(&c):
		out.State = "ended"
	default:
		out.State = "active"
	}
	return out, nil
}

// Consents lists the consents that somebody gave or was given, the newest first;
// "" is the subject itself.
func (a *Authority) Consents(ctx context.Context, s *policy.Subject, who principal.ID) ([]Consent, error) {
	if who == "" {
		who = s.Principal.ID
	}
	if err := policy.Decide(s, policy.ConsentRead, a.resource(s, who)); err != nil {
		return nil, err
	}
	list, err := a.store.Consents(ctx, who)
	if err != nil {
		return nil, err
	}
	out := make([]Consent, len(list))
	for i, c := range list {
		if out[len(list)-1-i], err = a.consent(ctx, c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var errNoConsent = fault.New(fault.NotFound, "consent_not_found", "There is no such consent, or it is not yours.").
	WithFix("gradegate consent list")

// WithdrawConsent ends a consent at once: when it returns, nothing is admitted
// by it any more. Who gave it does that, or an administrator.
func (a *Authority) WithdrawConsent(ctx context.Context, s *policy.Subject, id string) (Consent, error) {
	known, ok := a.table.Consent(id)
	if !ok {
		return Consent{}, errNoConsent
	}
	if err := policy.Decide(s, policy.ConsentEnd, policy.Resource{Owner: known.Giver}); err != nil {
		if fault.KindOf(err) == fault.NotFound {
			err = errNoConsent
		}
		return Consent{}, err
	}
	return retry(func() (Consent, error) {
		list, err := a.store.Consents(ctx, known.Giver)
		if err != nil {
			return Consent{}, err
		}
		for _, c := range list {
			if c.ID != id {
				continue
			}
			now := a.now()
			ended, changed := c.Withdraw(now)
			if !changed {
				a.table.SeenConsent(c) // it must be in force before it is said to be
				a.table.Drain(c.Giver)
				return a.consent(ctx, c)
			}
			e := a.event(s, audit.ConsentWithdraw, now)
			e.Target, e.Owner = c.ID, string(c.Giver)
			e.Detail = map[string]string{"to": string(c.Taker)}
			if _, err := a.commit(ctx, s, Decision{Consents: []ConsentChange{{Old: &c, New: ended}}}, e); err != nil {
				return Consent{}, err
			}
			a.table.Drain(c.Giver)
			return a.consent(ctx, ended)
		}
		return Consent{}, errNoConsent
	})
}
