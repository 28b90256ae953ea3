package authn

import (
	"cmp"
	"slices"

	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// consents is who may hand in for whom, guarded by Table.consentMu.
type consents struct {
	byID    map[string]principal.Consent
	byGiver map[principal.ID][]string // ids of those that were not withdrawn, in no order
}

func (t *Table) applyConsents(list []principal.Consent) {
	if len(list) == 0 {
		return
	}
	t.consentMu.Lock()
	defer t.consentMu.Unlock()
	for _, c := range list {
		known, ok := t.consents.byID[c.ID]
		if ok && known.Version >= c.Version {
			continue
		}
		t.consents.byID[c.ID] = c
		mine := t.consents.byGiver[c.Giver]
		switch at := slices.Index(mine, c.ID); {
		case at < 0 && c.EndedAt.IsZero():
			t.consents.byGiver[c.Giver] = append(mine, c.ID)
		case at >= 0 && !c.EndedAt.IsZero():
			t.consents.byGiver[c.Giver] = slices.Delete(mine, at, at+1)
		}
	}
}

// Consent is a consent's record.
func (t *Table) Consent(id string) (principal.Consent, bool) {
	t.consentMu.RLock()
	defer t.consentMu.RUnlock()
	c, ok := t.consents.byID[id]
	return c, ok
}

// ConsentsOf are those that somebody gave or was given, by id.
func (t *Table) ConsentsOf(who principal.ID) (out []principal.Consent) {
	t.consentMu.RLock()
	defer t.consentMu.RUnlock()
	for _, c := range t.consents.byID {
		if c.Giver == who || c.Taker == who {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b principal.Consent) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Vouched reports whether the token that gave a consent was not reported leaked
// since. It must be known here: whoever is not, cannot be told from one that was.
func (t *Table) Vouched(c *principal.Consent) bool {
	if c.Via == "" {
		return true
	}
	_, known := t.Token(token.ID(c.Via))
	return known && !t.endsHandles(token.ID(c.Via))
}

// SeenConsent takes over a record that was read from the store, if it is newer.
func (t *Table) SeenConsent(c principal.Consent) { t.Apply(Change{Consents: []principal.Consent{c}}) }

// Consented gives the person of that name or id for whom the subject may hand
// in, and the consent. The refusal is the same whether there is such a person
// or not.
func (t *Table) Consented(s *policy.Subject, nameOrID, competition string) (principal.Principal, principal.Consent, error) {
	giver, ok := t.Principal(principal.ID(nameOrID))
	if name, err := principal.CanonicalName(nameOrID); !ok && err == nil {
		nameOrID = name
		giver, ok = t.PrincipalByName(name)
	}
	switch {
	case nameOrID == s.Principal.Name || ok && giver.ID == s.Principal.ID:
		return giver, principal.Consent{}, fault.New(fault.Invalid, "on_behalf_of_self", "You hand in for yourself anyway.").
			WithFix("Leave --on-behalf-of out.")
	case !ok:
		return giver, principal.Consent{}, noConsent(s, nameOrID, competition)
	}
	c, ok := t.holding(&giver, &s.Principal, competition)
	if !ok {
		return giver, c, noConsent(s, nameOrID, competition)
	}
	return giver, c, nil
}

// holding is the consent between two that holds at this moment and covers the
// competition: of several the one that holds longest.
func (t *Table) holding(giver, taker *principal.Principal, competition string) (best principal.Consent, ok bool) {
	now := t.now()
	t.consentMu.RLock()
	defer t.consentMu.RUnlock()
	for _, id := range t.consents.byGiver[giver.ID] {
		c := t.consents.byID[id]
		within := principal.Consent{Competitions: t.Reach(c.Competitions)}
		if c.Holds(giver, taker, now) && t.Vouched(&c) && within.Covers(competition) && (!ok || c.Until.After(best.Until)) {
			best, ok = c, true
		}
	}
	return best, ok
}

func noConsent(s *policy.Subject, name, competition string) error {
	return fault.New(fault.Denied, "consent_missing", "You have no consent to hand in for that person in this competition.").
		With("on_behalf_of", name).With("competition", competition).
		WithFix("Ask them to run: gradegate consent give %s --competition %s", s.Principal.Name, competition)
}

// AdmitFor is Admit for a job that is another person's. It holds the gates of
// both: neither the withdrawal of the consent nor the off-boarding of either is
// acknowledged before release is called, and nothing is admitted after it.
func (t *Table) AdmitFor(s *policy.Subject, giver principal.ID, competition string) (principal.Principal, principal.Consent, func(), error) {
	none := principal.Consent{}
	first, second := t.owner(s.Principal.ID), t.owner(giver)
	if giver < s.Principal.ID { // in one order, so that two of them never wait for one another
		first, second = second, first
	}
	first.gate.RLock()
	second.gate.RLock()
	release := func() {
		second.gate.RUnlock()
		first.gate.RUnlock()
	}
	err := t.stillActive(s, t.owner(s.Principal.ID))
	if err != nil {
		release()
		return principal.Principal{}, none, nil, err
	}
	taker, _ := t.Principal(s.Principal.ID)
	who, _ := t.Principal(giver)
	c, ok := t.holding(&who, &taker, competition)
	if !ok {
		release()
		return who, none, nil, noConsent(s, who.Name, competition)
	}
	return who, c, release, nil
}
