package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/journal"
)

const day = 24 * time.Hour

// aged writes a trail of n days with a line a day in each stream, and more of
// them up to now, and gives its configuration, by whose clock the last day is now.
func aged(t testing.TB, n int, sinks ...string) Config {
	t.Helper()
	c := config(sinks[0], "")
	if len(sinks) > 1 {
		c.Second = sinks[1]
	}
	c.SegmentBytes, c.SinkDeadline = 3<<10, time.Minute
	c.KeepUses, c.KeepActs = 400*day, 2555*day
	now := birth.Add(time.Duration(n) * day)
	c.Now = func() time.Time { return now }
	tr := openWith(t, c)
	var batch []audit.Event
	for i := range n {
		e := event(i)
		e.At = birth.Add(time.Duration(i) * day)
		if i%40 == 7 {
			e.Actor, e.Token = "usr_held", "tok_held"
		}
		if batch = append(batch, e); len(batch) < 10 && i < n-1 {
			continue
		}
		effects(t, tr, batch...)
		uses(t, tr, batch)
		batch = batch[:0]
		if i%60 == 59 {
			if err := tr.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	shut(t, tr)
	return c
}

// uses writes lines of the use stream in one batch.
func uses(t testing.TB, tr *Trail, events []audit.Event) {
	t.Helper()
	var lines [][]byte
	for _, e := range events {
		lines = append(lines, e.Encode())
	}
	if err := tr.both(Use, len(lines), func(s *sink) error { return s.write(t.Context(), Use, lines, false) }); err != nil {
		t.Fatal(err)
	}
}

// scratch is a folder for tests that need no real disk, because they make
// many files.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "trail-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func trimmed(t testing.TB, tr *Trail, dry bool) []Trimmed {
	t.Helper()
	all, err := tr.Trim(t.Context(), "system", dry)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func lastNotes(t testing.TB, dir string) (notes [][]byte) {
	t.Helper()
	for _, name := range []string{Use, Act} {
		err := readNotes(filepath.Join(dir, name, allFile), func(some [][]byte) {
			for _, n := range some {
				notes = append(notes, bytes.Clone(n))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return notes
}

// R9.7, R9.6: whole segments whose lines are all older than 400 days go, from both sinks,
// with a signed record; what is left proves itself, goes on, and is trimmed again.
func TestTrim(t *testing.T) {
	t.Parallel()
	for _, compressed := range []bool{false, true} {
		one, two := scratch(t), scratch(t)
		c := aged(t, 600, one, two)
		if compressed {
			for _, dir := range []string{one, two} {
				tidied(t, filepath.Join(dir, Use))
				tidied(t, filepath.Join(dir, Act))
			}
		}
		kept := lastNotes(t, one)
		tr := openWith(t, c)
		dry := trimmed(t, tr, true)
		if got, err := tr.Trims(); err != nil || len(got) != 0 || verify(t, one).Streams[0].First != 0 {
			t.Fatalf("a dry run did something: %+v %v", got, err)
		}
		done := trimmed(t, tr, false)
		if len(done) != 4 || len(dry) != 4 {
			t.Fatalf("%+v", done)
		}
		for i, d := range done {
			if d.Note == "" && d.Stream == Use || d.Stream == Act && d.To != 0 {
				t.Errorf("%+v", d)
			}
			d.Note = ""
			if d != dry[i] {
				t.Errorf("the dry run said %+v, done was %+v", dry[i], d)
			}
			if d.Stream == Use && (d.To < 150 || d.To > 200 || !d.Latest.Equal(birth.Add(time.Duration(d.To-1)*day)) || !d.Earliest.Equal(birth) || d.Stopped != "it has lines that are not old enough") {
				t.Errorf("%+v", d)
			}
		}
		shut(t, tr)
		for _, dir := range []string{one, two} {
			r := verify(t, dir, kept...)
			if !r.OK() || r.Streams[0].First != done[0].To || r.Streams[0].First+r.Streams[0].Lines != 600 || r.Streams[0].Trims != 1 || r.Streams[1].First != 0 {
				t.Fatalf("%+v", r)
			}
			found, err := Search(t.Context(), dir, Query{Action: "trail.trim"})
			if err != nil || len(found) != 2 || found[0].Count != int64(done[0].To) || found[0].Reason != retention || found[0].Detail["to"] != fmt.Sprint(done[0].To-1) {
				t.Fatalf("%+v %v", found, err)
			}
		}
		// A hundred days later.
		now := birth.Add(700 * day)
		c.Now = func() time.Time { return now }
		tr = openWith(t, c)
		for i := range 100 {
			e := event(600 + i)
			e.At = birth.Add(time.Duration(600+i) * day)
			uses(t, tr, []audit.Event{e})
		}
		if err := tr.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		again := trimmed(t, tr, false)
		shut(t, tr)
		for _, a := range again {
			if a.Stream == Use && (a.From != done[0].To || a.To < 250 || a.To > 300 || a.Note == "") {
				t.Errorf("%+v", a)
			}
		}
		for _, dir := range []string{one, two} {
			if r := verify(t, dir, kept...); !r.OK() || r.Streams[0].First != again[0].To || r.Streams[0].Trims != 2 {
				t.Fatalf("%+v", r)
			}
			if all, err := Trims(dir); err != nil || len(all) != 2 || all[1].Note != again[0].Note && dir == one || all[1].To != again[0].To {
				t.Errorf("%+v %v", all, err)
			}
		}
	}
}

// held keeps lines of one user.
type held struct{ err error }

func (h held) Holding(context.Context) (func(*audit.Event) string, string, error) {
	return func(e *audit.Event) string {
		if e.Actor == "usr_held" {
			return "hold_1"
		}
		return ""
	}, "1", h.err
}

// holdMeanwhile is a hold that is made while the trail is read.
type holdMeanwhile struct{ asked int }

func (h *holdMeanwhile) Holding(context.Context) (func(*audit.Event) string, string, error) {
	h.asked++
	return nil, fmt.Sprint(h.asked), nil
}

// R9.7: nothing is dropped while a hold overlaps or cannot be asked for, while the clock
// is in doubt, when a sink is down, and what is not signed stays.
func TestTrimStops(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	c := aged(t, 600, dir)
	for what, x := range map[string]struct {
		change        func(*Config)
		code, stopped string
	}{
		"a hold":         {func(c *Config) { c.Holds = held{} }, "", "it is held: hold_1"},
		"no answer":      {func(c *Config) { c.Holds = held{errors.New("no database")} }, "internal", ""},
		"a leap ahead":   {func(c *Config) { c.Ahead = func() time.Duration { return 365 * day } }, "clock_in_doubt", ""},
		"no retention":   {func(c *Config) { c.KeepUses = 0 }, "trim_off", ""},
		"a sink is down": {func(c *Config) { c.Second = filepath.Join(dir, Use, latestFile) }, "sink_down", ""},
		"all is young":   {func(c *Config) { c.KeepUses = 600 * day }, "", "it has lines that are not old enough"},
	} {
		c := c
		x.change(&c)
		tr := openWith(t, c)
		for _, dry := range []bool{true, false} {
			all, err := tr.Trim(t.Context(), "system", dry)
			switch {
			case x.code == "" && err == nil:
				if len(all) != 2 || all[0].Stopped != x.stopped || all[0].To != 0 {
					t.Errorf("%s: %+v", what, all)
				}
			case err == nil || fault.CodeOf(err) != x.code:
				t.Errorf("%s: %v %s", what, err, fault.CodeOf(err))
			}
		}
		_ = tr.Close() // the sink that is down says so
		if r := verify(t, dir); !r.OK() || r.Streams[0].First != 0 {
			t.Fatalf("%s: %+v", what, r)
		}
	}
	c.Holds = &holdMeanwhile{}
	late := openWith(t, c)
	if all, err := late.Trim(t.Context(), "system", false); fault.CodeOf(err) != "holds_moved" || len(all) != 0 {
		t.Errorf("a hold that was made meanwhile: %+v %v", all, err)
	}
	shut(t, late)
	if r := verify(t, dir); !r.OK() || r.Streams[0].First != 0 {
		t.Fatalf("%+v", r)
	}
	// Up to the segment before the one with a line that is held.
	c.Holds = heldFrom{100}
	tr := openWith(t, c)
	all := trimmed(t, tr, false)
	shut(t, tr)
	if r := verify(t, dir); !r.OK() || all[0].To == 0 || all[0].To > 100 || r.Streams[0].First != all[0].To {
		t.Errorf("%+v %+v", all, r)
	}
}

// heldFrom keeps the line of a day.
type heldFrom struct{ day int }

func (h heldFrom) Holding(context.Context) (func(*audit.Event) string, string, error) {
	return func(e *audit.Event) string {
		if e.At.Equal(birth.Add(time.Duration(h.day) * day)) {
			return "hold_2"
		}
		return ""
	}, "1", nil
}

// Where little happens, the segment that is written to is ended after thirty days, so
// that its lines can go.
func TestOldSegmentIsEnded(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	c := aged(t, 20, dir)
	c.SegmentBytes = 1 << 20
	for day, want := range map[int]uint64{29: 0, 500: 21} {
		now := birth.AddDate(0, 0, day)
		c.Now = func() time.Time { return now }
		c.Dir = scratch(t)
		if err := os.CopyFS(c.Dir, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		tr := openWith(t, c)
		uses(t, tr, []audit.Event{{ID: "evt_x", At: now, Action: audit.Request, Outcome: audit.Allow}})
		if err := tr.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		trimmed(t, tr, false)
		if err := tr.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		now = birth.AddDate(0, 0, 2*day)
		all := trimmed(t, tr, false)
		shut(t, tr)
		if r := verify(t, c.Dir); !r.OK() || r.Streams[0].First != want {
			t.Errorf("day %d: %+v %+v", day, all, r)
		}
	}
}

// A trail that somebody has changed is not trimmed: its record would vouch for it.
func TestTrimOfTampered(t *testing.T) {
	t.Parallel()
	orig := scratch(t)
	c := aged(t, 600, orig)
	r := rand.New(rand.NewPCG(7, 8))
	for round := range 10 {
		dir := scratch(t)
		if err := os.CopyFS(dir, os.DirFS(orig)); err != nil {
			t.Fatal(err)
		}
		v := &vandal{Rand: r, t: t, dir: filepath.Join(dir, Use)}
		v.segments, _ = filepath.Glob(filepath.Join(v.dir, "*.jsonl"))
		at := r.IntN(150)
		v.remake(func(i int, line []byte) []byte {
			if i == at {
				return bytes.Replace(line, []byte(`"status":200`), []byte(`"status":401`), 1)
			}
			return line
		})
		c := c
		c.Dir = dir
		tr := openWith(t, c)
		if all, err := tr.Trim(t.Context(), "system", round%2 == 0); fault.CodeOf(err) != "audit_not_whole" {
			t.Errorf("line %d: %+v %v", at, all, err)
		}
		shut(t, tr)
		if segments, _ := journal.Segments(v.dir); len(segments) == 0 || segments[0].First != 0 {
			t.Error("segments are gone")
		}
	}
}

// R9.6: what is sealed is compressed within a minute or two, in both sinks, beside
// the writing; closing does not wait for the rest.
func TestSealedIsCompressed(t *testing.T) {
	t.Parallel()
	one, two := scratch(t), scratch(t)
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, one, two)
		for i := range 200 {
			record(t, tr, i, false)
			effects(t, tr, event(i))
		}
		<-time.After(3 * time.Minute)
		for _, dir := range []string{one, two} {
			for _, name := range []string{Use, Act} {
				segments, err := journal.Segments(filepath.Join(dir, name))
				if err != nil || len(segments) < 4 {
					t.Fatal(len(segments), err)
				}
				for i := range segments[:len(segments)-1] {
					if !segments[i].Compressed || readIndex(&segments[i], &segments[i+1]) == nil {
						t.Errorf("%s is there", segments[i].Path)
					}
				}
			}
		}
		for i := range 100 {
			record(t, tr, 200+i, false)
		}
		shut(t, tr)
	})
	for _, dir := range []string{one, two} {
		if r := verify(t, dir); !r.OK() || r.Streams[0].Lines != 300 {
			t.Errorf("%+v", r)
		}
		if got := ids(t, dir, Use); len(got) != 300 || got[299] != "evt_299" {
			t.Errorf("%d lines", len(got))
		}
	}
}

// A lost piece of a compressed segment is told with its lines, and everything behind
// it is proven all the same.
func TestDamagedCompressed(t *testing.T) {
	t.Parallel()
	orig := scratch(t)
	aged(t, 200, orig)
	tidied(t, filepath.Join(orig, Use))
	segments, err := journal.Segments(filepath.Join(orig, Use))
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range [][]int{{1}, {1, 3}} {
		dir := scratch(t)
		if err := os.CopyFS(dir, os.DirFS(orig)); err != nil {
			t.Fatal(err)
		}
		lostLines := uint64(0)
		var want []string
		for _, i := range damaged {
			path := filepath.Join(dir, Use, filepath.Base(segments[i].Path))
			data, _ := os.ReadFile(path)
			data[len(data)-40] ^= 1
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprintf("Stream use: the lines %d to %d cannot be read: in %s the compressed frame at byte", segments[i].First, segments[i+1].First-1, filepath.Base(path)))
			lostLines += segments[i+1].First - segments[i].First
		}
		r := verify(t, dir)
		if len(r.Problems) != len(want) || r.Streams[0].Lines != 200-lostLines || r.Streams[0].Unsigned != 0 {
			t.Fatalf("%+v", r)
		}
		for i := range want {
			if !strings.HasPrefix(r.Problems[i], want[i]) {
				t.Errorf("%s\nwant %s", r.Problems[i], want[i])
			}
		}
	}
}

// An index that would have a search pass over lines is found.
func TestIndexThatHides(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	aged(t, 200, dir)
	use := filepath.Join(dir, Use)
	tidied(t, use)
	if r := verify(t, dir); !r.OK() {
		t.Fatal(r.Problems)
	}
	segments, _ := journal.Segments(use)
	x := readIndex(&segments[1], &segments[2])
	x.Blocks[0].To = x.Blocks[0].From
	if err := writeIndex(&segments[1], x); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir); len(r.Problems) != 1 || !strings.HasPrefix(r.Problems[0], "Stream use: the index of 00000002.jsonl.zst says that line") {
		t.Errorf("%q", r.Problems)
	}
}

const trimKilledAt = "TRIM_KILLED_AT"

// Whenever the process is killed in a trim, the trail verifies, and the next one
// finishes it; the trail tells of it once.
func TestTrimKills(t *testing.T) {
	if at := os.Getenv(trimKilledAt); at != "" {
		words := strings.Split(at, "|")
		now, err := time.Parse(time.RFC3339Nano, words[2])
		if err != nil {
			t.Fatal(err)
		}
		c := config(words[0], "")
		c.SegmentBytes, c.SinkDeadline, c.KeepUses, c.KeepActs, c.Now = 3<<10, time.Minute, 400*day, 2555*day, func() time.Time { return now }
		c.at = func(_, point string) {
			if point == words[1] {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // the signal is on its way
			}
		}
		trimmed(t, openWith(t, c), false)
		t.Fatal("not killed")
	}
	t.Parallel()
	for _, point := range []string{"trim recorded", "trim told", "segment dropped"} {
		dir := scratch(t)
		c := aged(t, 600, dir)
		tidied(t, filepath.Join(dir, Use))
		child := exec.Command(os.Args[0], "-test.run=^TestTrimKills$")
		child.Env = append(os.Environ(), trimKilledAt+"="+strings.Join([]string{dir, point, c.Now().Format(time.RFC3339Nano)}, "|"))
		out, err := child.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: %v\n%s", point, err, out)
		}
		if r := verify(t, dir); !r.OK() || r.Streams[0].Trims != 1 {
			t.Errorf("%s: %+v", point, r)
		}
		n := 0
		c.NewID = func() string { n++; return fmt.Sprintf("evt_again%d", n) }
		tr := openWith(t, c)
		all := trimmed(t, tr, false)
		shut(t, tr)
		if r := verify(t, dir); !r.OK() || r.Streams[0].Trims != 1 || r.Streams[0].First < 150 || all[0].To != 0 {
			t.Errorf("%s: %+v %+v", point, r, all)
		}
		if found, err := Search(t.Context(), dir, Query{Action: "trail.trim"}); err != nil || len(found) != 1 {
			t.Errorf("%s: %+v %v", point, found, err)
		}
	}
}

// Verification ends when its context does.
func TestVerifyEnds(t *testing.T) {
	t.Parallel()
	dir := scratch(t)
	fill(t, dir, 20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, dir, keyText(t), Options{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
