package token

import (
	"slices"
	"time"

	"gradegate/internal/principal"
)

// Limit is a span that policy sets.
type Limit struct {
	Span time.Duration // zero: none
	// Since is when it came into force; zero: it always was. What it shortens
	// ends at this instant at the earliest, so that lowering a policy blocks
	// after a date instead of at once.
	Since time.Time
}

// Flag is a demand without a span, and since when it is made.
type Flag struct {
	On    bool
	Since time.Time
}

// end is when a clock that started at from ends under this limit.
func (l Limit) end(from time.Time) time.Time {
	if end := from.Add(l.Span); end.After(l.Since) {
		return end
	}
	return l.Since
}

// Terms are what one level of policy demands of tokens: the platform's or a
// group's. Of several the strictest wins, and the answer names its level. A
// zero member demands nothing. Values are immutable.
type Terms struct {
	// Level is "platform" or "group:NAME".
	Level string
	// Since is when these terms come into force as a whole, and Until when
	// others replace them; zero: always, and never.
	Since, Until time.Time

	// MaxLifetime is the most that a family lives, from its birth.
	MaxLifetime Limit
	// Idle and ServiceIdle end a token that long after its last use, Unused one
	// that was never used that long after its issue.
	Idle, ServiceIdle, Unused Limit
	// RotateAfter is when rotation is due; Enforced, it ends the token.
	RotateAfter, Enforced Limit
	// SessionsOnly allows people no tokens but sessions.
	SessionsOnly Flag
}

// PlatformTerms are the platform's own terms if nobody sets others.
func PlatformTerms() Terms {
	return Terms{
		Level: Platform, MaxLifetime: Limit{Span: DefaultMaxLifetime}, Idle: Limit{Span: DefaultIdle},
		ServiceIdle: Limit{Span: ServiceIdle}, Unused: Limit{Span: DefaultUnused}, RotateAfter: Limit{Span: DefaultRotateAfter},
	}
}

// The levels of policy. A group's is GroupLevel and its name.
const (
	Platform   = "platform"
	GroupLevel = "group:"
	OwnLevel   = "token" // what was asked for when the token was made
)

// Holder is what a token's state depends on beside the token: who owns it,
// under which terms, and when uses could not be recorded.
type Holder struct {
	Status  principal.Status
	Epochs  principal.Epochs
	Terms   []Terms // the platform's first
	Outages Outages
	// QuarantineAt is from when on the tokens of a service are quarantined because
	// nobody answers for it; zero: somebody does, or it is a person.
	QuarantineAt time.Time
}

// Quarantines reports whether nobody has answered for a service for too long.
func (h *Holder) Quarantines(now time.Time) bool {
	return !h.QuarantineAt.IsZero() && !now.Before(h.QuarantineAt)
}

// History is what is known of a token's uses, as far as its clocks need it.
type History struct {
	LastUse time.Time // zero: never used
	// Succeeded is when the token was rotated, if its successor has been used;
	// zero otherwise.
	Succeeded time.Time
	// After is the strictest standing of the generations behind it. While a
	// predecessor is in grace, it stands for the same token as they do: what
	// stops them stops it.
	After Standing
}

// Span is a stretch of time.
type Span struct{ From, Until time.Time }

// Outages are the spans in which uses could not be recorded, in order and
// apart. The idle clocks stand still in them: nobody could use anything.
type Outages []Span

// Extend is the end of a clock of length d that started at from and stood still
// in the outages.
func (o Outages) Extend(from time.Time, d time.Duration) time.Time {
	end := from.Add(d)
	first, _ := slices.BinarySearchFunc(o, from, func(s Span, t time.Time) int { return s.Until.Compare(t) })
	for _, s := range o[first:] {
		if !s.From.Before(end) {
			break
		}
		begin := s.From
		if begin.Before(from) {
			begin = from
		}
		if s.Until.After(begin) {
			end = end.Add(s.Until.Sub(begin))
		}
	}
	return end
}

// Add returns the outages with one more span, which begins no earlier than the
// last one. Spans that touch become one; those that ended before the given
// instant are dropped, since no clock is as long.
func (o Outages) Add(s Span, dropBefore time.Time) Outages {
	out := make(Outages, 0, len(o)+1)
	for _, old := range append(slices.Clone(o), s) {
		n := len(out)
		switch {
		case !old.Until.After(old.From) || old.Until.Before(dropBefore):
		case n > 0 && !old.From.After(out[n-1].Until):
			if old.Until.After(out[n-1].Until) {
				out[n-1].Until = old.Until
			}
		default:
			out = append(out, old)
		}
	}
	return out
}
