package authority

import (
	"context"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/block"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Store is what the authority needs of the tokens database. All methods may be
// called concurrently. Reads see every decision that was acknowledged before
// they began. Errors are faults: NotFound for what is absent, Conflict when a
// version has moved on or a name is taken, Unavailable for infrastructure
// trouble.
type Store interface {
	Token(ctx context.Context, id token.ID) (token.Token, error)
	// TokensOf are those of an owner's tokens that a question is about, by id.
	TokensOf(ctx context.Context, owner principal.ID, about Among) ([]token.Token, error)
	// TokensPage are all of an owner's tokens newest first, after the given one of
	// them (empty: from the start), whose absence is NotFound.
	TokensPage(ctx context.Context, owner principal.ID, after token.ID, limit int) ([]token.Token, error)
	Principal(ctx context.Context, id principal.ID) (principal.Principal, error)
	PrincipalByName(ctx context.Context, name string) (principal.Principal, error)
	// Principals lists by id, after the given one (empty: from the start).
	Principals(ctx context.Context, after principal.ID, limit int) ([]principal.Principal, error)
	// Levels are all levels of policy that were ever set, by name.
	Levels(ctx context.Context) ([]policy.Level, error)
	// Blocks are all blocks by address, those that are over included.
	Blocks(ctx context.Context) ([]block.Block, error)
	// Consents are those that somebody gave or was given, by id.
	Consents(ctx context.Context, who principal.ID) ([]principal.Consent, error)
	// Reply finds what was answered to an Idempotency-Key, unless it has lapsed.
	// A missing one is NotFound.
	Reply(ctx context.Context, key ReplyKey, now time.Time) (Reply, error)
	// Commit makes one decision durable, whole or not at all, together with its
	// audit events. It returns after the decision is durable in the database
	// and the ledger AND every follower in this process has applied it. The
	// revision rises with every decision.
	Commit(ctx context.Context, d Decision, events ...audit.Event) (revision int64, err error)
}

// Among narrows an owner's tokens to what a question is about: somebody may have
// a hundred thousand. The zero value is all of them.
type Among struct {
	Kind   token.Kind   // zero: any
	Name   string       // empty: any
	Family token.Family // empty: any
	Open   bool         // only what is neither revoked nor followed by a successor
}

// Has reports whether a token of the owner is one of them.
func (q Among) Has(t *token.Token) bool {
	return (q.Kind == 0 || t.Kind == q.Kind) && (q.Name == "" || t.Name == q.Name) && (q.Family == "" || t.Family == q.Family) &&
		(!q.Open || t.Standing != token.Revoked && t.Successor == "")
}

// Decision is one indivisible change of the tokens database.
type Decision struct {
	Principals []PrincipalChange
	Tokens     []TokenChange
	Levels     []LevelChange
	Blocks     []BlockChange
	Consents   []ConsentChange
	// MaxPersonal, if above zero, refuses the decision with Conflict
	// "token_limit" when the owner of an inserted personal token would have
	// more than that many personal tokens that count (R3.1), says Counts.
	MaxPersonal int
	Counts      func(*token.Token) bool
	// Named, if set, refuses the decision with ErrMoved when an inserted token has
	// the name of another one of its owner and kind that is in use, says Named.
	Named func(*token.Token) bool
	// Reply is remembered with the decision. A reply with the same key makes
	// the whole decision a Conflict with code "reply_exists".
	Reply *Reply
}

// PrincipalChange inserts New if Old is nil; otherwise it replaces Old, if its
// version still stands.
type PrincipalChange struct {
	Old *principal.Principal
	New principal.Principal
}

// TokenChange inserts New if Old is nil; otherwise it replaces Old, if its
// version still stands.
type TokenChange struct {
	Old *token.Token
	New token.Token
	// Forms are all that the secret of an imported token may have been kept as
	// before: with one of them in the archive it has ended for good.
	Forms []token.Digest
}

// LevelChange inserts New if Old is nil; otherwise it replaces Old, if its
// version still stands.
type LevelChange struct {
	Old *policy.Level
	New policy.Level
}

// BlockChange inserts New if Old is nil; otherwise it replaces Old, if its
// version still stands.
type BlockChange struct {
	Old *block.Block
	New block.Block
}

// ConsentChange inserts New if Old is nil; otherwise it replaces Old, if its
// version still stands.
type ConsentChange struct {
	Old *principal.Consent
	New principal.Consent
}

// ReplyKey is SHA-256 over the subject and its Idempotency-Key.
type ReplyKey [32]byte

// Reply is what was answered once and may be answered again to the same
// request. Its secret is sealed under a key derived from what the request
// presented, so that the database alone cannot open it.
type Reply struct {
	Key     ReplyKey
	Request [32]byte // digest of the request; another one under the same key is refused
	Ref     string   // id of what was made
	Sealed  []byte
	Until   time.Time
}
