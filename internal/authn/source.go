package authn

import (
	"time"

	"gradegate/internal/block"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Change is one committed decision as followers see it: the records after it.
// Records are applied if their version is newer than what is known, so that
// applying twice, or out of order, does no harm.
type Change struct {
	Revision   int64
	Principals []principal.Principal
	Tokens     []token.Token
	Consents   []principal.Consent
	Levels     []policy.Level
	Blocks     []block.Block // for the list of blocks; the table has no use for them
	// Archived are tokens that are no longer among the others: they ended long ago.
	Archived []token.ID
}

// Handle is the secret of one job, as the table needs it: the job handle, or
// what the running program holds.
type Handle struct {
	token.Handle
	Kind   token.Kind // JobKind or Run
	Job    string
	Owner  principal.ID
	Via    token.ID
	Person int64 // the owner's person epoch at submit
	// Submitter handed the job in for its owner, and got the handle: it ends with
	// that one as well; empty: the owner did.
	Submitter       principal.ID
	SubmitterPerson int64
	Until           time.Time // zero: the job has not ended
	Leaked          bool      // reported: it authenticates nobody any more
}

// LastUse is a use of a token that is not yet in the store.
type LastUse struct {
	Token token.ID
	token.Use
}
