package trail

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/journal"
)

// disk hangs at a point of a sink's work until it is let go.
type disk struct {
	mu   sync.Mutex
	gate map[string]chan struct{} // by folder of a stream and point
}

func (d *disk) at(dir, point string) {
	d.mu.Lock()
	gate := d.gate[dir+" "+point]
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (d *disk) hang(dir, point string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate == nil {
		d.gate = map[string]chan struct{}{}
	}
	d.gate[dir+" "+point] = make(chan struct{})
}

func (d *disk) letGo() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, gate := range d.gate {
		close(gate)
	}
	d.gate = nil
}

// gaps is how many lines a folder's stream says it lacks, and how often.
func gaps(t *testing.T, dir, name string) (lines int64, times int) {
	t.Helper()
	found, err := Search(t.Context(), dir, Query{Stream: name, Action: string(audit.TrailGap), Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		lines += f.Count
	}
	return lines, len(found)
}

// A30: a sink that hangs holds up nobody longer than its deadline, then nobody
// at all; it comes back in a segment of its own and says what it lacks.
func TestHangingSink(t *testing.T) { // alone, since it counts goroutines
	one, two := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		c := config(one, two)
		c.at = d.at
		c.SegmentBytes = 1 << 20
		tr := openWith(t, c)
		for i := range 10 {
			record(t, tr, i, i%2 == 0)
		}
		d.hang(filepath.Join(two, Use), "written")
		before, start := runtime.NumGoroutine(), time.Now()
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() { record(t, tr, 10+i, i%2 == 0) })
		}
		wg.Wait()
		if took := time.Since(start); took < tr.SinkDeadline || took > 3*time.Second {
			t.Errorf("the first lines waited %v", took)
		}
		if err := tr.Health(); err == nil || !strings.Contains(err.Error(), "no answer within 2s") || strings.Contains(err.Error(), one) {
			t.Errorf("health: %v", err)
		}
		start = time.Now()
		for i := range 100 {
			record(t, tr, 74+i, true)
		}
		effects(t, tr, event(1), event(2))
		synctest.Wait()
		if took := time.Since(start); took > 0 {
			t.Errorf("with the breaker open, lines waited %v", took)
		}
		if n := runtime.NumGoroutine(); n > before+1 { // the loop of the sink may have one more
			t.Errorf("%d goroutines, before the hang %d", n, before)
		}
		// Nobody waits for the disk at these either.
		if tr.Position() != 174 || tr.Checkpoint(t.Context()) != nil || time.Since(start) > 0 {
			t.Errorf("position %d after %v", tr.Position(), time.Since(start))
		}
		d.letGo()
		<-time.After(2 * time.Minute) // of the bubble: longer than the longest pause
		if err := tr.Health(); err != nil {
			t.Errorf("it is back: %v", err)
		}
		record(t, tr, 174, true)
		shut(t, tr)
		if segments, err := journal.Segments(filepath.Join(two, Use)); err != nil || len(segments) != 2 {
			t.Errorf("%d segments in the sink that was away, %v", len(segments), err)
		}
	})
	if got := ids(t, one, Use); len(got) != 175 {
		t.Errorf("%d lines in the first sink", len(got))
	}
	// The 64 lines that were given up were written after all; they are counted
	// as possibly missing, and the 100 after them are.
	if n, times := gaps(t, two, Use); n < 100 || n > 164 || times != 1 || len(ids(t, two, Use)) != 75+1 {
		t.Errorf("%d lines are told to be missing, %d times; %d are there", n, times, len(ids(t, two, Use)))
	}
	if n, times := gaps(t, two, Act); n != 2 || times != 1 {
		t.Errorf("%d effects are told to be missing, %d times", n, times)
	}
	for _, dir := range []string{one, two} {
		if r := verify(t, dir); !r.OK() {
			t.Errorf("%s: %q", dir, r.Problems)
		}
	}
}

// The first sink is left out like the second.
func TestHangingFirstSink(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		c := config(one, two)
		c.at = d.at
		tr := openWith(t, c)
		d.hang(filepath.Join(one, Act), "written")
		for i := range 20 {
			effects(t, tr, event(i))
			record(t, tr, i, true)
		}
		d.letGo()
		<-time.After(2 * time.Minute)
		shut(t, tr)
	})
	for name, most := range map[string]int64{Use: 20, Act: 20} {
		if n, times := gaps(t, one, name); n < 19 || n > most || times != 1 || len(ids(t, two, name)) != 20 {
			t.Errorf("%s: %d lines are told to be missing, %d times", name, n, times)
		}
	}
}

// When no sink answers, nothing is granted: 503 within three seconds, then at
// once, with a way on. Closing does not hang either.
func TestNoSinkAnswers(t *testing.T) {
	t.Parallel()
	for _, second := range []bool{false, true} {
		one, two := t.TempDir(), ""
		if second {
			two = t.TempDir()
		}
		synctest.Test(t, func(t *testing.T) {
			var d disk
			c := config(one, two)
			c.at = d.at
			tr := openWith(t, c)
			record(t, tr, 0, true)
			for _, dir := range []string{one, two} {
				for _, name := range []string{Use, Act} {
					d.hang(filepath.Join(dir, name), "written")
				}
			}
			start := time.Now()
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					err := tr.Record(t.Context(), event(1+i), i%2 == 0)
					f := fault.Of(err)
					if f.Kind != fault.Unavailable || f.Code != "audit_unavailable" || f.RetryAfter == 0 || f.Fix == "" {
						t.Errorf("%+v", f)
					}
				})
			}
			wg.Wait()
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("503 after %v", took)
			}
			start = time.Now()
			if err := tr.Effects(t.Context(), []audit.Event{event(1)}); fault.KindOf(err) != fault.Unavailable || time.Since(start) > 0 {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			if tr.Health() == nil {
				t.Error("healthy")
			}
			<-time.After(5 * time.Second) // it tries to bring them back, and hangs at that
			start = time.Now()
			if err := tr.Close(); err == nil || time.Since(start) > (patience+1)*tr.SinkDeadline {
				t.Errorf("closed after %v: %v", time.Since(start), err)
			}
			d.letGo()
		})
		if r := verify(t, one); !r.OK() {
			t.Errorf("%q", r.Problems)
		}
	}
}

// An effect that was refused is not counted as missing: it is sent again. What
// the disk has written after all is then left out.
func TestRefusedEffects(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		c := config(one, two)
		c.at = d.at
		tr := openWith(t, c)
		d.hang(filepath.Join(one, Act), "written")
		d.hang(filepath.Join(two, Act), "written")
		for i := range 5 {
			err := tr.Effects(t.Context(), []audit.Event{event(2 * i), event(2*i + 1)})
			if fault.KindOf(err) != fault.Unavailable {
				t.Error(err)
			}
		}
		d.letGo()
		<-time.After(2 * time.Minute)
		for i := range 5 {
			effects(t, tr, event(2*i), event(2*i+1))
		}
		shut(t, tr)
	})
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprintf("evt_%d", i))
	}
	for _, dir := range []string{one, two} {
		if got := ids(t, dir, Act); !slices.Equal(got, want) {
			t.Errorf("%s has %q", dir, got)
		}
	}
}

// An fsync that does not end takes the sink out of use, although the kernel
// still accepts lines; and it does not stop the clock that others wait by.
func TestFsyncHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var d disk
		c := config(dir, "")
		c.at = d.at
		tr := openWith(t, c)
		d.hang(filepath.Join(dir, Use), "sync")
		record(t, tr, 0, false)
		<-time.After(2500 * time.Millisecond)
		record(t, tr, 1, false) // the checkpoint has been hanging for less than the deadline
		<-time.After(3 * time.Second)
		if err := tr.Record(t.Context(), event(2), false); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("an fsync has been hanging for 5 seconds: %v", err)
		}
		<-time.After(time.Hour)
		d.letGo()
		<-time.After(time.Minute)
		record(t, tr, 3, false)
		if err := tr.Health(); err != nil {
			t.Error(err)
		}
		shut(t, tr)
	})
	if got := ids(t, dir, Use); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

// A process that was stopped and goes on does not take its own absence for the
// disk's.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := openWith(t, config(dir, ""))
		tr.soon.Load().cancel() // as after a SIGSTOP: it is over, and nobody has renewed it
		record(t, tr, 0, false)
		// Otherwise a line has its whole deadline, whenever it comes.
		for range 100 {
			<-time.After(77 * time.Millisecond)
			end, _ := tr.within().Deadline()
			if left := time.Until(end); left < tr.SinkDeadline || left > tr.SinkDeadline+time.Second {
				t.Fatalf("a line has %v", left)
			}
		}
		shut(t, tr)
	})
}

// R2.3: two sinks; a disk that vanishes under one of them fails its writes. When
// an empty one is in its place, the sink goes on there.
func TestSecondSink(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	synctest.Test(t, func(t *testing.T) {
		tr := openWith(t, config(one, two))
		for i := range 10 {
			record(t, tr, i, true)
		}
		if err := os.RemoveAll(two); err != nil {
			t.Fatal(err)
		}
		for i := range 200 { // over the ends of segments
			record(t, tr, 10+i, true)
			effects(t, tr, event(10+i))
		}
		if tr.Health() == nil {
			t.Error("a sink without a folder is called healthy")
		}
		for _, name := range []string{Use, Act} {
			if err := os.MkdirAll(filepath.Join(two, name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(2 * time.Minute)
		if err := tr.Health(); err != nil {
			t.Error(err)
		}
		record(t, tr, 210, true)
		shut(t, tr)
	})
	if n, times := gaps(t, two, Use); n < 100 || times != 1 {
		t.Errorf("%d lines are told to be missing, %d times", n, times)
	}
	for _, dir := range []string{one, two} {
		if r := verify(t, dir); !r.OK() || r.Streams[0].Unsigned != 0 {
			t.Errorf("%s: %+v", dir, r)
		}
	}
	if r := verify(t, one); r.Streams[0].Lines != 211 {
		t.Errorf("%+v", r)
	}
}

// A second sink that cannot be opened does not keep the server from starting,
// and joins when it can be; the first one has to be there.
func TestSinkThatDoesNotOpen(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(two, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := config(one, two)
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		tr := openWith(t, c)
		for i := range 10 {
			record(t, tr, i, true)
		}
		if tr.Health() == nil {
			t.Error("healthy without a second sink")
		}
		if err := os.Remove(two); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Second)
		record(t, tr, 10, true)
		if err := tr.Health(); err != nil {
			t.Error(err)
		}
		shut(t, tr)
		for _, want := range []string{"the sink is down", "the sink is back"} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("%q is not logged once: %s", want, &log)
			}
		}
		if n, _ := gaps(t, two, Use); n != 10 {
			t.Errorf("%d lines are told to be missing", n)
		}
	})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(config(file, one)); err == nil {
		t.Error("opened without a first sink")
	}
	if _, err := Open(config(one, one+"/")); fault.CodeOf(err) != "audit_same" {
		t.Errorf("twice the same folder: %v", err)
	}
}

// A sink that fails again and again is left out for longer and longer.
func TestPauseGrows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := openWith(t, config(dir, ""))
		s := tr.sinks[0]
		down := func() time.Duration {
			start := time.Now()
			for range 64 { // the many that wait at the same time are one failure
				s.fail(fmt.Errorf("made up"))
			}
			for !s.up.Load() {
				<-time.After(time.Second)
			}
			return time.Since(start)
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			if got := down(); got < want*time.Second || got > (want+1)*time.Second {
				t.Errorf("down for %v, want %d s", got, want)
			}
		}
		<-time.After(lastPause)
		if got := down(); got > 2*time.Second {
			t.Errorf("after a good minute, down for %v", got)
		}
		shut(t, tr)
	})
}
