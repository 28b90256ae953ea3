package maintenance

import (
	"time"

	"gradegate/internal/token"
)

// KeepEnded is how long a token stays among the others after its end, so that
// its holder is still told why it does not work.
const KeepEnded = 30 * 24 * time.Hour

// Verdict is why a token stays where it is, or that it may go.
type Verdict string

// The verdicts.
const (
	Goes       Verdict = "goes"
	StaysAlive Verdict = "active"  // it has not ended
	StaysEnded Verdict = "recent"  // it ended less than 30 days ago
	StaysKin   Verdict = "family"  // a token of its family has not, or not long enough ago
	StaysChild Verdict = "child"   // nor has one that was made from it
	StaysJob   Verdict = "job"     // a job, or a job's handle, still depends on it
	StaysHeld  Verdict = "on_hold" // a legal hold
)

// Facts are all that it depends on whether a token goes to the archive.
type Facts struct {
	Token token.Token
	Over  token.Over
	Ended bool
	// Kin are the other tokens of its family and those made from it.
	Kin []*Facts
	Job bool // it, or one made from it, is what a job hangs on
	// Held: a legal hold is on it.
	Held bool
}

// Judge decides whether a token goes to the archive at now.
func Judge(f *Facts, now time.Time) Verdict {
	switch {
	case !f.Ended:
		return StaysAlive
	case !long(f, now):
		return StaysEnded
	case f.Held:
		return StaysHeld
	case f.Job:
		return StaysJob
	}
	for _, k := range f.Kin {
		if k.Ended && long(k, now) {
			continue
		}
		if k.Token.Parent == f.Token.ID {
			return StaysChild
		}
		return StaysKin
	}
	return Goes
}

func long(f *Facts, now time.Time) bool { return !now.Before(f.Over.At.Add(KeepEnded)) }
