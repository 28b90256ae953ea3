package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// history is what a writer was told, to be compared with what is read.
//
// The law: what was acknowledged is a prefix of what is read; what is read
// beyond it is at most one batch that was attempted since, whole.
type history struct {
	acked   [][]byte
	durable int        // records covered by a successful sync
	failed  [][][]byte // the batches that failed since the last acknowledged one
	next    int        // number of the next record
}

// write attempts a batch of n new records.
func (h *history) write(j *Journal, n int, sync bool) error {
	b := recs(h.next, n)
	h.next += n
	_, err := j.Write(b, sync)
	if err != nil {
		h.failed = append(h.failed, b)
		return err
	}
	h.acked, h.failed = append(h.acked, b...), nil
	if sync {
		h.durable = len(h.acked)
	}
	return nil
}

// check compares with what is in dir. Of the acknowledged records the first must
// have to be there; the others only after a power cut may be missing.
func (h *history) check(dir string, must int) error {
	got, _, err := readAll(dir)
	if err != nil {
		return err
	}
	n := min(len(got), len(h.acked))
	ok := n >= must && slices.EqualFunc(got[:n], h.acked[:n], bytes.Equal)
	if beyond := got[n:]; ok && len(beyond) > 0 {
		ok = slices.ContainsFunc(h.failed, func(b [][]byte) bool { return slices.EqualFunc(b, beyond, bytes.Equal) })
	}
	if !ok {
		return fmt.Errorf("acknowledged %d records, required are %d, failed then %d batches; read %d: %s",
			len(h.acked), must, len(h.failed), len(got), got)
	}
	return nil
}

var faultOptions = Options{Stream: "test", SegmentBytes: 600, Preallocate: 1024}

// workload writes through faults: errors are expected, and end nothing.
func workload(dir string, d disk, h *history) error {
	j, _, err := open(dir, faultOptions, d)
	if err != nil {
		return nil // nothing acknowledged
	}
	for i := range 16 {
		_ = h.write(j, 1+i%3, i%4 == 0)
		if i%3 == 1 { // beside the live writer
			if err := h.check(dir, len(h.acked)); err != nil {
				return fmt.Errorf("after write %d: %w", i, err)
			}
		}
		if i%5 == 3 && j.Sync() == nil {
			h.durable = len(h.acked)
		}
		if i == 9 && j.Seal() == nil {
			h.durable = len(h.acked)
		}
	}
	return j.Close()
}

// Each operation on the disk fails once, or twice or four times in a row, in
// each way, until a run is left without a fault.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	for _, mode := range []fault{failBefore, failAfter, failShort} {
		for _, count := range []int{1, 2, 4} {
			for at := 1; ; at++ {
				dir := scratch(t)
				d := newFaultDisk()
				d.mode, d.at, d.count = mode, at, count
				var h history
				if err := workload(dir, d, &h); err != nil && !errors.Is(err, errInjected) {
					t.Fatalf("mode %d, fault %d×%d of %s: %v", mode, at, count, d.log[at-1], err)
				}
				if !d.hit {
					if at < 30 || len(h.acked) != h.next {
						t.Fatalf("%d operations, %d of %d acknowledged without a fault", at, len(h.acked), h.next)
					}
					break
				}
				if err := h.check(dir, len(h.acked)); err != nil {
					t.Fatalf("mode %d, fault %d×%d of %s: %v", mode, at, count, d.log[at-1], err)
				}
				reopenAndGoOn(t, dir, &h, len(h.acked))
			}
		}
	}
}

// reopenAndGoOn opens the journal after a crash, checks the law, and checks
// that the journal can be written and read again.
func reopenAndGoOn(t *testing.T, dir string, h *history, must int) {
	t.Helper()
	before, _, err := readAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	j, r, err := open(dir, faultOptions, newFaultDisk())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := h.check(dir, must); err != nil {
		t.Fatal(err)
	}
	if r.Next != uint64(len(before)) {
		t.Fatalf("readers saw %d records, recovery keeps %d", len(before), r.Next)
	}
	mustWrite(t, j, recs(h.next, 2), true)
	wantRecords(t, dir, append(before, recs(h.next, 2)...))
}

// One failed fsync must not fail the next batch: the journal heals by itself.
func TestHealsAfterOneFault(t *testing.T) {
	t.Parallel()
	for at := 1; at < 40; at++ {
		d := newFaultDisk()
		dir := scratch(t)
		j, _, err := open(dir, faultOptions, d)
		if err != nil {
			t.Fatal(err)
		}
		var h history
		_ = h.write(j, 2, false)
		d.at = d.n + at
		failed := 0
		for range 10 {
			if h.write(j, 2, true) != nil {
				failed++
			}
		}
		if failed > 1 {
			t.Fatalf("fault %d failed %d batches", at, failed)
		}
		if err := h.check(dir, len(h.acked)); err != nil {
			t.Fatal(err)
		}
		_ = j.Close()
	}
}

// A power cut keeps an arbitrary choice of the sectors written since the last
// fsync. It costs no durable record, and never looks like corruption.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		dir := scratch(t)
		d := newFaultDisk()
		o := faultOptions
		o.SegmentBytes = 2000 + r.Int64N(8000)
		o.Preallocate = r.Int64N(3) * 3000
		if r.IntN(2) == 0 {
			d.at, d.count, d.mode = 5+r.IntN(60), 1+r.IntN(2), fault(r.IntN(3))
		}
		j, _, err := open(dir, o, d)
		if err != nil {
			continue
		}
		var h history
		for range 5 + r.IntN(40) {
			_ = h.write(j, 1+r.IntN(6), r.IntN(8) == 0)
			if r.IntN(10) == 0 && j.Sync() == nil {
				h.durable = len(h.acked)
			}
		}
		d.powerCut(t, dir, r)
		if err := h.check(dir, h.durable); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		reopenAndGoOn(t, dir, &h, h.durable)
	}
}

// FuzzLaw: random batches, then the file's unacknowledged suffix is cut, zeroed
// or flipped.
func FuzzLaw(f *testing.F) {
	for i := range uint64(20) {
		f.Add(i, uint8(i*13), uint16(i*97), uint8(i*7))
	}
	f.Fuzz(func(t *testing.T, seed uint64, batches uint8, point uint16, flips uint8) {
		r := rand.New(rand.NewPCG(seed, 2))
		dir := scratch(t)
		o := faultOptions
		o.Preallocate = int64(seed % 3 * 700)
		j, _, err := open(dir, o, newFaultDisk())
		if err != nil {
			t.Fatal(err)
		}
		var h history
		for range 1 + batches%24 {
			if err := h.write(j, 1+r.IntN(4), r.IntN(3) == 0); err != nil {
				t.Fatal(err)
			}
		}
		end := j.Position()
		// The last batch is written but was not acknowledged.
		h.failed = [][][]byte{recs(h.next, 1+r.IntN(4))}
		h.next += len(h.failed[0])
		pos, err := j.Write(h.failed[0], false)
		if err != nil {
			t.Fatal(err)
		}
		from := end.Offset
		if pos.Segment != end.Segment {
			segments, err := Segments(dir)
			if err != nil {
				t.Fatal(err)
			}
			header, err := segments[len(segments)-1].encode()
			if err != nil {
				t.Fatal(err)
			}
			from = int64(len(header))
		}
		path := segFile(dir, pos.Segment)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		suffix := b[from:pos.Offset]
		switch at := int(point) % len(suffix); flips % 3 {
		case 0:
			b = b[:int(from)+at]
		case 1:
			clear(suffix[at:])
		default:
			for range 1 + flips/3 {
				suffix[r.IntN(len(suffix))] ^= byte(1 + r.IntN(255))
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := h.check(dir, len(h.acked)); err != nil {
			t.Fatal(err)
		}
		reopenAndGoOn(t, dir, &h, len(h.acked))
		_ = j.f.Close() // the crashed writer's
	})
}

// FuzzArbitrary: whatever bytes a folder holds, reading and opening end without
// a panic, agree with each other, and never make up a record.
func FuzzArbitrary(f *testing.F) {
	good, err := os.ReadFile("testdata/format.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte{})
	f.Add(good[:200], []byte{})
	f.Add(append(bytes.Clone(good), make([]byte, 600)...), []byte("{"))
	f.Add([]byte{}, good)
	f.Add([]byte("\x00\x00\n\n{"), []byte("\n"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		dir := scratch(t)
		for name, b := range map[string][]byte{segmentName(1): one, segmentName(2): two} {
			if len(b) == 0 {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, pos, rerr := readAll(dir)
		for _, r := range got {
			if !bytes.Contains(slices.Concat(one, two), r) {
				t.Fatalf("made up %q", r)
			}
		}
		j, rec, err := open(dir, Options{Stream: "ledger"}, newFaultDisk())
		if err != nil {
			return
		}
		defer j.Close()
		if rerr == nil && rec.Next != pos.Next {
			t.Fatalf("read up to %d, open goes on at %d", pos.Next, rec.Next)
		}
		if rerr == nil {
			if _, err := j.Write(recs(0, 1), true); err != nil {
				t.Fatal(err)
			}
			if after, _, err := readAll(dir); err != nil || len(after) != len(got)+1 {
				t.Fatalf("%d records after %d: %v", len(after), len(got), err)
			}
		}
	})
}

// FuzzLine: parsing a line is the exact inverse of writing it.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"n":3,"first":17,"synced":12,"chain":"0000000000000000000000000000000000000000000000000000000000000000"}`), uint8('b'))
	f.Add([]byte(`{}`), uint8('r'))
	f.Fuzz(func(t *testing.T, inner []byte, kind uint8) {
		if k, got, ok := parseLine(inner); ok {
			if again := appendLine(nil, k, got, checksum(got)); !bytes.Equal(again, append(bytes.Clone(inner), '\n')) {
				t.Fatalf("%q parsed, but is written %q", inner, again)
			}
		}
		if term, ok := parseTerminator(inner); ok && !bytes.Equal(term.append(nil), inner) {
			t.Fatalf("terminator %q", inner)
		}
		line := appendLine(nil, kind, inner, checksum(inner))
		_, got, ok := parseLine(line[:len(line)-1])
		if want := kind == kindRecord || kind == kindBatch || kind == kindHeader; ok != want || (ok && !bytes.Equal(got, inner)) {
			t.Fatalf("%q: %q %v", line, got, ok)
		}
		_, _ = parseHeader(line[:len(line)-1])
	})
}
