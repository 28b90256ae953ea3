package trail

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"gradegate/internal/audit"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/journal"
	"gradegate/internal/keys"
	"gradegate/internal/token"
)

var ring = keys.New([keys.Size]byte{7})

func config(dir, second string) Config {
	var n atomic.Int64
	return Config{
		Dir: dir, Second: second, Key: ring, Now: clock.Wall, SegmentBytes: 8 << 10, Preallocate: 4 << 10,
		NewID: func() string { return fmt.Sprintf("evt_t%d", n.Add(1)) }, Log: slog.New(slog.DiscardHandler),
	}
}

func openWith(t testing.TB, c Config) *Trail {
	t.Helper()
	tr, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func open(t testing.TB, dir, second string) *Trail {
	t.Helper()
	return openWith(t, config(dir, second))
}

func shut(t testing.TB, tr *Trail) {
	t.Helper()
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
}

func event(i int) audit.Event {
	return audit.Event{ID: fmt.Sprintf("evt_%d", i), At: time.Now(), Action: audit.Request, Outcome: audit.Allow, Actor: "usr_ann", Route: "GET /v1/whoami", Status: 200}
}

func record(t testing.TB, tr *Trail, i int, durable bool) {
	t.Helper()
	if err := tr.Record(t.Context(), event(i), durable); err != nil {
		t.Fatal(err)
	}
}

func effects(t testing.TB, tr *Trail, events ...audit.Event) {
	t.Helper()
	if err := tr.Effects(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

// fill writes a trail of n lines in each stream and closes it.
func fill(t testing.TB, dir string, n int) {
	t.Helper()
	tr := open(t, dir, "")
	for i := range n {
		record(t, tr, i, i%3 == 0)
		effects(t, tr, event(i))
		if i%50 == 0 {
			if err := tr.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	shut(t, tr)
}

func keyText(t testing.TB) string {
	t.Helper()
	key, err := KeyText(ring)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func verify(t testing.TB, dir string, known ...[]byte) Report {
	t.Helper()
	r, err := Verify(t.Context(), dir, keyText(t), Options{Known: known})
	if err != nil {
		return Report{Problems: []string{err.Error()}}
	}
	return r
}

// ids of all lines of a stream, in order.
func ids(t testing.TB, dir, name string) []string {
	t.Helper()
	var out []string
	segments, err := journal.Segments(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	_, err = journal.Read(filepath.Join(dir, name), segments[0].First, func(r journal.Record) error {
		out = append(out, string(idOf(r.Data)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// B7, R2.3: what was recorded is there, in order, across restarts, and proves itself.
func TestRecordAndVerify(t *testing.T) {
	t.Parallel()
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
	if _, err := Verify(t.Context(), dir, other, Options{}); fault.CodeOf(err) != "audit_key_wrong" {
		t.Error("another key verified it", err)
	}
	if _, err := Verify(t.Context(), dir, "nonsense", Options{}); fault.CodeOf(err) != "audit_key_invalid" {
		t.Error("nonsense is a key", err)
	}
}

// The newest checkpoint is what outsiders get: a note that says where the tree
// and the journal are.
func TestLatest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := open(t, dir, "")
	defer shut(t, tr)
	if msg, err := tr.Latest(Use); err != nil || msg != nil {
		t.Errorf("before anything happened: %q %v", msg, err)
	}
	for i := range 5 {
		record(t, tr, i, false)
	}
	if err := tr.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	msg, err := tr.Latest(Use)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openNote(msg, tr.sign.verifier)
	pos := tr.sinks[0].stream(Use).journal.Position()
	if err != nil || c.Size != 5 || c.Size != tr.Position() || c.Chain != pos.Chain.String() || !strings.HasPrefix(string(msg), "gradegate-trail/use\n5\n") {
		t.Errorf("%v %+v\n%s", err, c, msg)
	}
	if _, err := tr.Latest("other"); err == nil {
		t.Error("there is another stream")
	}
	if tr.VerifierKey() != keyText(t) {
		t.Error("two texts of one key")
	}
}

// An effect is there once, however often and from however many sides it is sent.
func TestEffectsOnce(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	var want []string
	for range 3 {
		tr := open(t, one, two)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(rand.Uint64(), 0))
				for range 40 {
					var batch []audit.Event
					for range r.IntN(6) {
						e := event(r.IntN(300))
						e.ID = fmt.Sprintf("%q", e.ID) // an id that has to be escaped
						batch = append(batch, e, e)
					}
					if err := tr.Effects(t.Context(), batch); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		shut(t, tr)
		for _, dir := range []string{one, two} {
			got := ids(t, dir, Act)
			slices.Sort(got)
			if len(got) < 100 || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Fatalf("%s: %d lines, some of them twice", dir, len(got))
			}
			if want != nil && len(got) < len(want) {
				t.Error("lines were lost")
			}
			want = got
		}
	}
	if r := verify(t, two); !r.OK() {
		t.Error(r.Problems)
	}
}

// The window of ids is bounded, and lines without an id are never the same.
func TestRecentIDs(t *testing.T) {
	t.Parallel()
	r := newRecentIDs()
	line := func(i int) []byte { return fmt.Appendf(nil, `{"id":"e%d"}`, i) }
	for i := range keepIDs + 5 {
		r.add([][]byte{line(i)})
	}
	if len(r.ids) != keepIDs || len(r.ring) != keepIDs {
		t.Errorf("%d and %d ids are kept", len(r.ids), len(r.ring))
	}
	if got := r.without([][]byte{line(4), line(5), line(keepIDs + 4)}); len(got) != 1 {
		t.Errorf("%q are new", got)
	}
	nameless := []byte(`{"id":""}`)
	r.add([][]byte{nameless})
	if got := r.without([][]byte{nameless, nameless}); len(got) != 2 {
		t.Error("lines without an id are taken for one")
	}
}

// A crash tears the tail, or a note: what is whole is kept and still proves
// itself, and the trail goes on behind it.
func TestTornTail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := open(t, dir, "")
	for i := range 5 {
		record(t, tr, i, true)
	}
	if err := tr.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	durable := tr.sinks[0].stream(Use).journal.Position().Offset
	for i := range 5 {
		record(t, tr, 5+i, false)
	}
	end := tr.sinks[0].stream(Use).journal.Position().Offset
	live := t.TempDir()
	if err := os.CopyFS(live, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	shut(t, tr)
	notes, err := os.ReadFile(filepath.Join(live, Use, allFile))
	if err != nil {
		t.Fatal(err)
	}
	for cut := durable; cut <= end; cut += 37 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(live)); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob(filepath.Join(dir, Use, "*.jsonl"))
		half := int(cut) % len(notes)
		if os.Truncate(files[len(files)-1], cut) != nil || os.Truncate(filepath.Join(dir, Use, allFile), int64(half)) != nil {
			t.Fatal("not cut")
		}
		fill(t, dir, 3)
		if r := verify(t, dir); !r.OK() || r.Streams[0].Lines < 8 || r.Streams[0].Lines > 13 {
			t.Fatalf("cut at %d of %d..%d, notes at %d: %+v", cut, durable, end, half, r)
		}
	}
}

// Uses are taken up from the position that was stored with them.
func TestReplay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := open(t, dir, "")
	for i := range 70 {
		record(t, tr, i, false)
	}
	from := tr.Position()
	for i := range 30 {
		record(t, tr, 70+i, false)
	}
	shut(t, tr)
	tr = open(t, dir, "")
	defer shut(t, tr)
	want := from
	err := tr.Replay(from, func(index uint64, e audit.Event) {
		if index != want || e.ID != fmt.Sprintf("evt_%d", index) {
			t.Errorf("line %d is %s, wanted %d", index, e.ID, want)
		}
		want++
	})
	if err != nil || want != 100 || tr.Position() != 100 {
		t.Errorf("%d, %d, %v", want, tr.Position(), err)
	}
	if err := tr.Replay(1000, func(uint64, audit.Event) { t.Error("a line from the future") }); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, Use, "00000001.jsonl")); err != nil {
		t.Fatal(err)
	}
	if err := tr.Replay(0, func(uint64, audit.Event) {}); err != nil {
		t.Errorf("after retention: %v", err)
	}
}

// No secret in any line, whatever a client calls itself; and what belongs to
// the caller stays as it is.
func TestScrub(t *testing.T) {
	t.Parallel()
	s := token.NewSecret(token.Personal).Reveal()
	for _, in := range []string{"curl " + s, "/x?token=" + s, s + s, s[:40]} {
		if out := audit.Scrub(in); strings.Contains(out, s[12:30]) {
			t.Errorf("%q kept a secret", out)
		}
	}
	if plain := "python-requests/2.31 (gg)"; audit.Scrub(plain) != plain {
		t.Error("plain text was changed")
	}
	dir, second := t.TempDir(), t.TempDir()
	tr := open(t, dir, second)
	e := event(1)
	e.Agent, e.Route, e.Detail = s, "GET /"+s, map[string]string{"note": s, "other": "kept"}
	if err := tr.Record(t.Context(), e, true); err != nil {
		t.Fatal(err)
	}
	effects(t, tr, e)
	if err := tr.Refused(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	shut(t, tr)
	if e.Detail["note"] != s {
		t.Error("the caller's event was changed")
	}
	for _, root := range []string{dir, second} {
		n := 0
		_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				data, _ := os.ReadFile(p)
				n += bytes.Count(data, []byte(s[:10]+"…"))
				if bytes.Contains(data, []byte(s[10:40])) {
					t.Errorf("%s holds a secret", p)
				}
			}
			return nil
		})
		if n != 9 {
			t.Errorf("%d stumps in %s, want 3 in each of 3 lines", n, root)
		}
	}
}

// The edge is a Merkle tree as RFC 6962 has it, and goes through JSON.
func TestEdge(t *testing.T) {
	t.Parallel()
	var e edge
	stored := hashes{}
	for n := range uint64(300) {
		want, err := tlog.TreeHash(int64(n), stored)
		if err != nil || e.root() != want {
			t.Fatalf("size %d: %v", n, err)
		}
		line := fmt.Appendf(nil, `{"n":%d}`, n)
		more, err := tlog.StoredHashes(int64(n), line, stored)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		e.add(line)
	}
}

type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = h[x]
	}
	return out, nil
}

// The law of the two parsers: what was written is read back.
func FuzzCheckpoint(f *testing.F) {
	f.Add(uint64(5), int64(1764000000000000), []byte("root"), "abc", "evt_\"\\1")
	f.Add(uint64(0), int64(0), []byte{}, "", "")
	f.Fuzz(func(t *testing.T, size uint64, us int64, root []byte, chain, id string) {
		if us < 0 || us > 250_000_000_000_000_000 {
			return // outside of the years that RFC 3339 can write
		}
		c := checkpoint{Stream: Use, Size: size >> 1, At: time.UnixMicro(us).UTC(), Chain: journal.Chain{byte(len(chain))}.String()}
		copy(c.Root[:], root)
		if got, err := parseCheckpoint(c.text()); err != nil || got != c {
			t.Errorf("%+v came back as %+v, %v", c, got, err)
		}
		_, _ = parseCheckpoint(chain) // whatever it is, it does not panic
		if line := (audit.Event{ID: id}).Encode(); !bytes.HasPrefix(line, fmt.Appendf(nil, `{"id":"%s","at"`, idOf(line))) {
			t.Errorf("the id of %s is not %s", line, idOf(line))
		}
	})
}
