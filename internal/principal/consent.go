package principal

import (
	"slices"
	"time"

	"gradegate/internal/fault"
)

// Consent is what lets one principal hand in jobs for another: the giver is a
// person, and the jobs are theirs. It ends by itself, when it is withdrawn, and
// with the off-boarding of either side.
type Consent struct {
	ID           string // "cns_…"
	Version      int64
	Giver, Taker ID
	// Epochs are the person epochs of both when it was given. When one has moved
	// on, the consent is over for good.
	GiverEpoch, TakerEpoch int64
	// GiverCredentials is the giver's other epoch: who ends all of their credentials
	// ends what was given with them. Via is the token that gave it; when that one is
	// reported leaked, or has left the table for the archive, so is it.
	GiverCredentials int64
	Via              string
	Competitions     []string // empty: all of the giver's
	GivenAt, Until   time.Time
	EndedAt          time.Time // withdrawn, or replaced; zero: neither
}

const (
	// ConsentLifetime is how long a consent holds unless it says so itself.
	ConsentLifetime = 30 * 24 * time.Hour
	// ConsentMax is the longest that one may hold.
	ConsentMax = 90 * 24 * time.Hour
	// ConsentMin is the shortest.
	ConsentMin = time.Minute
)

// Consenting returns the consent of giver to taker.
func Consenting(id string, giver, taker Principal, span time.Duration, competitions []string, now time.Time) (Consent, error) {
	if span == 0 {
		span = ConsentLifetime
	}
	switch {
	case giver.Kind != Human:
		return Consent{}, fault.New(fault.Denied, "consent_service", "A service gives no consent: what it hands in is its own.").
			WithFix("Ask a person to give theirs: gradegate consent give NAME")
	case giver.ID == taker.ID:
		return Consent{}, fault.New(fault.Invalid, "consent_self", "You need no consent to hand in for yourself.").
			WithFix("Leave --on-behalf-of out.")
	case taker.Status != Active:
		return Consent{}, fault.New(fault.Conflict, "user_inactive", "%s is not active.", taker.Name).
			WithFix("Give your consent to somebody who is: gradegate consent give NAME")
	case span < ConsentMin || span > ConsentMax:
		return Consent{}, fault.New(fault.Invalid, "consent_span", "A consent holds between a minute and 90 days.").
			WithFix("Use for example --for 30d")
	}
	return Consent{
		ID: id, Version: 1, Giver: giver.ID, Taker: taker.ID, GiverEpoch: giver.Epochs.Person, TakerEpoch: taker.Epochs.Person,
		GiverCredentials: giver.Epochs.Credentials,
		Competitions:     slices.Clone(competitions), GivenAt: now, Until: now.Add(span),
	}, nil
}

// Holds reports whether the consent lets its taker act at now, given both sides
// as they are.
func (c Consent) Holds(giver, taker *Principal, now time.Time) bool {
	return giver.ID == c.Giver && taker.ID == c.Taker && c.EndedAt.IsZero() && now.Before(c.Until) &&
		giver.Status == Active && taker.Status == Active &&
		giver.Epochs.Person == c.GiverEpoch && giver.Epochs.Credentials == c.GiverCredentials && taker.Epochs.Person == c.TakerEpoch
}

// Covers reports whether it is for a competition.
func (c Consent) Covers(competition string) bool {
	return len(c.Competitions) == 0 || slices.Contains(c.Competitions, competition)
}

// Withdraw returns the consent as it is when it is over. Twice changes nothing.
func (c Consent) Withdraw(now time.Time) (Consent, bool) {
	if !c.EndedAt.IsZero() {
		return c, false
	}
	c.EndedAt = now
	c.Version++
	return c, true
}

// Tighten is c with everything that image decides more strictly, for recovery.
func (c Consent) Tighten(image Consent) Consent {
	if c.EndedAt.IsZero() {
		c.EndedAt = image.EndedAt
	}
	c.Version = max(c.Version, image.Version) + 1
	return c
}
