package store

import (
	"errors"
	"fmt"
	"slices"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
	"gradegate/internal/keys"
)

// book is what the ledger says about the time since its latest base.
type book struct {
	start uint64 // index of the record with which the base, or else the ledger, begins
	empty bool
	// whole: the state can be built from here, because there is a base or the
	// very first batch.
	whole bool
	marks []mark // the batches since then that were not voided, in order
	acked int64  // the highest seq that is known to be committed
	last  int64  // the highest seq of any batch, voided ones included
	mark  int64  // the latest instant written
	tails []tail
	chain journal.Chain
	// forged is the first record that is not ours although it names our key;
	// otherKey is the key of records that were made under another one.
	forged   error
	otherKey string
	damage   error // the journal ends in damage that no crash explains

	part int // of a base that is being read
	at   uint64
}

// mark is one batch.
type mark struct {
	seq           int64
	batch         string
	before, after sum
	chain         journal.Chain
	pending       int64
	revision      int64
	at            uint64 // index of its record
}

// tail is a record that may have to be applied again: what tightens in it
// stands even where the batch itself does not.
type tail struct {
	seq int64 // zero for a delta
	pos int   // number of marks before it: for a batch that stands, its own
	rec *record
}

// readBook reads the ledger from index from on; zero reads all of it. With a
// nil ring nothing is proven.
func readBook(dir string, k *keys.Ring, from uint64) (*book, error) {
	b := &book{empty: true}
	segments, err := journal.Segments(dir)
	if errors.Is(err, journal.ErrCorrupt) {
		b.damage = err
		return b, nil
	}
	if err != nil || len(segments) == 0 {
		return b, err
	}
	from = max(from, segments[0].First)
	b.start = from
	_, err = journal.Batches(dir, from, func(first uint64, records [][]byte, pos journal.Position) error {
		for i, line := range records {
			b.read(first+uint64(i), line, k, pos.Chain)
		}
		return nil
	})
	if errors.Is(err, journal.ErrCorrupt) {
		b.damage, err = err, nil
	}
	return b, err
}

func (b *book) read(index uint64, line []byte, k *keys.Ring, chain journal.Chain) {
	b.empty, b.at = false, index
	r, err := decodeRecord(line, k)
	var other errOtherKey
	switch {
	case errors.As(err, &other):
		b.otherKey = other.id
		return
	case err != nil:
		if b.forged == nil {
			b.forged = fmt.Errorf("record %d of the ledger: %w", index, err)
		}
		return
	}
	b.mark = max(b.mark, r.At)
	switch r.Kind {
	case recordBase:
		b.base(r, chain)
	case recordBatch:
		b.batch(r, chain)
	case recordDelta:
		b.strikeOut(r.Void)
		b.tails = append(b.tails, tail{pos: len(b.marks), rec: r})
	case recordAck:
		b.acked = max(b.acked, r.Seq)
	}
}

// base forgets what came before, once its last part is there.
func (b *book) base(r *record, chain journal.Chain) {
	if r.Part == 1 {
		b.part = 0
	}
	if r.Part != b.part+1 {
		return
	}
	b.part = r.Part
	if !r.Last || r.After == nil {
		return
	}
	*b = book{
		start: b.at + 1 - uint64(r.Part), whole: true, acked: b.acked, mark: b.mark, at: b.at,
		last: max(b.last, r.Seq), chain: chain, damage: b.damage,
		marks: []mark{{seq: r.Seq, batch: r.Batch, after: *r.After, chain: chain, pending: r.Pending, revision: r.Revision, at: b.at}},
	}
}

func (b *book) batch(r *record, chain journal.Chain) {
	if r.Before == nil || r.After == nil {
		b.forged = fmt.Errorf("record %d of the ledger has no digest", b.at)
		return
	}
	b.strikeOut(r.Void)
	if len(b.marks) == 0 && *r.Before == (sum{}) && !b.whole {
		// The ledger of a database from its first batch on.
		b.whole = true
		b.marks = append(b.marks, mark{})
	}
	b.last = max(b.last, r.Seq)
	b.tails = append(b.tails, tail{seq: r.Seq, pos: len(b.marks), rec: r})
	b.marks = append(b.marks, mark{
		seq: r.Seq, batch: r.Batch, before: *r.Before, after: *r.After, chain: chain, pending: r.Pending, revision: r.Revision, at: b.at,
	})
	b.chain = chain
	// Older batches are settled, and what came between them is in them: only
	// the newest can be in doubt.
	keep := slices.IndexFunc(b.tails, func(t tail) bool { return t.pos >= len(b.marks)-2 })
	b.tails = b.tails[keep:]
}

// strikeOut removes batches that were not committed. What follows a voided one
// then stands at its place.
func (b *book) strikeOut(void []int64) {
	for _, seq := range void {
		b.last = max(b.last, seq) // it may have been attempted without a trace
		i := slices.IndexFunc(b.marks, func(m mark) bool { return m.seq == seq && m.batch != "" })
		if i < 0 {
			continue
		}
		b.marks = slices.Delete(b.marks, i, i+1)
		for j := range b.tails {
			if b.tails[j].pos > i {
				b.tails[j].pos--
			}
		}
	}
}

// newest is the last batch that was not voided.
func (b *book) newest() (mark, bool) {
	if len(b.marks) == 0 {
		return mark{}, false
	}
	return b.marks[len(b.marks)-1], true
}

// find is the number of the mark at which the head is; -1 if it is at none.
func (b *book) find(h *head) int {
	for i := len(b.marks) - 1; i >= 0; i-- {
		m := &b.marks[i]
		if m.seq == h.Seq && m.after == h.Digest && m.batch == h.Batch {
			return i
		}
	}
	return -1
}

// standing are the batches that were committed, by their ids.
func (b *book) standing() map[string]bool {
	ids := make(map[string]bool, len(b.marks))
	for _, m := range b.marks {
		ids[m.batch] = true
	}
	return ids
}

// contiguous reports whether each batch after mark i continues the one before.
func (b *book) contiguous(i int) bool {
	for ; i+1 < len(b.marks); i++ {
		if b.marks[i+1].before != b.marks[i].after {
			return false
		}
	}
	return true
}

// after gathers what the records behind mark i took away, with its events: the
// deltas, and whatever of a batch stands even though the batch does not.
func (b *book) after(i int) (rows []row, events []audit.Event, err error) {
	for _, t := range b.tails {
		if t.pos <= i {
			continue
		}
		for _, o := range t.rec.Ops {
			if o.Class != tighten {
				continue
			}
			for _, ri := range o.Rows {
				made, err := ri.decode()
				if err != nil {
					return nil, nil, err
				}
				rows = append(rows, made)
			}
			for _, line := range o.Events {
				e, err := audit.Decode(line)
				if err != nil {
					return nil, nil, err
				}
				events = append(events, e)
			}
		}
	}
	return rows, events, nil
}
