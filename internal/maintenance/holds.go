package maintenance

import (
	"context"
	"slices"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// Directory finds what a hold can be on. What is absent is NotFound.
type Directory interface {
	// User is the id and name of a person, by either.
	User(ctx context.Context, name string) (id, shown string, err error)
	// Competition fails if there is none of that name.
	Competition(ctx context.Context, name string) error
	// TokenName is the name of a token, wherever it is now.
	TokenName(ctx context.Context, id token.ID) (string, error)
}

// NewHold asks for a hold.
type NewHold struct {
	// Subject is a token's id, a user or a competition; user:NAME or
	// competition:NAME where both exist.
	Subject string
	Reason  string
	Until   time.Time
}

const reasonMost = 500

// AddHold puts a hold on something.
func (m *Maintenance) AddHold(ctx context.Context, s *policy.Subject, n NewHold) (Hold, error) {
	if err := policy.Decide(s, policy.HoldManage, policy.Resource{}); err != nil {
		return Hold{}, err
	}
	now := m.Now()
	n.Reason = strings.TrimSpace(n.Reason)
	switch {
	case n.Reason == "" || len(n.Reason) > reasonMost:
		return Hold{}, fault.New(fault.Invalid, "reason_missing", "A hold needs a reason, of 500 bytes at most.").WithFix(`Add --reason "case 4711"`)
	case !n.Until.IsZero() && !n.Until.After(now):
		return Hold{}, fault.New(fault.Invalid, "until_past", "The hold would be over already.").WithFix("Give an instant that is still to come, or none.")
	}
	h := Hold{ID: m.NewID("hold_"), Version: 1, Reason: n.Reason, By: s.Actor(), At: now, Until: n.Until}
	var err error
	if h.Kind, h.Subject, h.Name, err = m.find(ctx, n.Subject); err != nil {
		return Hold{}, err
	}
	e := m.event(byline(s), audit.HoldAdd)
	e.Target = h.Subject
	if h.Kind == HoldUser {
		e.Owner = h.Subject
	}
	e.Detail = map[string]string{"hold": h.ID, "kind": h.Kind, "reason": h.Reason}
	if !h.Until.IsZero() {
		e.Detail["until"] = h.Until.Format(time.RFC3339)
	}
	return h, m.Store.PutHold(ctx, h, e)
}

// find tells what a hold is on.
func (m *Maintenance) find(ctx context.Context, text string) (kind, id, name string, err error) {
	if strings.HasPrefix(text, "tok_") {
		name, err = m.Directory.TokenName(ctx, token.ID(text))
		return HoldToken, text, name, err
	}
	want, plain, ok := strings.Cut(text, ":")
	if !ok {
		want, plain = "", text
	}
	id, name, errUser := m.Directory.User(ctx, plain)
	errCompetition := m.Directory.Competition(ctx, plain)
	for _, err := range []error{errUser, errCompetition} {
		if err != nil && fault.KindOf(err) != fault.NotFound && fault.KindOf(err) != fault.Invalid {
			return "", "", "", err // it may be there
		}
	}
	switch {
	case want == HoldUser && errUser == nil, want == "" && errUser == nil && errCompetition != nil:
		return HoldUser, id, name, nil
	case want == HoldCompetition && errCompetition == nil, want == "" && errCompetition == nil && errUser != nil:
		return HoldCompetition, plain, plain, nil
	case want == "" && errUser == nil:
		return "", "", "", fault.New(fault.Invalid, "subject_ambiguous", "There is a user and a competition of that name.").
			WithFix("Use user:%s or competition:%s", fault.Word(plain), fault.Word(plain))
	}
	return "", "", "", fault.New(fault.NotFound, "subject_not_found", "There is no such user, token or competition.").
		WithFix("gradegate user list; gradegate competition list; a token is named by its id, tok_…")
}

// RemoveHold ends a hold. Its record stays.
func (m *Maintenance) RemoveHold(ctx context.Context, s *policy.Subject, id string) (Hold, error) {
	if err := policy.Decide(s, policy.HoldManage, policy.Resource{}); err != nil {
		return Hold{}, err
	}
	all, err := m.Store.Holds(ctx)
	if err != nil {
		return Hold{}, err
	}
	i := slices.IndexFunc(all, func(h Hold) bool { return h.ID == id })
	if i < 0 {
		return Hold{}, fault.New(fault.NotFound, "hold_not_found", "There is no such hold.").WithFix("gradegate hold list")
	}
	h := all[i]
	if !h.RemovedAt.IsZero() {
		return h, nil // it is as was asked for
	}
	h.Version, h.RemovedAt, h.RemovedBy = h.Version+1, m.Now(), s.Actor()
	e := m.event(byline(s), audit.HoldRemove)
	e.Target, e.Detail = h.Subject, map[string]string{"hold": h.ID, "kind": h.Kind}
	return h, m.Store.PutHold(ctx, h, e)
}

// Holds lists the holds that are in force, or all that ever were.
func (m *Maintenance) Holds(ctx context.Context, s *policy.Subject, all bool) ([]Hold, error) {
	if err := policy.Decide(s, policy.ArchiveRead, policy.Resource{}); err != nil {
		return nil, err
	}
	list, err := m.Store.Holds(ctx)
	now := m.Now()
	if !all {
		list = slices.DeleteFunc(list, func(h Hold) bool { return !h.Active(now) })
	}
	return list, err
}

// List gives tokens of the archive.
func (m *Maintenance) List(ctx context.Context, s *policy.Subject, q Query) ([]Archived, error) {
	if err := policy.Decide(s, policy.ArchiveRead, policy.Resource{}); err != nil {
		return nil, err
	}
	return m.Store.Archived(ctx, q)
}

// Show gives one token of the archive.
func (m *Maintenance) Show(ctx context.Context, s *policy.Subject, id token.ID) (Archived, error) {
	if err := policy.Decide(s, policy.ArchiveRead, policy.Resource{}); err != nil {
		return Archived{}, err
	}
	return m.Store.ArchivedToken(ctx, id)
}
