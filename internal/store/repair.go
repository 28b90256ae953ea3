package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/journal"
	"gradegate/internal/keys"
	"gradegate/internal/token"
)

func newEventID(now time.Time) string { return "evt_" + authority.SortableID(now) }

// compare is for a database that proves itself: is it where the ledger is?
func (r *recovery) compare() error {
	b := r.book
	if err := r.judgeLedger(); err != nil {
		return err
	}
	newest, any := b.newest()
	switch i := b.find(&r.head); {
	case !any:
		return r.withoutLedger()
	case i == len(b.marks)-1: // where the ledger is
		return r.resume(i)
	case i >= 0 && i == len(b.marks)-2 && newest.seq > b.acked && r.inDoubt(newest):
		// Nobody was told of the newest batch: what it took stays taken, the
		// rest is void.
		r.void = append(r.void, newest.seq)
		r.report.Outcome = "reapplied"
		r.report.note("The last batch (%d) was in the ledger and not in the database, as after a crash: revocations in it were applied, the rest was never acknowledged and is void.", newest.seq)
		return r.resume(i)
	case i >= 0 && b.contiguous(i):
		return r.catchUp(i, newest)
	case r.head.Seq > newest.seq || isPostgres(r.cfg.URL):
		return r.ahead(newest)
	case b.whole && b.contiguous(0):
		r.wrong = fmt.Errorf("at %s the database holds something else than the ledger", seqText(r.head.Seq))
		return r.rebuild()
	}
	return r.lost("The database and the ledger do not belong together, and the ledger does not reach back far enough to rebuild the database.")
}

// inDoubt: on PostgreSQL other batches may have followed, but never before the
// head; the batches table has the last word.
func (r *recovery) inDoubt(m mark) bool {
	there, err := hasBatch(r.ctx, r.db.read, m.batch)
	return err == nil && !there
}

// judgeLedger sets a damaged ledger aside; the database proves itself.
func (r *recovery) judgeLedger() error {
	b := r.book
	if b.damage == nil && b.forged == nil {
		return nil
	}
	// A database that is older than what stands behind the damage may lack
	// revocations that nobody can read any more: it is not used on its word.
	if seen := highestSeq(r.ledger.dir); seen > r.head.Seq {
		return fault.Wrap(fault.Unavailable, "store_doubt",
			fmt.Sprintf("The ledger is damaged, and it has decisions up to %s while the database is at %d: revocations may be missing from the database.", seqText(seen), r.head.Seq),
			errors.Join(b.damage, b.forged)).
			WithFix("Put the newest copy of the tokens database or of the ledger back. To go on without what is missing, move %s away and revoke again what was revoked since.", r.ledger.dir)
	}
	r.report.Outcome = "rebased"
	r.report.note("The ledger is damaged (%v); the database proves itself, is not older than it, and is used.", errors.Join(b.damage, b.forged))
	_ = r.ledger.close()
	r.ledger.file = nil
	aside := r.ledger.dir + ".bad-" + time.Now().UTC().Format("20060102T150405.000000")
	err := os.Rename(r.ledger.dir, aside)
	if err == nil {
		r.report.note("It was moved to %s, and a new one begins with the whole state.", aside)
		err = r.ledger.open(nil)
	}
	r.ledger.cause = nil
	if err != nil {
		r.ledger.fail(err)
	}
	r.stale = true
	return nil
}

// resume goes on from mark i and applies what was taken away behind it.
func (r *recovery) resume(i int) (err error) {
	rows, events, err := r.book.after(i)
	if err != nil {
		return unavailable(err)
	}
	if len(rows) > 0 {
		r.pending, r.events = append(r.pending, rows...), append(r.events, events...)
		if r.report.Outcome == "clean" {
			r.report.Outcome = "reapplied"
			r.report.note("%d revocations that were made while the database was away were applied to it.", len(rows))
		}
	}
	return nil
}

// withoutLedger: the ledger is empty or lost; the database proves itself.
func (r *recovery) withoutLedger() error {
	r.stale = true
	if r.head.Seq == 0 {
		return nil // nothing was ever decided
	}
	r.report.Outcome = "rebased"
	r.report.note("The ledger in %s has nothing of this database; a new one begins with the whole state (batch %d). Decisions that only the old ledger had are lost: if the database was restored from a copy, check recent revocations.", r.ledger.dir, r.head.Seq)
	return nil
}

// catchUp replays what the database lacks: an older file was put in its place,
// or it lost what it had acknowledged.
func (r *recovery) catchUp(i int, newest mark) error {
	s, err := readState(r.ctx, r.db.read, r.cfg.Keys)
	if err == nil {
		err = s.replay(r.ledger.dir, r.cfg.Keys, r.book, r.head.Seq, newest.pending)
	}
	if err != nil {
		return unavailable(err)
	}
	r.report.Outcome = "replayed"
	r.report.note("The database was at batch %d and the ledger at %d: the difference was replayed. An older copy was put in its place, or its disk lost what it had confirmed.", r.head.Seq, newest.seq)
	return r.settle(s, newest)
}

// rebuild makes the database again from the ledger, including the newest
// batch, since somebody may have been told of it.
func (r *recovery) rebuild() error {
	b := r.book
	newest, any := b.newest()
	switch {
	case b.forged != nil || b.damage != nil:
		return fault.Wrap(fault.Unavailable, "store_lost", "The tokens database cannot be used, and the ledger is damaged.",
			errors.Join(r.wrong, b.damage, b.forged)).
			WithFix("Put a copy of the database back into its place.")
	case !any || !b.whole || !b.contiguous(0):
		return r.lost("The tokens database is missing or damaged, and the ledger does not reach back far enough to rebuild it.")
	}
	s := newState()
	if err := s.replay(r.ledger.dir, r.cfg.Keys, b, -1, newest.pending); err != nil {
		return unavailable(err)
	}
	aside := ""
	if r.wrong != nil {
		if !isPostgres(r.cfg.URL) {
			var err error
			if aside, err = r.moveAside(); err != nil {
				return err
			}
			r.report.note("The bad file was kept as %s.", aside)
		}
		r.report.note("The database could not be trusted: %v.", r.wrong)
	} else {
		r.report.note("The database was gone.")
	}
	r.report.Outcome = "rebuilt"
	r.report.note("It was rebuilt from the ledger up to batch %d.", newest.seq)
	if err := r.makeAgain(); err != nil {
		return err
	}
	if err := r.settle(s, newest); err != nil {
		return err
	}
	salvage(r.ctx, aside, r.db)
	return unavailableOrNil(r.noteRebuilt())
}

// noteRebuilt leaves the instant for who asks about uses. Neither database nor
// ledger says what time it is, so that the clock's mark must not be behind.
func (r *recovery) noteRebuilt() error {
	r.cfg.Clock.Resume(clock.Micro(r.head.Mark))
	_, err := r.db.write.ExecContext(r.ctx, putMeta, metaRebuilt, r.cfg.Clock.Now().UnixMicro())
	return err
}

// makeAgain opens an empty file; an empty one that is there is replaced, with
// whatever SQLite had put beside it.
func (r *recovery) makeAgain() error {
	if r.db == nil && !isPostgres(r.cfg.URL) {
		path := sqlitePath(r.cfg.URL)
		for _, part := range []string{"-wal", "-shm"} {
			if err := os.Remove(path + part); err != nil && !errors.Is(err, os.ErrNotExist) {
				return unavailable(err)
			}
		}
	}
	return r.make()
}

// settle writes a replayed state, after proving that it is the one whose digest
// the newest batch names.
func (r *recovery) settle(s *state, newest mark) error {
	if s.digest(r.cfg.Keys) != newest.after {
		return r.lost("The ledger's records do not add up to the state that its last record names.")
	}
	r.wrong, r.absent = nil, false
	base := r.head.Base // where we started from the database, its base stands
	if r.book.whole {
		base = int64(r.book.start)
	}
	r.head = head{
		Seq: newest.seq, Revision: newest.revision, Batch: newest.batch, Digest: newest.after, Chain: newest.chain,
		Mark: max(r.head.Mark, r.book.mark), Base: base, At: int64(newest.at),
	}
	if err := s.write(r.ctx, r.db, r.cfg.Keys, &r.head, ""); err != nil {
		return err
	}
	r.report.Tokens = len(s.rows[tokensTable.name])
	r.announce(s)
	return r.resume(len(r.book.marks) - 1)
}

// ahead: the database is further than the ledger, or on a branch of its own.
// On PostgreSQL that is what other nodes did; on SQLite the ledger lost its end.
func (r *recovery) ahead(newest mark) error {
	if !isPostgres(r.cfg.URL) {
		r.stale = true
		r.report.Outcome = "rebased"
		r.report.note("The database is at batch %d and the ledger only at %d; the database proves itself, and the ledger begins anew with the whole state.", r.head.Seq, newest.seq)
		return r.resume(len(r.book.marks) - 1)
	}
	// Of our own last batches, what is not there never happened; what they took
	// away is taken away.
	i := len(r.book.marks) - 1
	lost := 0
	for ; i >= 0 && r.book.marks[i].seq > 0 && r.inDoubt(r.book.marks[i]) && r.book.marks[i].seq+batchesKept > r.head.Seq; i-- {
		if lost++; r.book.marks[i].seq <= r.book.acked {
			r.report.note("Batch %d was acknowledged by this node and is not in the database: it was restored from an older copy.", r.book.marks[i].seq)
		}
		r.void = append(r.void, r.book.marks[i].seq)
	}
	if lost > 0 {
		r.report.Outcome = "reapplied"
		r.report.note("%d batches of this node's ledger are not in the database: revocations in them were applied, the rest is void.", lost)
	}
	return r.resumeAll(i, lost)
}

// resumeAll is resume for more batches than the book keeps as tails.
func (r *recovery) resumeAll(i, lost int) error {
	if lost <= 1 {
		return r.resume(i)
	}
	missing := map[int64]bool{}
	for _, seq := range r.void {
		missing[seq] = true
	}
	rows, events, err := tightenings(r.ledger.dir, r.cfg.Keys, r.book.start, missing)
	if err != nil {
		return unavailable(err)
	}
	r.pending, r.events = append(r.pending, rows...), append(r.events, events...)
	return nil
}

// unprove is for a lost root key: nothing can be proven, so that every token
// that was not revoked becomes unproven, and everything is sealed anew.
func (r *recovery) unprove() error {
	s, from, err := r.unprovenState()
	if err != nil {
		return err
	}
	n := 0
	for id, kr := range s.rows[tokensTable.name] {
		k := kr.(*tokenRow).token()
		if k.Standing != token.Revoked {
			n++
			s.rows[tokensTable.name][id] = tokenToRow(k.Unprove())
		}
	}
	for id, cr := range s.rows[consentsTable.name] {
		c, _ := cr.(*consentRow).consent().Withdraw(r.cfg.Clock.Now())
		s.rows[consentsTable.name][id] = consentToRow(c)
	}
	s.rows[repliesTable.name] = map[string]row{} // sealed under the lost key
	r.head.Seq = max(r.head.Seq, r.last) + 1
	r.head.Revision++
	r.head.Batch, r.head.Digest, r.head.Base = newBatchID(), s.digest(r.cfg.Keys), 0
	r.head.At = 0
	r.head.Mark = max(r.head.Mark, clock.Micros(r.cfg.Clock.Now()))
	r.last, r.stale, r.wrong = r.head.Seq, true, nil
	r.report.Outcome = "unproven"
	r.report.Tokens = len(s.rows[tokensTable.name])
	r.report.note("The root key was lost, so that nothing stored under it can be proven (read from %s). %d tokens are unproven and refuse requests until their owners enrol again; revocations stay.", from, n)
	r.announce(s)
	return s.write(r.ctx, r.db, r.cfg.Keys, &r.head, "")
}

// announce tells the follower what the database holds now.
func (r *recovery) announce(s *state) {
	if r.cfg.Follow == nil {
		return
	}
	for _, t := range followed {
		r.cfg.Follow(changeOf(s.sorted(t), r.head.Revision))
	}
}

// unprovenState takes what is there, from both sources, and of the ledger only
// what takes rights away if there is a database.
func (r *recovery) unprovenState() (s *state, from string, err error) {
	b, err := readBook(r.ledger.dir, withoutKey(), 0)
	if err != nil {
		b = &book{empty: true}
	}
	r.last = max(r.last, b.last)
	var other errOtherKey
	if r.db != nil && !r.absent && errors.As(r.wrong, &other) {
		s, err = readState(r.ctx, r.db.read, withoutKey())
		from = "the database"
	} else {
		s, from = newState(), "the ledger"
		err = s.replay(r.ledger.dir, withoutKey(), b, -1, 0)
		if m, ok := b.newest(); ok {
			r.head.Revision = max(r.head.Revision, m.revision)
		}
		if err == nil && len(s.rows[principalsTable.name]) == 0 {
			return nil, "", r.lost("The root key is lost, and so are the database and the ledger.")
		}
		if err == nil {
			err = r.makeAgain()
		}
	}
	if err != nil {
		return nil, "", unavailable(err)
	}
	rows, _, err := tightenings(r.ledger.dir, withoutKey(), 0, nil)
	if err != nil {
		r.report.note("The ledger could not be read to its end: %v.", err)
	}
	for _, image := range rows {
		// A revocation is final. Anything else might have been lifted since,
		// unless the ledger is further than the row.
		k, isToken := image.(*tokenRow)
		now := s.rows[image.spec().name][key(image)]
		if isToken && k.Standing == string(token.Revoked) || now != nil && versionOf(image) > versionOf(now) {
			s.join(image)
		}
	}
	return s, from, nil
}

// tightenings are the images in the ledger that take rights away: of the
// batches in only, or else of all, and then revocations and raised epochs
// inside mixed decisions as well.
func tightenings(dir string, k *keys.Ring, from uint64, only map[int64]bool) (rows []row, events []audit.Event, err error) {
	segments, err := journal.Segments(dir)
	if err != nil || len(segments) == 0 {
		return nil, nil, err
	}
	_, err = journal.Read(dir, max(from, segments[0].First), func(j journal.Record) error {
		r, err := decodeRecord(j.Data, k)
		if err != nil {
			return err
		}
		if r.Kind == recordBatch && only != nil && !only[r.Seq] {
			return nil
		}
		for _, o := range r.Ops {
			for _, ri := range o.Rows {
				made, err := ri.decode()
				if err != nil {
					return err
				}
				if o.Class == tighten || only == nil && takes(made) {
					rows = append(rows, made)
				}
			}
			for _, line := range o.Events {
				if e, err := audit.Decode(line); err == nil && o.Class == tighten {
					events = append(events, e)
				}
			}
		}
		return nil
	})
	return rows, events, err
}

// takes reports whether a row may hold something final, whatever the decision
// was that wrote it: a revoked token, or the epochs of a principal.
func takes(r row) bool {
	t, isToken := r.(*tokenRow)
	_, isPrincipal := r.(*principalRow)
	return isPrincipal || isToken && t.Standing == string(token.Revoked)
}

// salvage copies what has no ledger from a database that was set aside: the
// last uses of tokens. What cannot be read is left: the trail has them.
func salvage(ctx context.Context, aside string, to *database) {
	if aside == "" {
		return
	}
	old, err := sql.Open("sqlite", sqliteDSN(aside, "ro", "", "query_only(1)"))
	if err != nil {
		return
	}
	defer old.Close()
	_ = to.inTx(ctx, func(tx *sql.Tx) error {
		err := eachUse(ctx, old, "", func(u authn.LastUse) error {
			addr := ""
			if u.Addr.IsValid() {
				addr = u.Addr.String()
			}
			_, err := tx.ExecContext(ctx, putUse, string(u.Token), clock.Micros(u.At), addr, u.Agent, u.Count, 0) // it has no other nodes, which ask when
			return err
		})
		if err != nil {
			return err
		}
		// Only now: the position speaks for all the uses.
		n, err := readMeta(ctx, old, metaUses)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, putMeta, metaUses, n)
		return err
	})
}
