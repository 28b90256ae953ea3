// Package journal is the one on-disk line format of the program: an append-only
// folder of JSON lines that survives power cuts, shared by the ledger of
// tokens.db and by the audit trail.
//
// It exists so that "acknowledged" has one meaning, tested in one place: what
// was acknowledged is read back, in order, and nothing is read back that was
// never written. A person can read it with a pager; a program can prove it whole.
//
// # Format
//
// A journal is a folder of segments 00000001.jsonl, 00000002.jsonl, … Every
// line is a JSON object that carries the CRC-32C of its inner JSON bytes:
//
//	{"c":"1a2b3c4d","h":{"format":1,"stream":"ledger","segment":2,"first":18,"prev":"<chain>","meta":{…}}}
//	{"c":"1a2b3c4d","r":<a record of the caller>}
//	{"c":"1a2b3c4d","b":{"n":3,"first":17,"synced":12,"chain":"<chain>"}}
//
// A segment starts with a header (h); a batch is n records (r) and a terminator
// (b). first is the index, over the whole journal, of the first record; synced
// is the index below which everything was known to be on the disk when the
// batch was written. The chain after a batch is SHA-256 over the chain before
// it and each record's inner bytes followed by a newline; the chain of an empty
// journal is 32 zero bytes. The header's prev is the chain at its first. Zero
// bytes after the last batch are space allocated in advance.
//
// A segment that another follows never changes again, and may be compressed: then it
// is 00000001.jsonl.zst, whose Zstandard frames (RFC 8878) give the plain file, and hold the header
// and after it whole batches, about a megabyte in each. Readers take both forms.
//
// # After a failed write or fsync
//
// The file descriptor is never trusted again, because the kernel reports a lost
// page once and then calls it clean. The next write opens a new segment at the
// last position that an fsync covered, and carries over the batches that were
// acknowledged after it without fsync. The failed batch is void. Whatever the old segment
// holds beyond the new header's first is cut off if that is possible; a reader
// ignores it in any case, since the header's first and prev tell the truth.
//
// # After a crash
//
// Open cuts an incomplete tail and reports it. A bad line is an error, not a
// tail, when a complete batch follows it, or a terminator whose synced lies
// beyond it: that is no torn write but rot or tampering. One exception: pages
// that were never fsynced reach the disk in any order, so a hole of zeros before
// a complete batch is still a torn tail if no terminator says it was synced.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// ErrClosed is returned by every operation on a closed journal or committer.
var ErrClosed = errors.New("journal: closed")

const (
	defaultSegmentBytes = 64 << 20

	// maxCarry bounds the memory for batches not yet synced; a write that would
	// exceed it syncs first-hand.
	maxCarry = 8 << 20
)

// Options configure Open. Only Stream is required.
type Options struct {
	// Stream names the journal, such as "ledger"; a folder of another stream is
	// refused.
	Stream string
	// SegmentBytes is the size at which a new segment starts; 0 means 64 MiB. A
	// batch is never split, so that a segment may be larger by one batch.
	SegmentBytes int64
	// Preallocate is how many zero bytes are written ahead of the end each time
	// the allocated space is used up; 0 means none. It makes fdatasync cheaper,
	// because the file's size does not change.
	Preallocate int64
	// Meta makes the caller's part of a segment header, a JSON object, for a
	// segment that starts at index first with the chain given. It is called
	// with the journal locked and must not call it. After a failed fsync first
	// may lie before the newest acknowledged record, but never before the last
	// synced one. Nil means no meta.
	Meta func(first uint64, chain Chain) (json.RawMessage, error)
}

// Position is a place between two batches.
type Position struct {
	Next    uint64 // index of the record that follows
	Chain   Chain  // chain hash over everything before
	Segment uint64 // number of the segment in which the last batch lies
	Offset  int64  // bytes in that segment up to here
}

// Journal is the writing end. There may be only one per folder at a time, which
// the caller ensures; readers need no lock. It is safe for concurrent use.
type Journal struct {
	dir  string
	o    Options
	disk disk

	mu      sync.Mutex
	idle    sync.Cond // signalled when syncing becomes false
	syncing bool      // a Sync runs without the lock; nobody else may fsync then
	closed  bool

	f         file  // active segment; nil after a failure
	cause     error // why f is nil
	first     uint64
	allocated int64

	head  Position // after the last acknowledged batch
	safe  Position // after the last synced batch
	carry []byte   // the bytes of the batches between safe and head
	own   batch    // buffer of Write
}

// Write appends the records as one batch with one write call and, if sync is
// set, waits for fdatasync. On error the batch is void: it will not be read back
// once a later batch is acknowledged, but may be if the process dies before.
// Each record is a JSON object on one line (see ErrRecord); it is copied.
func (j *Journal) Write(records [][]byte, sync bool) (Position, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.own.reset()
	for _, r := range records {
		if err := checkRecord(r); err != nil {
			return j.head, err
		}
		j.own.add(r, checksum(r))
	}
	// The lock is released while write waits for a running Sync, and another
	// Write may then want the buffer: take it along.
	b := j.own
	j.own = batch{}
	pos, err := j.write(&b, sync)
	j.own = b
	return pos, err
}

// commit is Write for a batch that is already encoded.
func (j *Journal) commit(b *batch, sync bool) (Position, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.write(b, sync)
}

func (j *Journal) write(b *batch, sync bool) (Position, error) {
	if len(b.inner) == 0 {
		return j.head, fmt.Errorf("%w: a batch without records", ErrRecord)
	}
	sync = sync || len(j.carry)+len(b.buf) > maxCarry
	for j.syncing && (sync || j.f == nil || j.full()) {
		j.idle.Wait()
	}
	if j.closed {
		return j.head, ErrClosed
	}
	if j.f == nil || j.full() {
		if err := j.roll(); err != nil {
			return j.head, err
		}
	}
	next := b.terminate(j.head, j.safe.Next)
	j.preallocate(int64(len(b.buf)))
	if err := writeAt(j.f, b.buf, j.head.Offset); err != nil {
		return j.head, j.fail("write", err)
	}
	if sync {
		if err := j.f.Datasync(); err != nil {
			return j.head, j.fail("fsync", err)
		}
		j.safe, j.carry = next, j.carry[:0]
	} else {
		j.carry = append(j.carry, b.buf...)
	}
	j.head = next
	j.allocated = max(j.allocated, next.Offset)
	return next, nil
}

// full says that the next batch belongs into a new segment.
func (j *Journal) full() bool {
	return j.head.Offset >= j.o.SegmentBytes && j.head.Next > j.first
}

// zeros is written in pieces, so that allocating costs no memory.
var zeros [64 << 10]byte

// preallocate keeps zeros ahead of the end. Its failure is not the journal's: the
// write that follows tells whether there is room for what matters.
func (j *Journal) preallocate(need int64) {
	end := j.head.Offset + need
	if j.o.Preallocate <= 0 || end <= j.allocated {
		return
	}
	for from := max(j.allocated, j.head.Offset); from < end+j.o.Preallocate; from = j.allocated {
		if writeAt(j.f, zeros[:], from) != nil {
			return
		}
		j.allocated = from + int64(len(zeros))
	}
}

// Sync makes everything that was acknowledged before the call durable. Writes
// without sync go on meanwhile. After an error, the records are kept in memory
// and the next Write, Sync or Reopen puts them into a new segment.
func (j *Journal) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wait()
	switch {
	case j.closed:
		return ErrClosed
	case j.f == nil:
		return j.roll()
	case j.safe == j.head:
		return nil
	}
	f, at, n := j.f, j.head, len(j.carry)
	j.syncing = true
	j.mu.Unlock()
	err := f.Datasync()
	j.mu.Lock()
	j.syncing = false
	j.idle.Broadcast()
	if j.f == nil { // a write failed meanwhile: nothing about f counts any more
		return j.cause
	}
	if err != nil {
		return j.fail("fsync", err)
	}
	j.safe = at
	j.carry = j.carry[:copy(j.carry, j.carry[n:])]
	return nil
}

// wait returns, with the lock held, when no Sync is under way.
func (j *Journal) wait() {
	for j.syncing {
		j.idle.Wait()
	}
}

// Position is the place after the last acknowledged batch.
func (j *Journal) Position() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// Synced is the place after the last batch that is known to be on the disk.
func (j *Journal) Synced() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.safe
}

// Seal starts a new segment now, after which the segment before never changes
// again. If the active segment has no batch yet, nothing happens.
func (j *Journal) Seal() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wait()
	switch {
	case j.closed:
		return ErrClosed
	case j.f != nil && j.head.Next == j.first:
		return nil
	}
	return j.roll()
}

// Reopen tries to leave the failed state by starting a new segment. It does
// nothing when the journal works. Write does the same by itself.
func (j *Journal) Reopen() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wait()
	switch {
	case j.closed:
		return ErrClosed
	case j.f != nil:
		return nil
	}
	return j.roll()
}

// Close syncs, gives allocated space back and closes the file. The error tells
// that acknowledged, unsynced records may be lost. A second Close is harmless.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wait()
	if j.closed {
		return nil
	}
	j.closed = true
	if j.f == nil && len(j.carry) == 0 {
		return nil // everything acknowledged is safe in the failed segment
	}
	if j.f == nil {
		if err := j.roll(); err != nil {
			return err
		}
	}
	f := j.f
	j.f = nil
	if j.allocated > j.head.Offset {
		// Zeros at the end are legal, so that this need not succeed.
		_ = f.Truncate(j.head.Offset)
	}
	err := f.Datasync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("journal: close %s: %w", j.path(j.head.Segment), err)
	}
	return nil
}

// fail retires the descriptor after an error on it and returns the error, with
// its place. What was half written goes at once if it can, so that a process
// that dies now does not bring a batch back whose callers were told it failed.
func (j *Journal) fail(op string, err error) error {
	j.cause = fmt.Errorf("journal: %s %s at %d: %w", op, j.path(j.head.Segment), j.head.Offset, err)
	_ = j.f.Close() // nothing it says would change the verdict
	j.f = nil
	_ = j.disk.trim(j.path(j.head.Segment), j.head.Offset)
	return j.cause
}

// roll starts the next segment at the last synced position and carries over
// what was acknowledged since. The caller holds the lock and no Sync runs.
func (j *Journal) roll() error {
	if j.f != nil && j.safe != j.head {
		if err := j.f.Datasync(); err != nil {
			return j.fail("fsync", err)
		}
		j.safe, j.carry = j.head, j.carry[:0]
	}
	f, size, err := j.create(j.safe.Segment+1, j.safe, j.carry)
	if err != nil {
		// The new segment may have become visible, and then batches that went
		// on in the old one would be void. So the old one is finished as well.
		if j.f != nil {
			return j.fail("seal", err)
		}
		j.cause = err
		return err
	}
	if j.f != nil {
		_ = j.f.Close() // its contents are synced
	}
	// Only now may the old segment lose what is carried over, since it held the
	// only copy. Failure is harmless: readers ignore what lies beyond the next
	// segment's first.
	_ = j.disk.trim(j.path(j.safe.Segment), j.safe.Offset)
	j.f, j.cause = f, nil
	j.first, j.allocated = j.safe.Next, size
	j.head.Segment, j.head.Offset = j.safe.Segment+1, size
	j.safe, j.carry = j.head, j.carry[:0]
	return nil
}
