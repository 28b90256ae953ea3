package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
)

// Follow sees what another process writes, over the ends of segments.
func TestFollow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := open(t, dir, "")
	defer shut(t, tr)
	record(t, tr, 0, false)
	record(t, tr, 1, false)
	const lines = 200
	seen, next := make(chan struct{}), uint64(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Follow(ctx, dir, map[string]uint64{Use: 1}, func(f Found) error {
			if f.Index != next || f.ID != fmt.Sprintf("evt_%d", f.Index) {
				return fmt.Errorf("line %d is %s, wanted %d", f.Index, f.ID, next)
			}
			if next++; next == lines {
				cancel()
			}
			if f.Index == 1 {
				close(seen)
			}
			return nil
		})
	}()
	select {
	case <-seen: // the rest is written behind its back
	case err := <-ended:
		t.Fatal(err)
	}
	for i := 2; i < lines; i++ {
		record(t, tr, i, i%7 == 0)
	}
	if err := <-ended; err != nil || next != lines {
		t.Errorf("%d lines, %v", next, err)
	}
	boom := errors.New("enough")
	if err := Follow(t.Context(), dir, map[string]uint64{Use: 0}, func(Found) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	if err := Follow(t.Context(), t.TempDir(), map[string]uint64{Use: 0}, func(Found) error { return nil }); err == nil {
		t.Error("followed nothing")
	}
}

// Both streams come as one, by time, also where one has nothing.
func TestFollowBoth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := open(t, dir, "")
	defer shut(t, tr)
	at := time.Now()
	for i := range 40 {
		e := event(i)
		e.At = at.Add(time.Duration(i) * time.Second)
		if i%3 == 0 {
			effects(t, tr, e)
		} else if err := tr.Record(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
	}
	boom := errors.New("enough")
	for _, from := range []map[string]uint64{{Use: 0, Act: 0}, {Use: 26, Act: 0}, {Use: 0, Act: 14}} {
		var got, want []string
		for i := range 40 {
			if i%3 == 0 && from[Act] == 0 || i%3 != 0 && from[Use] == 0 {
				want = append(want, fmt.Sprintf("evt_%d", i))
			}
		}
		err := Follow(t.Context(), dir, from, func(f Found) error {
			if got = append(got, f.ID); len(got) == len(want) {
				return boom
			}
			return nil
		})
		if !errors.Is(err, boom) || !slices.Equal(got, want) {
			t.Errorf("%v: %q, %v", from, got, err)
		}
	}
	err := Follow(t.Context(), filepath.Join(dir, "none"), map[string]uint64{Use: 0, Act: 0}, func(Found) error { return nil })
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// looker calls a follower as Follow does and keeps what it gives.
type looker struct {
	*follower
	t   *testing.T
	got []uint64
	err error
}

func (l *looker) look() {
	l.news(func(f Found, err error) bool {
		l.err = err
		if err == nil {
			if f.ID != fmt.Sprintf("evt_%d", f.Index) {
				l.t.Errorf("line %d is %s", f.Index, f.ID)
			}
			l.got = append(l.got, f.Index)
		}
		return err == nil
	})
}

func (l *looker) want(n uint64) {
	l.t.Helper()
	for i, index := range l.got {
		if index != uint64(i) {
			l.t.Fatalf("line %d follows line %d", index, i-1)
		}
	}
	if l.err != nil || uint64(len(l.got)) != n {
		l.t.Fatalf("%d lines, want %d; %v", len(l.got), n, l.err)
	}
}

func newLooker(t *testing.T, dir string) *looker {
	return &looker{follower: &follower{name: Use, dir: filepath.Join(dir, Use)}, t: t}
}

// What was read is not read again: damage there no longer matters. Behind it
// lie zeros, which are not read either.
func TestFollowGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := config(dir, "")
	c.SegmentBytes, c.Preallocate = 0, 1<<20
	tr := openWith(t, c)
	l := newLooker(t, dir)
	l.look()
	l.want(0)
	n := 0
	for round := range 20 {
		for range round {
			record(t, tr, n, n%2 == 0)
			n++
		}
		l.look()
		l.look()
		l.want(uint64(n))
		if round == 10 {
			f, err := os.OpenFile(l.segment(1), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(bytes.Repeat([]byte{'x'}, 3000), 1000); err != nil || f.Close() != nil {
				t.Fatal(err)
			}
		}
	}
	_ = tr.Close()
	again := newLooker(t, dir)
	again.look()
	if again.err == nil {
		t.Error("the damage is none: this test shows nothing")
	}
}

// However much of a batch is there, it is given whole, once; then the next one.
// What a crash leaves is not given, and what is written in its place is.
func TestFollowTornTail(t *testing.T) {
	t.Parallel()
	full := t.TempDir()
	c := config(full, "")
	c.SegmentBytes = 0
	tr := openWith(t, c)
	for i := range 3 {
		record(t, tr, i, true)
	}
	from := tr.sinks[0].stream(Use).journal.Position().Offset
	if err := tr.both(Use, 2, func(s *sink) error {
		return s.write(tr.within(), Use, [][]byte{event(3).Encode(), event(4).Encode()}, true)
	}); err != nil {
		t.Fatal(err)
	}
	to := tr.sinks[0].stream(Use).journal.Position().Offset
	shut(t, tr)
	data, err := os.ReadFile(filepath.Join(full, Use, "00000001.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for cut := from; cut < to; cut += 7 {
		for _, zeros := range []int{0, 100_000} {
			dir := t.TempDir()
			l := newLooker(t, dir)
			file := l.segment(1)
			put := func(size int64) {
				t.Helper()
				if err := os.WriteFile(file, append(bytes.Clone(data[:size]), make([]byte, zeros)...), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(l.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			put(from)
			l.look()
			l.want(3)
			put(cut)
			l.look()
			l.want(3)
			if cut%3 == 0 { // the writer died; another one goes on
				tr := open(t, dir, "")
				record(t, tr, 3, true)
				l.look()
				l.want(4)
				shut(t, tr)
				continue
			}
			put(to)
			l.look()
			l.want(5)
		}
	}
}

// The end of a server, its next start and its next segment change nothing.
func TestFollowOverSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := 0
	var l *looker
	for round := range 12 {
		tr := open(t, dir, "")
		if l == nil {
			l = newLooker(t, dir)
		}
		for range 15 * round {
			record(t, tr, n, n%5 == 0)
			n++
		}
		if round%3 == 1 { // a new segment, as after an outage
			if err := tr.sinks[0].stream(Use).restart(); err != nil {
				t.Fatal(err)
			}
		}
		if round%2 == 0 {
			l.look()
			l.want(uint64(n))
		}
		shut(t, tr)
	}
	l.look()
	l.want(uint64(n))
	if segments, err := journal.Segments(l.dir); err != nil || len(segments) < 5 {
		t.Errorf("%d segments, %v", len(segments), err)
	}
}

// A line that is damaged is told, a second later: until then it may be one
// that is being written. A torn end is none, and the journal is asked once.
func TestFollowTellsDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := config(dir, "")
		c.SegmentBytes = 0
		tr := openWith(t, c)
		for i := range 3 {
			record(t, tr, i, true)
		}
		l := newLooker(t, dir)
		l.look()
		l.want(3)
		for i := range 3 {
			record(t, tr, 3+i, true)
		}
		shut(t, tr)
		whole, err := os.ReadFile(l.segment(1))
		if err != nil {
			t.Fatal(err)
		}
		torn := whole[:len(whole)-5]
		l.write(torn)
		l.look()
		l.want(5)
		asked := 0
		for range 20 {
			<-time.After(pollEvery)
			before := l.known
			l.look()
			l.want(5)
			if l.known != before {
				asked++
			}
		}
		if asked != 1 {
			t.Errorf("the journal was asked %d times", asked)
		}
		l = newLooker(t, dir)
		l.write(whole[:l.end(whole, 3)])
		l.look()
		l.look()
		l.want(3)
		hole := append(append(slices.Clone(whole[:l.end(whole, 3)]), 0, 0, 0), whole[l.end(whole, 3)+3:]...)
		edited := bytes.Split(whole, []byte("\n"))
		edited[7] = relined(bytes.Replace(edited[7], []byte("usr_ann"), []byte("usr_bob"), 1)) // the fourth line, with a right checksum
		for _, damage := range [][]byte{bytes.Join(edited, []byte("\n")), []byte(strings.Replace(string(whole), `"evt_3"`, `"evt_9"`, 1)), hole} {
			l := &looker{follower: &follower{name: Use, dir: l.dir, pos: l.pos, known: l.known}, t: t}
			l.write(damage)
			l.look()
			l.want(0)
			<-time.After(askAfter)
			l.look()
			if !errors.Is(l.err, journal.ErrCorrupt) {
				t.Errorf("damage: %v", l.err)
			}
		}
	})
}

func (l *looker) write(data []byte) {
	if err := os.WriteFile(l.segment(1), data, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// end is where batch n of a segment of one-line batches ends.
func (l *looker) end(data []byte, n int) int {
	at := bytes.IndexByte(data, '\n') + 1
	for range 2 * n {
		at += bytes.IndexByte(data[at:], '\n') + 1
	}
	return at
}

// FuzzFollow: going on in the midst of a segment gives what the journal gives
// that reads all of it, whatever the bytes are; never more, and what is whole is
// not left out.
func FuzzFollow(f *testing.F) {
	dir := f.TempDir()
	c := config(dir, "")
	c.SegmentBytes, c.Preallocate = 0, 0
	tr := openWith(f, c)
	var starts []journal.Position
	for i := range 6 {
		starts = append(starts, tr.sinks[0].stream(Use).journal.Position())
		lines := [][]byte{event(i).Encode(), []byte(`{"x":"a \"b\":{ }"}`)}[:1+i%2]
		if err := tr.both(Use, 1, func(s *sink) error { return s.write(tr.within(), Use, lines, true) }); err != nil {
			f.Fatal(err)
		}
	}
	shut(f, tr)
	whole, err := os.ReadFile(filepath.Join(dir, Use, "00000001.jsonl"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint(0), uint(len(whole)), []byte(""))
	f.Add(uint(3), uint(900), []byte("\x00\x00\x00"))
	f.Add(uint(1), uint(700), []byte("\n{}\n"))
	f.Add(uint(2), uint(len(whole)-3), whole[300:900])
	f.Fuzz(func(t *testing.T, from, at uint, bytes []byte) {
		start := starts[from%uint(len(starts))]
		at = max(at%uint(len(whole)+1), uint(start.Offset)) // what was read before is as it was
		data := slices.Clone(whole)
		data = append(data[:at], append(slices.Clone(bytes), data[min(len(data), int(at)+len(bytes)):]...)...)
		l := newLooker(t, t.TempDir())
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l.write(data)
		var want, got []string
		_, errWant := journal.Read(l.dir, start.Next, func(r journal.Record) error {
			want = append(want, string(r.Data))
			return nil
		})
		file, err := os.Open(l.segment(1))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		l.pos = start
		_, err = l.batches(file, func(x Found, err error) bool {
			got = append(got, string(x.Encode()))
			return err == nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if e, err := audit.Decode([]byte(w)); err == nil {
				want[i] = string(e.Encode())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, the journal %q, %v", got, want, errWant)
		}
	})
}

// BenchmarkFollow is the price of one look when one line is new, in a segment of
// 50 000.
func BenchmarkFollow(b *testing.B) {
	dir := b.TempDir()
	c := config(dir, "")
	c.SegmentBytes, c.Preallocate = 0, 0
	tr := openWith(b, c)
	lines := make([][]byte, 500)
	for i := range lines {
		lines[i] = event(i).Encode()
	}
	for range 100 {
		if err := tr.both(Use, 500, func(s *sink) error { return s.write(tr.within(), Use, lines, false) }); err != nil {
			b.Fatal(err)
		}
	}
	f := &follower{name: Use, dir: filepath.Join(dir, Use)}
	n := 0
	count := func(_ Found, err error) bool { n++; return err == nil }
	f.news(count)
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		record(b, tr, 1, false)
		b.StartTimer()
		f.news(count)
	}
	b.StopTimer()
	if n != 50_000+b.N {
		b.Fatal(n)
	}
	shut(b, tr)
}
