package maintenance

import (
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// The kinds of what is held.
const (
	HoldUser        = "user"
	HoldToken       = "token"
	HoldCompetition = "competition"
)

// Hold keeps what belongs to something from being archived, reduced or deleted,
// because somebody may ask for it. It is never deleted itself.
type Hold struct {
	ID      string
	Version int64
	Kind    string // what is held
	Subject string // its id
	Name    string // what it was called
	Reason  string
	By      string // actor
	At      time.Time
	Until   time.Time // zero: until it is removed
	// RemovedAt and RemovedBy end it.
	RemovedAt time.Time
	RemovedBy string
}

// Active reports whether the hold is in force at now.
func (h *Hold) Active(now time.Time) bool {
	return h.RemovedAt.IsZero() && (h.Until.IsZero() || now.Before(h.Until))
}

// Held are the subjects of the holds that are in force at one moment.
type Held map[string]map[string]bool

// HeldAt are the subjects that are held at now.
func HeldAt(all []Hold, now time.Time) Held {
	out := Held{}
	for i := range all {
		h := &all[i]
		if !h.Active(now) {
			continue
		}
		if out[h.Kind] == nil {
			out[h.Kind] = map[string]bool{}
		}
		out[h.Kind][h.Subject] = true
	}
	return out
}

// Any reports whether anything at all is held.
func (h Held) Any() bool { return len(h) > 0 }

// User and Competition report whether a person, or a competition, is held.
func (h Held) User(id principal.ID) bool    { return h[HoldUser][string(id)] }
func (h Held) Competition(name string) bool { return h[HoldCompetition][name] }

// Line is why a line of the audit trail is held, or "": it is about what is held,
// was written by it, or names it among its details.
func (h Held) Line(e *audit.Event) string {
	named := []string{e.Actor, e.Owner, e.Target, e.Token}
	for _, text := range e.Detail {
		named = append(named, strings.Fields(text)...)
	}
	for _, id := range named {
		if h[HoldUser][id] {
			return "it is about " + id + ", who is held"
		}
		if h[HoldToken][id] {
			return "it is about " + id + ", which is held"
		}
	}
	// A competition's name may be a word of any other detail.
	for _, name := range append(strings.Fields(e.Detail["competitions"]), e.Competition, e.Detail["competition"], e.Target) {
		if h[HoldCompetition][name] {
			return "it is about the competition " + name + ", which is held"
		}
	}
	return ""
}

// Token reports whether a token is held: itself, its owner, or one of the
// competitions that it is limited to.
func (h Held) Token(t *token.Token) bool {
	if h[HoldToken][string(t.ID)] || h.User(t.Owner) {
		return true
	}
	for _, c := range t.Competitions {
		if h.Competition(c) {
			return true
		}
	}
	return false
}
