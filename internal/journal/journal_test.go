package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rec is a record that names itself, padded so that sizes vary.
func rec(i int) []byte {
	return fmt.Appendf(nil, `{"i":%d,"pad":%q}`, i, strings.Repeat("x", i*37%91))
}

func recs(from, n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = rec(from + i)
	}
	return out
}

func mustOpen(t testing.TB, dir string, o Options) (*Journal, Recovery) {
	t.Helper()
	if o.Stream == "" {
		o.Stream = "test"
	}
	j, r, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, r
}

func mustWrite(t testing.TB, j *Journal, records [][]byte, sync bool) Position {
	t.Helper()
	pos, err := j.Write(records, sync)
	if err != nil {
		t.Fatal(err)
	}
	return pos
}

// readAll reads everything and checks that the indices have no gap.
func readAll(dir string) (out [][]byte, pos Position, err error) {
	pos, err = Read(dir, 0, func(r Record) error {
		if r.Index != uint64(len(out)) {
			return fmt.Errorf("index %d, want %d", r.Index, len(out))
		}
		out = append(out, bytes.Clone(r.Data))
		return nil
	})
	if err == nil && pos.Next != uint64(len(out)) {
		err = fmt.Errorf("position %d after %d records", pos.Next, len(out))
	}
	return out, pos, err
}

func wantRecords(t testing.TB, dir string, want [][]byte) {
	t.Helper()
	got, _, err := readAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Fatalf("read %d records, want %d\n got %s\nwant %s", len(got), len(want), got, want)
	}
}

func segFile(dir string, n uint64) string { return segmentPath(dir, n) }

func TestFormat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, r := mustOpen(t, dir, Options{Stream: "ledger", Meta: func(first uint64, _ Chain) (json.RawMessage, error) {
		return fmt.Appendf(nil, `{"key":"<k1>","at":%d}`, first), nil
	}})
	if !r.Created || r.Next != 0 {
		t.Errorf("recovery %+v", r)
	}
	mustWrite(t, j, [][]byte{[]byte(`{"a":1}`), []byte(`{"b":"<ü>"}`)}, true)
	mustWrite(t, j, [][]byte{[]byte(`{}`)}, false)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(segFile(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/format.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("format changed:\n%s", got)
	}
	for _, line := range bytes.Split(bytes.TrimSpace(got), []byte{'\n'}) {
		if !json.Valid(line) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if info, _ := os.Stat(segFile(dir, 1)); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := Options{SegmentBytes: 700, Preallocate: 4096}
	j, _ := mustOpen(t, dir, o)
	var want [][]byte
	for i := range 30 {
		b := recs(len(want), 1+i%3)
		want = append(want, b...)
		pos := mustWrite(t, j, b, i%2 == 0)
		if pos != j.Position() || pos.Next != uint64(len(want)) {
			t.Fatalf("position %+v, journal %+v", pos, j.Position())
		}
		wantRecords(t, dir, want) // beside the live writer, in preallocated space
		if i%10 == 9 {
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			var r Recovery
			if j, r = mustOpen(t, dir, o); r.Position != pos && r.Next != pos.Next || r.Cut.Bytes != 0 {
				t.Fatalf("recovery %+v, want %+v", r, pos)
			}
		}
	}
	if err := j.Seal(); err != nil {
		t.Fatal(err)
	}
	if err := j.Seal(); err != nil { // of an empty segment: nothing
		t.Fatal(err)
	}
	segments, err := Segments(dir)
	if err != nil || len(segments) < 4 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	if last := segments[len(segments)-1]; last.First != uint64(len(want)) || last.Prev != j.Position().Chain {
		t.Errorf("sealed: %+v", last)
	}
	for _, from := range []uint64{0, 1, segments[1].First, segments[2].First + 1, uint64(len(want)), 1000} {
		var got [][]byte
		pos, err := Read(dir, from, func(r Record) error { got = append(got, bytes.Clone(r.Data)); return nil })
		if err != nil || pos.Next != uint64(len(want)) || !slices.EqualFunc(got, want[min(int(from), len(want)):], bytes.Equal) {
			t.Errorf("from %d: %d records, %+v, %v", from, len(got), pos, err)
		}
	}
	// Retention removes leading segments; a hole in the middle is an error.
	if err := os.Remove(segFile(dir, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir); err != nil {
		t.Error(err)
	}
	if _, err := Read(dir, 0, func(Record) error { return nil }); !errors.Is(err, ErrRemoved) {
		t.Errorf("removed: %v", err)
	}
	if err := os.Remove(segFile(dir, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("gap: %v", err)
	}
	if _, _, err := Open(dir, Options{Stream: "test"}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("gap: %v", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := mustOpen(t, dir, Options{})
	for name, r := range map[string][]byte{
		"empty": nil, "array": []byte(`[1]`), "newline": []byte("{\n}"), "zero byte": []byte("{\x00}"),
		"unclosed": []byte(`{"a":1`), "huge": []byte(`{"a":"` + strings.Repeat("x", MaxRecord) + `"}`),
	} {
		if _, err := j.Write([][]byte{rec(0), r}, true); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := j.Write(nil, true); !errors.Is(err, ErrRecord) {
		t.Errorf("no records: %v", err)
	}
	if j.Position().Next != 0 {
		t.Error("something was written")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Write(recs(0, 1), true); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := j.Close(); err != nil { // again
		t.Error(err)
	}
	for _, err := range []error{j.Sync(), j.Seal(), j.Reopen()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	}
	if _, _, err := Open(dir, Options{Stream: "other"}); !errors.Is(err, ErrForeign) {
		t.Errorf("other stream: %v", err)
	}
	if _, _, err := Open(dir, Options{}); err == nil {
		t.Error("no stream was accepted")
	}
	future := appendLine(nil, kindHeader, []byte(`{"format":2,"new":1}`), checksum([]byte(`{"format":2,"new":1}`)))
	if err := os.WriteFile(segFile(dir, 2), future, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(dir, Options{Stream: "test"}); !errors.Is(err, ErrForeign) {
		t.Errorf("future format: %v", err)
	}
}

// damaged writes four batches of two records, synced, and returns the folder,
// the ends of the batches and the file's content.
func damaged(t *testing.T) (dir string, ends []int64, content []byte) {
	t.Helper()
	dir = scratch(t)
	j, r := mustOpen(t, dir, Options{})
	ends = []int64{r.Offset}
	for i := range 4 {
		ends = append(ends, mustWrite(t, j, recs(2*i, 2), true).Offset)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(segFile(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	return dir, ends, content
}

// Every byte of a journal, flipped: before the last batch it is an error, in
// the last batch it is a torn tail, and never is there anything wrong to read.
func TestEveryByteFlipped(t *testing.T) {
	t.Parallel()
	dir, ends, content := damaged(t)
	for at := range content {
		for _, mask := range []byte{0x01, 0x20, 0xff} {
			bad := bytes.Clone(content)
			bad[at] ^= mask
			if err := os.WriteFile(segFile(dir, 1), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			got, _, err := readAll(dir)
			if int64(at) < ends[3] {
				var c *CorruptError
				if !errors.Is(err, ErrCorrupt) || !errors.As(err, &c) || c.Offset > int64(at) {
					t.Fatalf("byte %d: %v", at, err)
				}
				if _, _, err = Open(dir, Options{Stream: "test"}); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("byte %d: open: %v", at, err)
				}
				continue
			}
			if err != nil || !slices.EqualFunc(got, recs(0, 6), bytes.Equal) {
				t.Fatalf("byte %d: %s, %v", at, got, err)
			}
		}
	}
}

// A segment cut at every length keeps its complete batches, reports the rest and
// can be written again.
func TestEveryTornTail(t *testing.T) {
	t.Parallel()
	dir, ends, content := damaged(t)
	for size := ends[0]; size < int64(len(content)); size++ {
		for _, zeros := range []int{0, 1, 5000} {
			torn := append(bytes.Clone(content[:size]), make([]byte, zeros)...)
			if err := os.WriteFile(segFile(dir, 1), torn, 0o600); err != nil {
				t.Fatal(err)
			}
			whole := 0
			for whole+1 < len(ends) && ends[whole+1] <= size {
				whole++
			}
			wantRecords(t, dir, recs(0, 2*whole))
			j, r, err := open(dir, Options{Stream: "test"}, newFaultDisk())
			if err != nil {
				t.Fatal(err)
			}
			if r.Next != uint64(2*whole) || r.Cut.Bytes != size-ends[whole] {
				t.Fatalf("size %d: %+v", size, r)
			}
			mustWrite(t, j, recs(100, 1), true)
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			wantRecords(t, dir, append(recs(0, 2*whole), rec(100)))
		}
	}
}

func TestCrashWhileCreatingSegment(t *testing.T) {
	t.Parallel()
	dir, _, _ := damaged(t)
	for _, rest := range []string{"", "{", strings.Repeat("\x00", 4096), `{"c":"00000000","h":{}}` + "\n"} {
		if err := os.WriteFile(segFile(dir, 2), []byte(rest), 0o600); err != nil {
			t.Fatal(err)
		}
		temp := filepath.Join(dir, "00000003.jsonl.tmp")
		if err := os.WriteFile(temp, []byte(rest), 0o600); err != nil {
			t.Fatal(err)
		}
		wantRecords(t, dir, recs(0, 8))
		j, r := mustOpen(t, dir, Options{})
		if r.Removed != 1 || r.Next != 8 || r.Segment != 1 {
			t.Errorf("%q: %+v", rest, r)
		}
		if _, err := os.Stat(temp); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left over: %v", err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// A first segment alone starts anew, any other has lost its past.
	for name, want := range map[string]error{segmentName(1): nil, segmentName(7): ErrCorrupt} {
		lone := t.TempDir()
		if err := os.WriteFile(filepath.Join(lone, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		j, r, err := Open(lone, Options{Stream: "test"})
		if !errors.Is(err, want) || (err == nil && (!r.Created || r.Removed != 1)) {
			t.Errorf("%s: %+v %v", name, r, err)
		}
		if j != nil {
			_ = j.Close()
		}
	}
}

// Two histories, each whole by itself, do not join.
func TestForeignTail(t *testing.T) {
	t.Parallel()
	dir, ends, content := damaged(t)
	swapped := slices.Concat(content[:ends[1]], content[ends[2]:])
	if err := os.WriteFile(segFile(dir, 1), swapped, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("batch removed: %v", err)
	}
	if err := os.WriteFile(segFile(dir, 1), content[:ends[3]], 0o600); err != nil {
		t.Fatal(err)
	}
	h := Header{Format: 1, Stream: "test", Segment: 2, First: 8, Prev: Chain{1}}
	line, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segFile(dir, 2), line, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("segment ahead of its predecessor: %v", err)
	}
}
