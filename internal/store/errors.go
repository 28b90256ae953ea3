package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"gradegate/internal/authority"
	"gradegate/internal/fault"
)

// The faults of this package that have no cause of their own.
var (
	errStore = fault.New(fault.Unavailable, "store_unavailable", "The database does not answer; nothing was changed that you were not told of.").
			WithFix("Try again in a few seconds; if it lasts, tell the operator (gradegate status).").WithRetry(2 * time.Second)
	errLedger = fault.New(fault.Unavailable, "ledger_unavailable", "The ledger cannot be written, so nothing new is granted; revocations still work.").
			WithFix("Operator: free space on the disk of ledger.dir or repair it (gradegate status).").WithRetry(5 * time.Second)
	errNotDurable = fault.New(fault.Unavailable, "revoked_not_durable", "It takes effect on this server at once, but neither the database nor the ledger could write it down: it would be forgotten by a restart.").
			WithFix("Repeat it in a minute, and tell the operator (gradegate status).").WithRetry(5 * time.Second)
	errClosed = fault.New(fault.Unavailable, "store_closed", "The server is stopping.").
			WithFix("Try again in a few seconds.").WithRetry(2 * time.Second)

	errNoToken     = fault.New(fault.NotFound, "token_not_found", "There is no such token.").WithFix("gradegate token list")
	errNotArchived = fault.New(fault.NotFound, "token_not_archived", "There is no such token in the archive.").
			WithFix("gradegate archive list; one that has not ended, or not long ago, is in: gradegate user tokens NAME")
	errNoPrincipal = fault.New(fault.NotFound, "user_not_found", "There is no such user.").WithFix("gradegate user list")
	errNoReply     = fault.New(fault.NotFound, "reply_not_found", "Nothing is remembered under this key.")
	errNameTaken   = fault.New(fault.Conflict, "name_taken", "This name is taken.").WithFix("Choose another name.")
	errTokenLimit  = fault.New(fault.Conflict, "token_limit", "You have as many personal tokens as you may have.").
			WithFix("gradegate token rotate NAME    or    gradegate token create --name NEW --replace NAME")
	errTooLarge = fault.New(fault.TooLarge, "decision_too_large", "This changes more at once than one decision can hold.").
			WithFix("Split it into smaller parts.")
	errHeld = fault.New(fault.Conflict, "hold_moved", "A legal hold was made meanwhile on something that was to go; nothing of it went.").
		WithFix("gradegate sweep")
	errHoldsGone = fault.New(fault.Unavailable, "holds_gone", "Legal holds are gone from the database, which nothing of ours deletes: nothing is archived or dropped.").
			WithFix("Operator: restart the server, which proves the database and makes it again from the ledger; then gradegate hold list --all")
	errSecretEnded = fault.New(fault.Conflict, "secret_ended", "The token of this secret ended long ago and is in the archive: it does not come back.").
			WithFix("Leave it out: its owner makes a new token (gradegate token create), whose secret is new as well.")
	errIDTaken = fault.New(fault.Conflict, "id_taken", "This id exists already.").WithFix("Repeat the request.")
)

// unavailable hides a driver's error behind the one answer for infrastructure
// trouble; the log sees the cause.
func unavailable(cause error) error {
	if _, ok := errors.AsType[*fault.Error](cause); ok {
		return cause
	}
	return errStore.Caused(cause)
}

// trouble maps an error of the driver to a fault. It keeps faults and nil.
func (d *database) trouble(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return errStore.Caused(err)
	case errors.Is(err, sql.ErrNoRows):
		return fault.Wrap(fault.NotFound, "not_found", "There is no such thing.", err)
	}
	return unavailable(err)
}

// conflict maps a violated constraint to the answer its caller can act on; any
// other error is trouble.
func (d *database) conflict(err error) error {
	what, ok := d.unique(err)
	switch {
	case !ok && d.refused(err):
		return fault.Wrap(fault.Invalid, "store_refused", "The database refuses this record.", err).
			WithFix("Report this with the request id.")
	case !ok:
		return d.trouble(err)
	case strings.Contains(what, "principals") && strings.Contains(what, "name"):
		return errNameTaken.Caused(err)
	case strings.Contains(what, "generation"):
		// Somebody else made the successor: look again, and see it.
		return authority.ErrMoved.Caused(err)
	case strings.Contains(what, "blocks"):
		return authority.ErrMoved.Caused(err) // somebody else took the place
	case strings.Contains(what, "replies"):
		return authority.ErrReplyExists.Caused(err)
	}
	return errIDTaken.Caused(err)
}

// isTrouble reports whether the error is the database's and not the decision's.
func isTrouble(err error) bool {
	kind := fault.KindOf(err)
	return err != nil && (kind == fault.Unavailable || kind == fault.Internal)
}
