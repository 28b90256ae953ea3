package trail

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/token"
)

var ring = keys.New([keys.Size]byte{7})

func open(t testing.TB, dir, second string) *Trail {
	t.Helper()
	var n atomic.Int64
	tr, err := Open(Config{
		Dir: dir, Second: second, Key: ring, Now: clock.Wall, SegmentBytes: 8 << 10, Preallocate: 4 << 10,
		NewID: func() string { return fmt.Sprintf("evt_t%d", n.Add(1)) }, Log: slog.New(slog.DiscardHandler),
		SinkDeadline: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func event(i int) audit.Event {
	return audit.Event{ID: fmt.Sprintf("evt_%d", i), At: time.Now(), Action: audit.Request, Outcome: audit.Allow, Actor: "usr_ann", Route: "GET /v1/whoami", Status: 200}
}

// fill writes a trail of n lines in each stream and closes it.
func fill(t testing.TB, dir string, n int) {
	t.Helper()
	tr := open(t, dir, "")
	for i := range n {
		if err := tr.Record(t.Context(), event(i), i%3 == 0); err != nil {
			t.Fatal(err)
		}
		if err := tr.Effects(t.Context(), []audit.Event{event(i)}); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			if err := tr.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
}

func verify(t testing.TB, dir string, known ...[]byte) Report {
	t.Helper()
	key, err := KeyText(ring)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(dir, key, Options{Known: known})
	if err != nil {
		return Report{Problems: []string{err.Error()}}
	}
	return r
}

// B7, R2.3: what was recorded is there, in order, across restarts, and proves itself.
func TestRecordAndVerify(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		fill(t, dir, 100)
		r := verify(t, dir)
		if !r.OK() || r.Streams[0].Lines != uint64(100*(round+1)) || r.Streams[0].Unsigned != 0 {
			t.Fatalf("round %d: %+v", round, r)
		}
		// Effects carry the same ids each round: they are there once.
		if r.Streams[1].Lines != 100 {
			t.Errorf("round %d: %d effect lines", round, r.Streams[1].Lines)
		}
	}
	found, err := Search(t.Context(), dir, Query{Stream: Use, Actor: "usr_ann", Limit: 5})
	if err != nil || len(found) != 5 || found[4].ID != "evt_99" {
		t.Errorf("%v %v", found, err)
	}
	other, _ := KeyText(keys.New([keys.Size]byte{8}))
	if r, err := Verify(dir, other, Options{}); err != nil || r.OK() {
		t.Error("another key verified it", err)
	}
}

// relined gives a line of the journal with its checksum made right again.
func relined(line []byte) []byte {
	inner := line[len(`{"c":"00000000","r":`) : len(line)-1]
	return fmt.Appendf(nil, `{"c":"%08x",%s`, crc32.Checksum(inner, crc32.MakeTable(crc32.Castagnoli)), line[len(`{"c":"00000000",`):])
}

// A27: edits, swaps, cuts and copies all show, given the last checkpoint.
func TestTampering(t *testing.T) {
	orig := t.TempDir()
	fill(t, orig, 150)
	last, err := os.ReadFile(filepath.Join(orig, Use, latestFile))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	missed := 0
	for round := range 200 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(orig)); err != nil {
			t.Fatal(err)
		}
		segs, _ := filepath.Glob(filepath.Join(dir, Use, "*.jsonl"))
		path := segs[r.IntN(len(segs))]
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(bytes.TrimRight(data, "\x00\n"), []byte("\n"))
		i := 1 + r.IntN(len(lines)-1)
		what := ""
		switch kind := round % 7; kind {
		case 0:
			what = "one bit"
			at := r.IntN(len(bytes.TrimRight(data, "\x00")))
			data[at] ^= 1 << r.IntN(7)
		case 1:
			what = "edit with a right checksum"
			for !bytes.Contains(lines[i], []byte(`"usr_ann"`)) {
				i = 1 + r.IntN(len(lines)-1)
			}
			lines[i] = relined(bytes.Replace(lines[i], []byte("usr_ann"), []byte("usr_bob"), 1))
		case 2:
			what = "line removed"
			lines = append(lines[:i], lines[i+1:]...)
		case 3:
			what = "two lines swapped"
			j := 1 + r.IntN(len(lines)-1)
			if bytes.Equal(lines[i], lines[j]) {
				continue
			}
			lines[i], lines[j] = lines[j], lines[i]
		case 4:
			what = "tail cut, with its checkpoints"
			lines = lines[:i]
			_ = os.Remove(filepath.Join(dir, Use, latestFile))
			_ = os.Remove(filepath.Join(dir, Use, allFile))
			for _, s := range segs {
				if s > path {
					_ = os.Remove(s)
				}
			}
		case 5:
			what = "segment removed"
			if len(segs) < 3 {
				t.Fatal("too few segments")
			}
			path = segs[1+r.IntN(len(segs)-1)]
			_ = os.Remove(path)
			lines = nil
		case 6:
			what = "line doubled"
			lines = append(lines[:i+1], lines[i:]...)
		}
		if what != "one bit" {
			data = append(bytes.Join(lines, []byte("\n")), '\n')
		}
		if lines != nil {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if rep := verify(t, dir, last); rep.OK() {
			missed++
			t.Errorf("round %d: %s in line %d of %s was not found", round, what, i, filepath.Base(path))
		}
	}
	t.Logf("%d of 200 mutations missed", missed)
}

// A tail that a crash tore is cut and everything before it still proves itself.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	tr := open(t, dir, "")
	for i := range 20 {
		if err := tr.Record(t.Context(), event(i), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	_ = tr.Close()
	tr = open(t, copied, "")
	if err := tr.Record(t.Context(), event(20), true); err != nil {
		t.Fatal(err)
	}
	_ = tr.Close()
	if r := verify(t, copied); !r.OK() || r.Streams[0].Lines != 21 {
		t.Errorf("%+v", r)
	}
}

// A29: a flood of refusals costs a few lines.
func TestRefusalsAreCounted(t *testing.T) {
	dir := t.TempDir()
	tr := open(t, dir, "")
	for i := range 100_000 {
		e := audit.Event{ID: fmt.Sprint(i), At: time.Now(), Action: audit.Authenticate, Outcome: audit.Deny, Reason: "token_unknown", Addr: "192.0.2.7"}
		if err := tr.Refused(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	lines, err := Search(t.Context(), dir, Query{Stream: Use, Limit: 1000})
	if err != nil || len(lines) > 3*ownLines {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	total := int64(0)
	for _, l := range lines {
		total += max(1, l.Count)
	}
	if total != 100_000 {
		t.Errorf("%d refusals are told of", total)
	}
}

// R2.3: two sinks; one may fail, and when it is back it says what it missed.
func TestSecondSink(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	tr := open(t, one, two)
	for i := range 10 {
		if err := tr.Record(t.Context(), event(i), true); err != nil {
			t.Fatal(err)
		}
	}
	// The second sink's disk fails: its folder's journal is closed under it.
	_ = tr.sinks[1].streams[Use].journal.Close()
	for i := range 5 {
		if err := tr.Record(t.Context(), event(10+i), true); err != nil {
			t.Fatalf("one sink is enough: %v", err)
		}
	}
	if tr.Health() == nil {
		t.Error("a dead sink is called healthy")
	}
	_ = tr.sinks[0].streams[Use].journal.Close()
	if err := tr.Record(t.Context(), event(20), true); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("with no sink left: %v", err)
	}
	_ = tr.Close()
}

// No secret in any line, whatever a client calls itself.
func TestScrub(t *testing.T) {
	s := token.NewSecret(token.Personal).Reveal()
	for _, in := range []string{"curl " + s, "/x?token=" + s, s + s, s[:40]} {
		if out := audit.Scrub(in); strings.Contains(out, s[12:30]) {
			t.Errorf("%q kept a secret", out)
		}
	}
	if plain := "python-requests/2.31 (gg)"; audit.Scrub(plain) != plain {
		t.Error("plain text was changed")
	}
	dir := t.TempDir()
	tr := open(t, dir, "")
	e := event(1)
	e.Agent, e.Route, e.Detail = s, "GET /"+s, map[string]string{"note": s}
	if err := tr.Record(context.Background(), e, true); err != nil {
		t.Fatal(err)
	}
	_ = tr.Close()
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if data, _ := os.ReadFile(p); bytes.Contains(data, []byte(s[10:40])) {
				t.Errorf("%s holds a secret", p)
			}
		}
		return nil
	})
}

func BenchmarkRecord(b *testing.B) {
	for _, durable := range []bool{false, true} {
		b.Run(fmt.Sprintf("durable=%v", durable), func(b *testing.B) {
			tr, err := Open(Config{Dir: b.TempDir(), Key: ring, Now: clock.Wall, NewID: func() string { return "evt_x" }, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			e := event(1)
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := tr.Record(context.Background(), e, durable); err != nil {
						b.Error(err)
						return
					}
				}
			})
			_ = tr.Close()
		})
	}
}
