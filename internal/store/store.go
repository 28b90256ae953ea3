// Package store keeps what must not be lost: the tokens database and the jobs
// database, on SQLite or on PostgreSQL, behind the same hand-written SQL.
//
// The tokens database loses no acknowledged decision. One goroutine writes it
// in batches; a batch is one transaction and one record of an append-only
// ledger on another disk, which is durable before the transaction commits.
// Every row carries a keyed MAC and the head row a keyed digest over the table,
// so that an edited, deleted or rolled-back row is found, and the ledger then
// rebuilds the database. What only takes rights away is never held up: it goes
// on with either of the two gone.
//
//	Commit ─► queue ─► one transaction ─► ledger, fsync ─► head, COMMIT ─► followers ─► answer
//
// Where to look: apply.go is one decision in a transaction, writer.go the
// batch, degraded.go what happens when either side fails, recover.go what
// happens at start, ledger.go the form of the ledger's records, rows.go that
// of the rows. The jobs database (jobs.go) has no ledger: it is backed up.
package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"gradegate/internal/fault"
)

// DirLock is the right to use a data directory. The kernel takes it back when
// the process ends, however it ends.
type DirLock struct{ f *os.File }

// Lock takes the data directory for this process, and makes it if it is
// missing. A second process gets the fault "data_locked". The lock is a file of
// its own: opening and closing a database file would drop SQLite's own locks.
func Lock(dir string) (*DirLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(dir, "gradegate.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		return nil, fault.New(fault.Conflict, "data_locked", "Another gradegate (process %s) is using %s.",
			strings.TrimSpace(string(holder)), dir).
			WithFix("Stop it first, or use another --data directory.")
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return &DirLock{f: f}, nil
}

// Unlock gives the directory back.
func (l *DirLock) Unlock() error { return l.f.Close() }

// Report says what opening or checking a database found and did, in sentences
// for the operator.
type Report struct {
	// Outcome is one stable word: "clean", "new", "reapplied", "replayed",
	// "rebuilt", "rebased", "unproven", or "damaged" (of a check only).
	Outcome string
	Notes   []string
	Tokens  int
	Seq     int64
}

// Loud reports whether an operator must see the notes.
func (r *Report) Loud() bool { return r.Outcome != "clean" && r.Outcome != "new" }

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
