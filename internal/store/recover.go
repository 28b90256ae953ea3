package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
)

// recovered is a database that was proven, or made provable.
type recovered struct {
	db     *database
	head   head
	last   int64 // the highest seq the ledger knows
	stale  bool  // the ledger needs a base
	report Report

	pending []row // tightenings to apply as the first batch
	events  []audit.Event
	void    []int64
}

// recovery compares the database with the ledger.
type recovery struct {
	recovered
	ctx    context.Context
	cfg    TokensConfig
	ledger *ledger
	book   *book
	// wrong is why the database cannot be used as it is; nil: it proves itself.
	wrong error
	// absent: there is no database, or one in which nothing was ever written.
	absent bool
	// keyID is of the key under which the head was written.
	keyID string
}

// recoverTokens opens the tokens database and brings it and the ledger to
// agree, as DESIGN §4 says. It takes nothing from either that could give a
// right back which the other took away.
func recoverTokens(ctx context.Context, cfg TokensConfig, l *ledger) (*recovered, error) {
	r := &recovery{ctx: ctx, cfg: cfg, ledger: l}
	r.report.Outcome = "clean"
	err := r.run()
	if err == nil {
		err = r.leaveMarker()
	}
	if err != nil {
		if r.db != nil {
			_ = r.db.Close()
		}
		return nil, err
	}
	r.report.Seq = r.head.Seq
	if r.report.Outcome != "clean" && r.report.Outcome != "new" {
		r.events = append(r.events, r.event())
	}
	return &r.recovered, nil
}

func (r *recovery) run() error {
	if err := r.openBoth(); err != nil {
		return err
	}
	if err := r.checkKeys(); err != nil {
		return err
	}
	known := r.keyID != "" || r.book.otherKey != ""
	switch {
	case r.cfg.KeyLost && known && r.keyID != r.cfg.Keys.ID():
		return r.unprove()
	case r.absent && r.book.empty && r.book.damage == nil:
		return r.fresh()
	case r.absent || r.wrong != nil:
		return r.rebuild()
	}
	return r.compare()
}

// openBoth looks at the database and reads the ledger.
func (r *recovery) openBoth() error {
	if err := r.inspect(); err != nil {
		return err
	}
	r.readBook()
	r.last = r.book.last
	if r.ledger.file == nil && r.ledger.cause != nil && !r.usable() {
		return fault.Wrap(fault.Unavailable, "store_lost", "The tokens database cannot be used and the ledger cannot be read.",
			errors.Join(r.wrong, r.ledger.cause)).
			WithFix("Make the disk of ledger.dir (%s) readable and start again, or put a copy of the data back in its place", r.ledger.dir)
	}
	return nil
}

// readBook reads as little of the ledger as will do: from the record of the
// head's own batch, which is the end unless something happened; else from the
// base; else all of it. On PostgreSQL the head's places may be another node's.
func (r *recovery) readBook() {
	if r.usable() && r.head.At > 0 {
		b, err := readBook(r.ledger.dir, r.cfg.Keys, uint64(r.head.At))
		if err == nil && b.find(&r.head) >= 0 && b.forged == nil && b.damage == nil && b.otherKey == "" {
			r.book = b
			return
		}
	}
	if r.usable() && r.head.Base > 0 && r.db.file != nil {
		if b, err := readBook(r.ledger.dir, r.cfg.Keys, uint64(r.head.Base)); err == nil && b.whole {
			r.book = b
			return
		}
	}
	b, err := readBook(r.ledger.dir, r.cfg.Keys, 0)
	if err != nil {
		r.ledger.fail(err)
		b = &book{empty: true}
	}
	r.book = b
}

func (r *recovery) usable() bool { return r.wrong == nil && !r.absent }

// inspect opens the database, if it is there, and proves every row of it.
func (r *recovery) inspect() error {
	if !isPostgres(r.cfg.URL) {
		info, err := os.Stat(sqlitePath(r.cfg.URL))
		if errors.Is(err, os.ErrNotExist) {
			r.absent = true
			return nil
		}
		if err != nil {
			return unavailable(err)
		}
		if info.Size() == 0 {
			r.absent = true // a first start that was cut short, or a lost file
		}
	}
	db, err := openDatabase(r.ctx, r.cfg.URL, tokensKind, false)
	if err != nil {
		if !corrupt(err) {
			return err
		}
		r.wrong = err
		return nil
	}
	r.db = db
	return r.prove()
}

// prove reads the head, and then every row under it, while the engine checks the
// file by its own lights.
func (r *recovery) prove() error {
	checked := make(chan error, 1)
	go func() { checked <- r.db.integrity(r.ctx, r.db.read) }()
	trouble := r.proveRows()
	if err := <-checked; err != nil {
		if !corrupt(err) && r.db.file == nil {
			return r.db.trouble(err)
		}
		r.wrong = err
		return nil
	}
	return trouble
}

func (r *recovery) proveRows() error {
	h, s, err := readHead(r.ctx, r.db.read, "")
	switch {
	case errors.Is(err, sql.ErrNoRows):
		r.absent = true
		return nil
	case err != nil && !corrupt(err):
		return r.db.trouble(err)
	case err != nil:
		r.wrong = err
		return nil
	}
	r.head, r.keyID, r.absent = h, s.keyID, false
	if s.keyID != r.cfg.Keys.ID() {
		r.wrong = errOtherKey{s.keyID}
		return nil
	}
	if !h.proven(s, r.cfg.Keys) {
		r.wrong = fmt.Errorf("the head row: %w", errForged)
		return nil
	}
	digest, err := r.sumUp()
	switch {
	case err != nil && !corrupt(err) && !errors.Is(err, errForged):
		return r.db.trouble(err)
	case err != nil:
		r.wrong = err
	case digest != h.Digest:
		r.wrong = errors.New("the digest over the tables is not the one in the head: a row is missing or too many")
	}
	return nil
}

// sumUp proves every row and sums the digest. Followers are told of what is
// proven on the way: a row that carries our MAC is real, and if it is old, the
// newer one will be told after it.
func (r *recovery) sumUp() (digest sum, err error) {
	for _, t := range ledgerTables {
		part, n, err := proveTable(r.ctx, r.db.read, t, r.cfg.Keys, func(rows []row) error {
			if r.cfg.Follow != nil && t != repliesTable {
				r.cfg.Follow(changeOf(rows, r.head.Revision))
			}
			return nil
		})
		if err != nil {
			return digest, err
		}
		digest = digest.plus(part)
		if t == tokensTable {
			r.report.Tokens = n
		}
	}
	return digest, nil
}

// printable names a row in messages; the key of a reply is no text.
func printable(r row) string {
	if _, ok := r.(*replyRow); ok {
		return "(reply)"
	}
	return key(r)
}

// checkKeys refuses to go on with a key that proves nothing of what is there.
func (r *recovery) checkKeys() error {
	id := r.cfg.Keys.ID()
	foreign := r.book.otherKey != "" && len(r.book.marks) == 0
	if r.cfg.KeyLost {
		return nil
	}
	other := r.keyID
	if other == "" || other == id {
		other = r.book.otherKey
	}
	switch {
	case r.usable() && foreign:
		return fault.New(fault.Invalid, "ledger_foreign", "The ledger in %s was written under another key (%s) than the database (%s).",
			r.ledger.dir, r.book.otherKey, id).
			WithFix("Set ledger.dir to this installation's folder; if the old ledger is not wanted, move it away.")
	case !r.usable() && foreign, r.keyID != "" && r.keyID != id && len(r.book.marks) == 0:
		return fault.New(fault.Invalid, "key_wrong", "The data was written under the key %s, and the key file holds %s.", other, id).
			WithFix("Put the right key file back, from its copy beside the ledger or from a backup.")
	}
	return nil
}

// fresh makes the first database of an installation.
func (r *recovery) fresh() error {
	if _, err := os.Stat(r.marker()); err == nil {
		return r.lost("The data directory was in use before, and neither the database nor the ledger is there.")
	}
	if err := r.make(); err != nil {
		return err
	}
	r.report.Outcome = "new"
	return newState().write(r.ctx, r.db, r.cfg.Keys, &r.head, "")
}

func (r *recovery) lost(detail string) error {
	return fault.New(fault.Unavailable, "store_lost", detail).
		WithFix("Bring the disks back, or put a copy of the data back in its place. An empty start would forget every revocation; to want that, move %s away.", r.cfg.Dir)
}

// make opens a new database; one that never held anything is used as it is.
func (r *recovery) make() error {
	if r.db != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(sqlitePath(r.cfg.URL)), 0o700); err != nil && !isPostgres(r.cfg.URL) {
		return unavailable(err)
	}
	db, err := openDatabase(r.ctx, r.cfg.URL, tokensKind, true)
	r.db = db
	return err
}

// marker is the file that says that this directory was in use.
func (r *recovery) marker() string { return filepath.Join(r.cfg.Dir, "initialised") }

func (r *recovery) leaveMarker() error {
	if _, err := os.Stat(r.marker()); err == nil {
		return nil
	}
	if err := os.MkdirAll(r.cfg.Dir, 0o700); err != nil {
		return unavailable(err)
	}
	f, err := os.OpenFile(r.marker(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "gradegate data since %s; key %s. Without this file an empty start is possible.\n",
			r.cfg.Clock.Now().Format(time.RFC3339), r.cfg.Keys.ID())
		err = errors.Join(err, f.Sync(), f.Close(), syncDir(r.cfg.Dir))
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// corrupt reports whether an error says that the file is no whole database any
// more, as opposed to one that cannot be reached at the moment.
func corrupt(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH:
		return true
	case sqlite3.SQLITE_ERROR: // no such table, no such column
		return true
	}
	return e.Code() == sqlite3.SQLITE_IOERR_SHORT_READ
}

// moveAside keeps a bad database for whoever wants to know what happened.
func (r *recovery) moveAside() (string, error) {
	if r.db != nil {
		_ = r.db.Close()
		r.db = nil
	}
	path := sqlitePath(r.cfg.URL)
	aside := path + ".bad-" + time.Now().UTC().Format("20060102T150405.000000")
	for _, part := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(path+part, aside+part); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", unavailable(err)
		}
	}
	return aside, unavailableOrNil(syncDir(filepath.Dir(path)))
}

func unavailableOrNil(err error) error {
	if err == nil {
		return nil
	}
	return unavailable(err)
}

// event is the record of what was repaired.
func (r *recovery) event() audit.Event {
	now := r.cfg.Clock.Now()
	return audit.Event{
		ID: newEventID(now), At: now, Action: audit.StoreRecover, Outcome: audit.Done, Actor: "system",
		Reason: r.report.Outcome, Detail: map[string]string{"notes": strings.Join(r.report.Notes, " ")},
	}
}

// withoutKey is the ring that proves nothing.
func withoutKey() *keys.Ring { return nil }
