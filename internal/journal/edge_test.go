package journal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
)

// A record that was replaced together with its checksum does not fit the chain,
// even in the last batch, where anything a crash explains would be cut.
func TestTamperedRecord(t *testing.T) {
	t.Parallel()
	dir, ends, content := damaged(t)
	for _, i := range []int{0, 7} {
		forged := bytes.Replace(rec(i), []byte(`"i"`), []byte(`"j"`), 1)
		bad := bytes.Replace(content, appendLine(nil, kindRecord, rec(i), checksum(rec(i))),
			appendLine(nil, kindRecord, forged, checksum(forged)), 1)
		if err := os.WriteFile(segFile(dir, 1), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		var c *CorruptError
		if _, err := Verify(dir); !errors.As(err, &c) || c.Next != uint64(i/2*2) || c.Offset < ends[i/2] {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

// What Open found is on the disk when it returns, although the process that wrote it
// died before its fsync.
func TestOpenSyncs(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	before, after := newFaultDisk(), newFaultDisk()
	j, _, err := open(dir, Options{Stream: "test"}, before)
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, j, recs(0, 3), false)
	_ = j.f.Close() // by the kernel
	j, r, err := open(dir, Options{Stream: "test"}, after)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if int64(len(after.synced[segFile(dir, 1)])) != r.Offset || j.Synced() != j.Position() {
		t.Errorf("synced %d of %d bytes", len(after.synced[segFile(dir, 1)]), r.Offset)
	}
	after.at, after.mode = after.n+1, failBefore
	if _, _, err := open(dir, Options{Stream: "test"}, after); !errors.Is(err, errInjected) {
		t.Errorf("a failing fsync: %v", err)
	}
}

// A new segment may be visible although making it failed. Nothing may then be
// appended to the old one, since the new header would make it void.
func TestSealFailsAfterRename(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	d := newFaultDisk()
	j, _, err := open(dir, Options{Stream: "test"}, d)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	mustWrite(t, j, recs(0, 2), true)
	d.at = d.n + 5 // create, write, fsync, rename, syncdir
	if err := j.Seal(); !errors.Is(err, errInjected) || d.log[d.at-1] != "syncdir" {
		t.Fatalf("%v of %s", err, d.log[d.at-1])
	}
	mustWrite(t, j, recs(2, 2), true)
	wantRecords(t, dir, recs(0, 4))
	if err := j.Reopen(); err != nil { // it works: nothing to do
		t.Error(err)
	}
	if p := j.Position(); p.Segment != 2 {
		t.Errorf("%+v", p)
	}
}

// lateFile shows an early state of a file to the first reads.
type lateFile struct {
	early, late []byte
	reads       int // of the early state
}

func (f *lateFile) ReadAt(b []byte, off int64) (int, error) {
	content := f.late
	if f.reads > 0 {
		f.reads--
		content = f.early
	}
	return io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content))).ReadAt(b, off)
}

// A reader may see half a batch of a live writer, and a moment later the next
// one whole. That is no damage.
func TestReaderOvertaken(t *testing.T) {
	t.Parallel()
	_, ends, content := damaged(t)
	for cut := ends[1]; cut < ends[2]; cut++ {
		early := slices.Concat(content[:cut], make([]byte, len(content)-int(cut)))
		s := &scanner{r: &lateFile{early: early, late: content, reads: 1}}
		if err := s.start("file", 1); err != nil {
			t.Fatal(err)
		}
		if err := s.next(); err != nil {
			t.Fatal(err)
		}
		for s.head.Next < 8 {
			err := s.next()
			if errors.Is(err, errStop) {
				_, err = s.settle()
			}
			if err != nil && !errors.Is(err, errRetry) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
	}
}

// An error of the disk while reading is reported as such; it is not the end.
func TestReadError(t *testing.T) {
	t.Parallel()
	dir, _, _ := damaged(t)
	if err := os.Mkdir(segFile(dir, 2), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		func() error { _, err := Verify(dir); return err }(),
		func() error { _, _, err := Open(dir, Options{Stream: "test"}); return err }(),
	} {
		if err == nil || errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	}
	stop := errors.New("stop")
	if err := os.Remove(segFile(dir, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, 3, func(r Record) error {
		if r.Index != 3 || !r.Last {
			t.Errorf("%+v", r)
		}
		return stop
	}); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// Writes go on while Sync runs. It vouches for what came before it, and for
// nothing when a write fails meanwhile.
func TestWriteDuringSync(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		dir := scratch(t)
		d := newFaultDisk()
		j, _, err := open(dir, Options{Stream: "test"}, d)
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, j, recs(0, 2), false)
		d.duringSync = func() {
			mustWrite(t, j, recs(2, 2), false)
			if !fails {
				return
			}
			d.at = d.n + 1
			if _, err := j.Write(recs(90, 2), false); !errors.Is(err, errInjected) {
				t.Error(err)
			}
		}
		if err := j.Sync(); errors.Is(err, errInjected) != fails {
			t.Errorf("fails %v: %v", fails, err)
		}
		if want := map[bool]uint64{false: 2, true: 0}[fails]; j.Synced().Next != want {
			t.Errorf("fails %v: synced %d, want %d", fails, j.Synced().Next, want)
		}
		d.at = d.n + 1 // and now the descriptor is lost: what Sync did not cover is carried over
		if _, err := j.Write(recs(95, 1), true); !fails && !errors.Is(err, errInjected) {
			t.Error(err)
		}
		mustWrite(t, j, recs(4, 2), true)
		wantRecords(t, dir, recs(0, 6))
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}
