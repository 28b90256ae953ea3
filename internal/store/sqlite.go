package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"gradegate/internal/fault"
)

// oldestSQLite is the first version without the WAL-reset bug, which loses
// commits when a process has two connections.
var oldestSQLite = [3]int{3, 51, 3}

var sqliteDialect = &dialect{
	name:      "sqlite",
	unique:    sqliteUnique,
	refused:   sqliteRefused,
	integrity: sqliteIntegrity,
	notify:    func(context.Context, *sql.Tx, string) error { return nil },
}

// dbFile is the identity of a database file, by Stat alone: opening and closing
// the file would drop SQLite's locks on it.
type dbFile struct {
	path string
	main inode
	wal  atomic.Pointer[inode] // nil until the first write made it
}

type inode struct{ dev, ino uint64 }

func statInode(path string) (inode, error) {
	var st syscall.Stat_t
	err := syscall.Stat(path, &st)
	return inode{uint64(st.Dev), st.Ino}, err
}

// intact reports whether the path still leads to the file that is open. A file
// that was removed or replaced takes writes without an error, and loses them.
func (f *dbFile) intact() error {
	if now, err := statInode(f.path); err != nil || now != f.main {
		return fmt.Errorf("%s was removed or replaced: %w", f.path, errors.Join(err, os.ErrNotExist))
	}
	now, err := statInode(f.path + "-wal")
	known := f.wal.Load()
	switch {
	case known == nil && err == nil:
		f.wal.Store(&now)
	case known != nil && (err != nil || now != *known):
		return fmt.Errorf("%s-wal was removed or replaced: %w", f.path, errors.Join(err, os.ErrNotExist))
	}
	return nil
}

// ofdLocks makes SQLite use locks that survive an open and close of the same
// file elsewhere in the process; where the kernel has none, ours still hold.
var ofdLocks = sync.OnceFunc(func() { _, _ = sqlite.OFDLocking(true) })

// openSQLite opens a file that exists. With create it makes it first, readable
// by us alone; mode=rw then never does, so that a vanished database is an
// error and never an empty one.
func openSQLite(ctx context.Context, path string, k kind, create bool) (*database, error) {
	ofdLocks()
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if create {
		f, err := os.OpenFile(abs, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err == nil {
			err = errors.Join(f.Close(), syncDir(filepath.Dir(abs)))
		}
		if err != nil {
			return nil, unavailable(err)
		}
	}
	d := &database{dialect: sqliteDialect, schema: k.name, url: abs, file: &dbFile{path: abs}}
	if d.file.main, err = statInode(abs); err != nil {
		return nil, unavailable(fmt.Errorf("%s: %w", abs, err))
	}
	if d.write, err = sql.Open("sqlite", sqliteDSN(abs, "rw", "_txlock=immediate",
		"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)")); err != nil {
		return nil, unavailable(err)
	}
	d.write.SetMaxOpenConns(1)
	// A read-only opener cannot make the WAL index: the writer comes first.
	err = d.prepareSQLite(ctx, k, create)
	if err == nil {
		d.read, err = sql.Open("sqlite", sqliteDSN(abs, "ro", "", "query_only(1)"))
	}
	if err != nil {
		_ = d.write.Close()
		return nil, err
	}
	readers := max(4, 2*runtime.GOMAXPROCS(0))
	d.read.SetMaxOpenConns(readers)
	d.read.SetMaxIdleConns(readers)
	return d, nil
}

// sqliteDSN names a database and how it is opened. The cache of a connection
// holds the inner pages of a table of a million rows.
func sqliteDSN(path, mode, extra string, pragmas ...string) string {
	q := "mode=" + mode + "&_dqs=0"
	if extra != "" {
		q += "&" + extra
	}
	for _, p := range append([]string{"busy_timeout(5000)", "trusted_schema(0)", "cell_size_check(1)", "mmap_size(0)", "cache_size(-6000)"}, pragmas...) {
		q += "&_pragma=" + url.QueryEscape(p)
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q}).String()
}

// prepareSQLite brings the schema up to date and asserts what durability rests on.
func (d *database) prepareSQLite(ctx context.Context, k kind, fresh bool) error {
	var appID int64
	if err := d.write.QueryRowContext(ctx, "PRAGMA application_id").Scan(&appID); err != nil {
		return d.trouble(err)
	}
	if !fresh && appID != int64(k.appID) && appID != 0 {
		return fault.New(fault.Invalid, "store_foreign", "%s is no %s database of gradegate.", d.url, k.name).
			WithFix("Check the path in the configuration.")
	}
	if appID == 0 {
		// Before the schema, so that a half-made file is recognised as ours.
		if _, err := d.write.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(int(k.appID))); err != nil {
			return d.trouble(err)
		}
	}
	if err := d.assertSQLite(ctx); err != nil {
		return err
	}
	return d.migrate(ctx, goose.DialectSQLite3)
}

func (d *database) assertSQLite(ctx context.Context) error {
	var version string
	if err := d.write.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return d.trouble(err)
	}
	if !atLeast(version, oldestSQLite) {
		return fault.New(fault.Invalid, "sqlite_old", "SQLite %s can lose commits; 3.51.3 is the oldest that is safe.", version).
			WithFix("Build gradegate with the library versions in its go.mod.")
	}
	for _, want := range []struct{ pragma, value string }{
		{"journal_mode", "wal"}, {"synchronous", "2"}, {"foreign_keys", "1"},
		{"trusted_schema", "0"}, {"cell_size_check", "1"}, {"busy_timeout", "5000"},
	} {
		var have string
		if err := d.write.QueryRowContext(ctx, "PRAGMA "+want.pragma).Scan(&have); err != nil {
			return d.trouble(err)
		}
		if have != want.value {
			return fault.New(fault.Invalid, "sqlite_settings", "SQLite runs with %s = %s and not %s.", want.pragma, have, want.value).
				WithFix("Put the data on a local file system; WAL needs shared memory.")
		}
	}
	return nil
}

func atLeast(version string, oldest [3]int) bool {
	for i, part := range strings.SplitN(version, ".", 3) {
		n, err := strconv.Atoi(part)
		if err != nil || n < oldest[i] {
			return false
		}
		if n > oldest[i] {
			return true
		}
	}
	return true
}

func sqliteIntegrity(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return errors.New(verdict)
	}
	return nil
}

// sqliteUnique reads the columns from "… UNIQUE constraint failed: tokens.digest (2067)".
func sqliteUnique(err error) (string, bool) {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok || e.Code() != sqlite3.SQLITE_CONSTRAINT_UNIQUE && e.Code() != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY {
		return "", false
	}
	_, what, _ := strings.Cut(e.Error(), "constraint failed: ")
	if _, inner, nested := strings.Cut(what, "constraint failed: "); nested {
		what = inner
	}
	return what, true
}

func sqliteRefused(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_CONSTRAINT
}
