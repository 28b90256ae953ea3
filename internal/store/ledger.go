package store

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/journal"
	"gradegate/internal/keys"
)

// The kinds of ledger records.
const (
	// recordBatch is a transaction, written before its COMMIT. Another batch
	// after it means that it was committed, unless that one voids it.
	recordBatch = "batch"
	// recordBase is a part of the whole state; with its last part, everything
	// before it is history.
	recordBase = "base"
	// recordDelta is a tightening that was decided while the database was dead.
	// It has no seq; the next batch applies it as an operation.
	recordDelta = "delta"
	// recordAck says that the batch of this seq was committed. It is written
	// without fsync: where it is missing, nothing is concluded.
	recordAck = "ack"
)

// record is one line of the ledger, form v1. Members are never renamed.
type record struct {
	Form     int    `json:"form"`
	Kind     string `json:"kind"`
	Seq      int64  `json:"seq,omitempty"`
	Batch    string `json:"batch,omitempty"` // id of the transaction
	Boot     string `json:"boot,omitempty"`  // id of the process that wrote it
	At       int64  `json:"at,omitempty"`
	KeyID    string `json:"key_id"`
	MACForm  int    `json:"mac_version"`
	Revision int64  `json:"revision,omitempty"`
	Before   *sum   `json:"before,omitempty"` // digest of the table before …
	After    *sum   `json:"after,omitempty"`  // … and after it
	// Void lists batches that were written and not committed.
	Void []int64 `json:"void,omitempty"`
	// Pending is the lowest seq whose events may not be in the trail yet.
	Pending int64      `json:"pending,omitempty"`
	Ops     []op       `json:"ops,omitempty"`
	Part    int        `json:"part,omitempty"` // of a base, from 1
	Last    bool       `json:"last,omitempty"` // part of a base
	Rows    []rowImage `json:"rows,omitempty"` // of a base
}

// op is one decision in a record.
type op struct {
	Class    string            `json:"class"` // tighten or loosen
	Revision int64             `json:"revision,omitempty"`
	Actions  []audit.Action    `json:"actions,omitempty"`
	Rows     []rowImage        `json:"rows,omitempty"`
	Events   []json.RawMessage `json:"events,omitempty"`
}

// rowImage is a row after the decision.
type rowImage struct {
	Table string          `json:"table"`
	Row   json.RawMessage `json:"row"`
}

const (
	tighten = "tighten"
	loosen  = "loosen"
)

// decode reads the row of an image; nil for a table that this form lacks.
func (i *rowImage) decode() (row, error) {
	t := tableNamed(i.Table)
	if t == nil {
		return nil, fmt.Errorf("the ledger has rows of an unknown table %q", i.Table)
	}
	r := t.empty()
	return r, json.Unmarshal(i.Row, r)
}

// macMember is how a record ends: its MAC is over everything before this.
const macMember = `,"mac":"`

const macLen = len(macMember) + 64 + len(`"}`)

// encode gives the record's line with its MAC.
func (r *record) encode(k *keys.Ring) []byte {
	r.Form, r.KeyID, r.MACForm = 1, k.ID(), keys.Version
	body, err := json.Marshal(r)
	if err != nil {
		panic("store: " + err.Error()) // records are structs of strings, numbers and JSON of our own
	}
	body = body[:len(body)-1]
	mac := k.HeadMAC(append([]byte("ledger 1\n"), body...))
	body = append(body, macMember...)
	body = hex.AppendEncode(body, mac[:])
	return append(body, `"}`...)
}

// errRecordForged is a record whose MAC is not ours, although it names our key.
var errRecordForged = errors.New("a ledger record does not carry our MAC")

// errOtherKey is a record that was made under another key.
type errOtherKey struct{ id string }

func (e errOtherKey) Error() string { return "a ledger record was made under key " + e.id }

// decodeRecord reads a line. With a nil ring the MAC is not looked at: that is
// for the one case in which the key was lost.
func decodeRecord(line []byte, k *keys.Ring) (*record, error) {
	r := new(record)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, err
	}
	if k == nil {
		return r, nil
	}
	if r.KeyID != k.ID() {
		return r, errOtherKey{r.KeyID}
	}
	cut := len(line) - macLen
	if cut < 0 || !bytes.HasPrefix(line[cut:], []byte(macMember)) {
		return r, errRecordForged
	}
	want := k.HeadMAC(append([]byte("ledger 1\n"), line[:cut]...))
	got, err := hex.DecodeString(string(line[cut+len(macMember) : len(line)-2]))
	if err != nil || !keys.Equal(got, want[:]) {
		return r, errRecordForged
	}
	return r, nil
}

// ledgerFile is what the ledger needs of a journal.
type ledgerFile interface {
	Write(records [][]byte, sync bool) (journal.Position, error)
	Position() journal.Position
	Close() error
}

// ledger is the writing end. Only the writer's goroutine uses it.
type ledger struct {
	dir  string
	keys *keys.Ring
	file ledgerFile // nil while the folder cannot be opened
	// stale means that the database went on without the ledger: the next record
	// must be a base.
	stale bool
	cause error     // why it is down; nil: it works
	retry time.Time // no attempt before this
	eager bool      // in tests: no back-off
}

const (
	ledgerSegment  = 64 << 20
	ledgerReserve  = 4 << 20 // space that keeps revocations possible on a full disk
	ledgerBackOff  = time.Second
	ledgerStream   = "ledger"
	ledgerPartRows = 2000
)

// openLedger opens the folder for writing. Trouble with the disk is no error:
// the ledger is down then, and everything but loosening goes on. A folder with
// damage inside is moved aside if aside allows it.
func openLedger(dir string, k *keys.Ring, report *Report) (*ledger, error) {
	l := &ledger{dir: dir, keys: k}
	err := l.open(report)
	switch {
	case errors.Is(err, journal.ErrForeign):
		return nil, fault.Wrap(fault.Invalid, "ledger_foreign", "The folder "+dir+" is no ledger of this program.", err).
			WithFix("Set ledger.dir to the right folder.")
	case err != nil:
		l.fail(err)
	}
	return l, nil
}

func (l *ledger) open(report *Report) error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	j, found, err := journal.Open(l.dir, journal.Options{
		Stream: ledgerStream, SegmentBytes: ledgerSegment, Preallocate: ledgerReserve,
	})
	if err != nil {
		return err
	}
	if report != nil && found.Cut.Bytes > 0 {
		report.note("The ledger ended in an incomplete record of %d bytes, as after a power cut; it was cut off.", found.Cut.Bytes)
	}
	l.file = j
	return nil
}

func (l *ledger) fail(err error) {
	l.cause = err
	if !l.eager {
		l.retry = time.Now().Add(ledgerBackOff)
	}
}

// up reports whether a record may be written, as far as is known.
func (l *ledger) up() bool { return l.cause == nil && !l.stale }

// write makes one record durable. A journal that failed goes on in a new file
// at the next write, so that one bad page is no outage.
func (l *ledger) write(r *record) (journal.Position, error) {
	line := [][]byte{r.encode(l.keys)}
	pos, err := l.file.Write(line, true)
	if err != nil {
		pos, err = l.file.Write(line, true)
	}
	if err != nil {
		l.fail(err)
	}
	return pos, err
}

// ack notes that a batch was committed. That it fails is no harm.
func (l *ledger) ack(seq int64) {
	r := record{Kind: recordAck, Seq: seq}
	_, _ = l.file.Write([][]byte{r.encode(l.keys)}, false)
}

func (l *ledger) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
