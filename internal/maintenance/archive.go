// Package maintenance keeps the service from growing without bound: it moves
// what has ended long ago to the archive, reduces the archive in its turn, and
// measures what there is and when the disk will be full.
//
// What is moved, and when, is decided by pure functions of facts and now, and
// never by a clock that is in doubt. Nothing here changes what a token that is
// good may do: an archived one was over for a month.
//
//	table in memory ─► Over ─► kin, jobs, holds ─► one decision of the store ─► archive
//	archive, after a year ─► signed segment on disk ─► tombstone
package maintenance

import (
	"context"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Archived is a token in the archive. When its time is over there too, its row
// is a tombstone: id, digest and end, and in which segment the rest is.
type Archived struct {
	Version    int64
	Token      token.Token // of a tombstone: only ID and Digest
	Use        token.Use
	EndedAt    time.Time
	Why        token.State
	ArchivedAt time.Time
	Segment    string // of a tombstone
}

// Tombstone is what is left of it after it was written to a segment. The id and
// the digest stay for good, so that neither is ever given out again.
func (a Archived) Tombstone(segment string) Archived {
	return Archived{
		Version: a.Version + 1, Token: token.Token{ID: a.Token.ID, Digest: a.Token.Digest},
		EndedAt: a.EndedAt, Why: a.Why, ArchivedAt: a.ArchivedAt, Segment: segment,
	}
}

// Move takes a token, as it stands in Old, to the archive.
type Move struct {
	Old token.Token
	New Archived
}

// Query selects tokens of the archive; zero members do not select.
type Query struct {
	Owner      principal.ID
	Name       string
	Kind       token.Kind
	EndedSince time.Time
	EndedUntil time.Time
	// Before is the last one of the page before.
	Before Place
	Limit  int
}

// Place is where a token stands in the archive, newest end first.
type Place struct {
	EndedAt time.Time
	ID      token.ID
}

// Store is what maintenance needs of the tokens database. Errors are faults;
// Conflict when something has changed in between.
type Store interface {
	// Kin are the tokens themselves as they stand, those of their families, and
	// those that were made from them. One that is not among them is gone.
	Kin(ctx context.Context, of []token.Token) ([]token.Token, error)
	// LastUses are the uses that any node has stored.
	LastUses(ctx context.Context, ids []token.ID) (map[token.ID]token.Use, error)
	// Archive is one decision: all of the moves, or none.
	Archive(ctx context.Context, moves []Move, e audit.Event) error
	// Archived lists the archive, the newest end first; Due lists what is no
	// tombstone and ended before an instant, the oldest end first, behind a place.
	Archived(ctx context.Context, q Query) ([]Archived, error)
	ArchivedToken(ctx context.Context, id token.ID) (Archived, error)
	Due(ctx context.Context, before time.Time, after Place, limit int) ([]Archived, error)
	// Reduce is one decision: each becomes its tombstone in the segment.
	Reduce(ctx context.Context, all []Archived, segment string, e audit.Event) error
	// Lease gives the named work to this process until an instant, unless
	// another one has it.
	Lease(ctx context.Context, name string, until time.Time) (bool, error)
	// Holds are all legal holds that were ever made.
	Holds(ctx context.Context) ([]Hold, error)
	// PutHold is one decision: it inserts, or replaces the one of the version before.
	PutHold(ctx context.Context, h Hold, e audit.Event) error
}
