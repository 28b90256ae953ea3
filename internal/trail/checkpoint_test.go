package trail

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// keptNotes are the sizes in the notes that a stream's folder keeps.
func keptNotes(t *testing.T, dir, name string) (sizes []uint64) {
	t.Helper()
	sign, err := newSigner(ring.Trail())
	if err != nil {
		t.Fatal(err)
	}
	err = readNotes(filepath.Join(dir, name, allFile), func(notes [][]byte) {
		for _, n := range notes {
			c, err := openNote(n, sign.verifier)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, c.Size)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

func newest(t *testing.T, dir, name string) checkpoint {
	t.Helper()
	sign, _ := newSigner(ring.Trail())
	msg, err := latest(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	c, err := openNote(msg, sign.verifier)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The newest checkpoint is at most a second old, in both sinks; kept is one a
// minute, and the last one when the server ends. A year of a line a second
// takes less than 0.2 GB per stream (it took 9).
func TestKeptCheckpoints(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	const minutes = 10
	synctest.Test(t, func(t *testing.T) {
		c := config(one, two)
		c.SegmentBytes = 0 // one segment
		tr := openWith(t, c)
		<-time.After(500 * time.Millisecond)
		for i := range uint64(60*minutes + 30) {
			record(t, tr, int(i), false)
			<-time.After(time.Second)
			synctest.Wait()
			for _, dir := range []string{one, two} {
				if got := newest(t, dir, Use).Size; got != i+1 {
					t.Fatalf("%s: %d lines are signed, %d were written", dir, got, i+1)
				}
			}
		}
		shut(t, tr)
	})
	for _, dir := range []string{one, two} {
		sizes := keptNotes(t, dir, Use)
		if len(sizes) != minutes+2 || sizes[len(sizes)-1] != 60*minutes+30 {
			t.Errorf("%s keeps %d", dir, sizes)
		}
		info, err := os.Stat(filepath.Join(dir, Use, allFile))
		if err != nil {
			t.Fatal(err)
		}
		each := info.Size() / int64(len(sizes))
		year := each * 365 * 24 * 60
		t.Logf("a note has %d bytes: %.2f GB a year, were each second's kept, and %.2f GB", each, float64(60*year)/1e9, float64(year)/1e9)
		if year > 200e6 {
			t.Errorf("%d bytes a year", year)
		}
		if r := verify(t, dir); !r.OK() || r.Streams[0].Unsigned != 0 || r.Streams[0].Checkpoints != len(sizes) {
			t.Errorf("%+v", r)
		}
	}
}

// What is idle is kept too, a minute later; and nothing is kept twice.
func TestIdleIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, dir, "")
		record(t, tr, 0, false)
		<-time.After(1500 * time.Millisecond)
		record(t, tr, 1, false)
		<-time.After(10 * time.Minute)
		synctest.Wait()
		if got := fmt.Sprint(keptNotes(t, dir, Use)); got != "[1 2]" {
			t.Errorf("kept: %s", got)
		}
		shut(t, tr)
	})
	if got := fmt.Sprint(keptNotes(t, dir, Use)); got != "[1 2]" {
		t.Errorf("kept: %s", got)
	}
}

// Each segment that ends has a checkpoint behind its end, within a second.
func TestSealedSegmentsAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, dir, "")
		s := tr.sinks[0].stream(Use)
		ends, segment := []uint64{}, uint64(1)
		for i := range 200 {
			if now := s.journal.Position().Segment; now != segment {
				segment = now
				<-time.After(time.Second)
				synctest.Wait()
				ends = append(ends, tr.Position())
			}
			record(t, tr, i, true)
		}
		kept := keptNotes(t, dir, Use)
		if len(ends) < 3 || len(kept) < len(ends) {
			t.Fatalf("%d segments ended, kept %d", len(ends), kept)
		}
		for _, end := range ends {
			if !slices.Contains(kept, end) {
				t.Errorf("nothing is kept at line %d: %d", end, kept)
			}
		}
		shut(t, tr)
	})
}

// A tail that was cut off shows against the newest checkpoint, although that one
// is not kept yet; and still after a restart and new lines, which replace it.
func TestCutTailIsNotForgotten(t *testing.T) {
	t.Parallel()
	dir, cut := t.TempDir(), t.TempDir()
	var outside []byte
	synctest.Test(t, func(t *testing.T) {
		c := config(dir, "")
		c.SegmentBytes = 0
		tr := openWith(t, c)
		<-time.After(500 * time.Millisecond)
		for i := range 30 {
			record(t, tr, i, true)
			<-time.After(time.Second)
		}
		synctest.Wait()
		if err := os.CopyFS(cut, os.DirFS(dir)); err != nil { // as a crash leaves it
			t.Fatal(err)
		}
		outside, _ = tr.Latest(Use)
		shut(t, tr)
	})
	if r := verify(t, cut, outside); !r.OK() || r.Streams[0].Lines != 30 {
		t.Fatalf("before the cut: %+v", r)
	}
	if kept := keptNotes(t, cut, Use); len(kept) != 1 {
		t.Fatalf("kept: %d", kept)
	}
	v := &vandal{t: t}
	file := filepath.Join(cut, Use, "00000001.jsonl")
	v.file(file, func(lines [][]byte) [][]byte { return lines[:1+2*20] }) // a header; each line is a batch
	missing := "10 lines are missing at the end: 30 were signed"
	if r := verify(t, cut); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], missing) {
		t.Errorf("against the newest: %q", r.Problems)
	}
	fill(t, cut, 3)
	if got := keptNotes(t, cut, Use); len(got) < 2 || got[1] != 30 {
		t.Errorf("what the newest checkpoint said is forgotten: %d", got)
	}
	if r := verify(t, cut); r.OK() {
		t.Error("after a restart the cut is forgotten")
	}
	if err := os.Remove(filepath.Join(cut, Use, allFile)); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, cut, outside); r.OK() || !strings.Contains(r.Problems[0], "7 lines are missing at the end: 30 were signed") {
		t.Errorf("against one that was kept elsewhere: %q", r.Problems)
	}
}

// A file in the place of the newest checkpoint that is none is not kept: it
// would make the others look forged.
func TestNonsenseIsNotKept(t *testing.T) {
	t.Parallel()
	for _, nonsense := range []string{"", "no note", "a\n--\nb\n\n— gradegate-trail AAAA\n"} {
		dir := t.TempDir()
		fill(t, dir, 3)
		if err := os.WriteFile(filepath.Join(dir, Use, latestFile), []byte(nonsense), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := verify(t, dir); r.OK() {
			t.Errorf("%q is a checkpoint", nonsense)
		}
		fill(t, dir, 3)
		all, err := os.ReadFile(filepath.Join(dir, Use, allFile))
		if err != nil || nonsense != "" && bytes.Contains(all, []byte(nonsense)) {
			t.Errorf("%q is kept, %v", nonsense, err)
		}
		if r := verify(t, dir); !r.OK() {
			t.Errorf("%q: %q", nonsense, r.Problems)
		}
	}
}

// An error of the file of kept ones is told, and made good when it is mended.
func TestKeepingFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := filepath.Join(dir, Use, allFile)
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, dir, "")
		if err := os.Mkdir(all, 0o700); err != nil { // a folder in its place
			t.Fatal(err)
		}
		record(t, tr, 0, false)
		<-time.After(3 * time.Second)
		if newest(t, dir, Use).Size != 1 || tr.Health() == nil {
			t.Errorf("signed %d, health %v", newest(t, dir, Use).Size, tr.Health())
		}
		if err := os.Remove(all); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		if got := fmt.Sprint(keptNotes(t, dir, Use)); got != "[1]" || tr.Health() != nil {
			t.Errorf("kept %s, health %v", got, tr.Health())
		}
		shut(t, tr)
	})
}
