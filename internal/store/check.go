package store

import (
	"context"
	"errors"
	"fmt"

	"gradegate/internal/authn"
)

// Check proves the open database without changing anything: the engine's own
// quick check, the MAC of every row, the digest over them, and that the ledger
// knows the batch at which the database is. The outcome is "clean" or "damaged".
func (t *Tokens) Check(ctx context.Context) (Report, error) {
	db, err := t.healthy()
	if err != nil {
		return Report{}, err
	}
	r := Report{Outcome: "clean"}
	bad := func(format string, args ...any) {
		r.Outcome = "damaged"
		r.note(format, args...)
	}
	if db.file != nil {
		if err := db.file.intact(); err != nil {
			bad("%v.", err)
		}
	}
	if err := db.integrity(ctx, db.read); err != nil {
		bad("The engine's quick check says: %v.", err)
	}
	var h head
	err = t.load(ctx, db, func(c authn.Change) error {
		r.Tokens += len(c.Tokens)
		return nil
	})
	if err != nil {
		bad("%v.", errors.Unwrap(err))
	}
	if h, _, err = readHead(ctx, db.read, ""); err != nil {
		return r, db.trouble(err)
	}
	r.Seq = h.Seq
	t.checkLedger(&h, bad, &r)
	return r, nil
}

// checkLedger compares a head with the ledger, which may meanwhile be further.
func (t *Tokens) checkLedger(h *head, bad func(string, ...any), r *Report) {
	b, err := readBook(t.cfg.Ledger, t.cfg.Keys, 0)
	switch _, trouble := t.State(); {
	case err != nil:
		bad("The ledger cannot be read: %v.", err)
	case trouble != nil:
		bad("The ledger cannot be written: %v.", trouble)
	case b.damage != nil || b.forged != nil:
		bad("The ledger is damaged: %v.", errors.Join(b.damage, b.forged))
	case h.Seq > 0 && b.find(h) < 0 && !isPostgres(t.cfg.URL):
		bad("The ledger has no batch %d with the content of the database.", h.Seq)
	default:
		r.note("%d tokens at batch %d; the ledger holds %d batches since its base.", r.Tokens, h.Seq, len(b.marks))
	}
}

// CheckTokens is Check for a database that no process has open. It repairs
// nothing; opening would.
func CheckTokens(ctx context.Context, cfg TokensConfig) (Report, error) {
	cfg = cfg.withDefaults()
	r := &recovery{ctx: ctx, cfg: cfg, ledger: &ledger{dir: cfg.Ledger, keys: cfg.Keys}}
	err := r.openBoth()
	if r.db != nil {
		defer r.db.Close()
	}
	if err != nil {
		return Report{}, err
	}
	out := Report{Outcome: "clean", Tokens: r.report.Tokens, Seq: r.head.Seq}
	bad := func(format string, args ...any) {
		out.Outcome = "damaged"
		out.note(format, args...)
	}
	newest, any := r.book.newest()
	switch {
	case r.absent && r.book.empty:
		out.note("There is no tokens database yet.")
	case r.absent:
		bad("The database is gone; the ledger reaches batch %d.", newest.seq)
	case r.wrong != nil:
		bad("The database cannot be trusted: %v.", r.wrong)
	case r.book.damage != nil || r.book.forged != nil:
		bad("The ledger is damaged: %v.", errors.Join(r.book.damage, r.book.forged))
	case r.head.Seq > 0 && !any:
		bad("The ledger in %s has nothing of this database.", cfg.Ledger)
	case r.head.Seq > 0 && r.book.find(&r.head) != len(r.book.marks)-1 && !isPostgres(cfg.URL):
		bad("The database is at batch %d and the ledger at %d.", r.head.Seq, newest.seq)
	default:
		out.note("%s", fmt.Sprintf("%d tokens at batch %d, as the ledger says.", out.Tokens, out.Seq))
	}
	if out.Outcome == "damaged" {
		out.note("Starting gradegate repairs this from the ledger; nothing acknowledged is lost by it.")
	}
	return out, nil
}
