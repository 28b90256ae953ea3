package trail

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gradegate/internal/journal"
)

// relined gives a line of the journal with its checksum made right again.
func relined(line []byte) []byte {
	inner := line[len(`{"c":"00000000","r":`) : len(line)-1]
	return fmt.Appendf(nil, `{"c":"%08x",%s`, crc32.Checksum(inner, crc32.MakeTable(crc32.Castagnoli)), line[len(`{"c":"00000000",`):])
}

// vandal changes the use stream of a copy of a trail.
type vandal struct {
	*rand.Rand
	t        *testing.T
	dir      string
	segments []string
}

func (v *vandal) pick(n int) int { return 1 + v.IntN(n-1) } // never the first

// file changes the lines of one segment; line 0 is its header.
func (v *vandal) file(path string, fn func(lines [][]byte) [][]byte) {
	v.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		v.t.Fatal(err)
	}
	lines := fn(bytes.Split(bytes.TrimRight(data, "\x00\n"), []byte("\n")))
	v.write(path, append(bytes.Join(lines, []byte("\n")), '\n'))
}

func (v *vandal) write(path string, data []byte) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vandal) any() string { return v.segments[v.IntN(len(v.segments))] }

func (v *vandal) forgetCheckpoints() {
	for _, f := range []string{latestFile, allFile} {
		if err := os.Remove(filepath.Join(v.dir, f)); err != nil {
			v.t.Fatal(err)
		}
	}
}

// mutations are what somebody may do who can write the files and has no key.
var mutations = []struct {
	what string
	do   func(v *vandal)
}{
	{"one bit", func(v *vandal) {
		path := v.any()
		data, _ := os.ReadFile(path)
		data[v.IntN(len(bytes.TrimRight(data, "\x00")))] ^= 1 << v.IntN(8)
		v.write(path, data)
	}},
	{"edit with a right checksum", func(v *vandal) {
		v.file(v.any(), func(lines [][]byte) [][]byte {
			i := 0
			for !bytes.Contains(lines[i], []byte(`"usr_ann"`)) {
				i = v.pick(len(lines))
			}
			lines[i] = relined(bytes.Replace(lines[i], []byte("usr_ann"), []byte("usr_bob"), 1))
			return lines
		})
	}},
	{"header edited with a right checksum", func(v *vandal) {
		v.file(v.any(), func(lines [][]byte) [][]byte {
			for before := string(lines[0]); string(lines[0]) == before; {
				part := []string{`"stream":"`, `"first":`, `"prev":"`, `"key":"`, `"size":`, `"roots":["`}[v.IntN(6)]
				if at := bytes.Index(lines[0], []byte(part)); at >= 0 {
					lines[0][at+len(part)] ^= 1 // another letter or digit, mostly
				}
			}
			lines[0] = relined(lines[0])
			return lines
		})
	}},
	{"every header says another stream", func(v *vandal) {
		for _, path := range v.segments {
			v.file(path, func(lines [][]byte) [][]byte {
				lines[0] = relined(bytes.Replace(lines[0], []byte(`"stream":"use"`), []byte(`"stream":"usf"`), 1))
				return lines
			})
		}
	}},
	{"line removed", func(v *vandal) {
		v.file(v.any(), func(lines [][]byte) [][]byte {
			i := v.pick(len(lines))
			return append(lines[:i], lines[i+1:]...)
		})
	}},
	{"two lines swapped", func(v *vandal) {
		v.file(v.any(), func(lines [][]byte) [][]byte {
			i := v.pick(len(lines) - 1)
			lines[i], lines[i+1] = lines[i+1], lines[i]
			return lines
		})
	}},
	{"line doubled", func(v *vandal) {
		// Not the very last one, which ends a batch: an end without a batch, behind all
		// lines, is what a crash leaves, and takes nothing away.
		v.file(v.any(), func(lines [][]byte) [][]byte {
			i := v.pick(len(lines) - 1)
			return append(lines[:i+1:i+1], lines[i:]...)
		})
	}},
	{"tail cut", func(v *vandal) {
		v.file(v.segments[len(v.segments)-1], func(lines [][]byte) [][]byte { return lines[:v.pick(len(lines))] })
	}},
	{"tail cut with its checkpoints", func(v *vandal) {
		v.forgetCheckpoints()
		keep := v.IntN(len(v.segments))
		for _, path := range v.segments[keep+1:] {
			_ = os.Remove(path)
		}
		v.file(v.segments[keep], func(lines [][]byte) [][]byte { return lines[:v.pick(len(lines))] })
	}},
	{"segment removed", func(v *vandal) { _ = os.Remove(v.segments[v.pick(len(v.segments))]) }},
	{"segment replayed in the place of another", func(v *vandal) {
		i := v.pick(len(v.segments))
		data, _ := os.ReadFile(v.segments[i-1])
		v.write(v.segments[i], data)
	}},
	{"batch replayed at the end", func(v *vandal) {
		v.file(v.segments[len(v.segments)-1], func(lines [][]byte) [][]byte {
			i := 1
			for !bytes.Contains(lines[i], []byte(`"b":{`)) {
				i++
			}
			return append(lines, lines[1:i+1]...)
		})
	}},
	{"one line changed and everything made anew around it", func(v *vandal) {
		at := v.IntN(150)
		v.remake(func(i int, line []byte) []byte {
			if i == at {
				return bytes.Replace(line, []byte("usr_ann"), []byte("usr_bob"), 1)
			}
			return line
		})
	}},
	{"one line left out and everything made anew without it", func(v *vandal) {
		at := v.IntN(150)
		v.remake(func(i int, line []byte) []byte {
			if i == at {
				return nil
			}
			return line
		})
	}},
	{"checkpoint edited", func(v *vandal) {
		path := filepath.Join(v.dir, []string{latestFile, allFile}[v.IntN(2)])
		data, _ := os.ReadFile(path)
		at := v.IntN(bytes.IndexByte(data, 0xe2)) // before the signature's dash
		data[at] ^= 1
		v.write(path, data)
	}},
}

// remake writes the whole stream anew, with right checksums, chain and trees;
// what lacks is the key.
func (v *vandal) remake(fn func(i int, line []byte) []byte) {
	v.t.Helper()
	made := v.t.TempDir()
	var e edge
	sign, _ := newSigner(ring.Trail())
	j, _, err := journal.Open(made, journal.Options{Stream: Use, SegmentBytes: 8 << 10, Meta: func(uint64, journal.Chain) (json.RawMessage, error) {
		now := e.clone()
		return json.Marshal(meta{Key: sign.hash(), Edge: &now})
	}})
	if err != nil {
		v.t.Fatal(err)
	}
	i := 0
	there, err := journal.Segments(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	_, err = journal.Read(v.dir, there[0].First, func(r journal.Record) error {
		line := fn(i, bytes.Clone(r.Data))
		i++
		if line == nil {
			return nil
		}
		_, err := j.Write([][]byte{line}, false)
		e.add(line)
		return err
	})
	if err != nil || j.Close() != nil {
		v.t.Fatal(err)
	}
	for _, path := range v.segments {
		_ = os.Remove(path)
	}
	if err := os.CopyFS(v.dir, os.DirFS(made)); err != nil {
		v.t.Fatal(err)
	}
}

// A27: whatever is done to the files, it shows, given the last checkpoint.
func TestTampering(t *testing.T) {
	t.Parallel()
	orig := t.TempDir()
	fill(t, orig, 150)
	last, err := os.ReadFile(filepath.Join(orig, Use, latestFile))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	rounds, missed := 500, 0
	for round := range rounds {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(orig)); err != nil {
			t.Fatal(err)
		}
		v := &vandal{Rand: r, t: t, dir: filepath.Join(dir, Use)}
		v.segments, _ = filepath.Glob(filepath.Join(v.dir, "*.jsonl"))
		if len(v.segments) < 4 {
			t.Fatal("too few segments")
		}
		m := mutations[round%len(mutations)]
		m.do(v)
		rep := verify(t, dir, last)
		if rep.OK() {
			missed++
			t.Errorf("round %d: not found: %s", round, m.what)
		}
		for _, p := range rep.Problems {
			if strings.Contains(p, "stream act") || len(rep.Problems) > maxProblems+1 {
				t.Errorf("%s: %q", m.what, rep.Problems)
			}
		}
	}
	t.Logf("%d of %d mutations missed", missed, rounds)
	if rep := verify(t, orig, last); !rep.OK() {
		t.Errorf("the untouched trail: %q", rep.Problems)
	}
}

// The report says between which lines the first wrong one lies.
func TestTamperingIsLocated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fill(t, dir, 150) // signed at least at the lines 1, 51, 101 and 150
	v := &vandal{t: t, dir: filepath.Join(dir, Use)}
	v.segments, _ = filepath.Glob(filepath.Join(v.dir, "*.jsonl"))
	v.remake(func(i int, line []byte) []byte {
		if i == 70 {
			line = bytes.Replace(line, []byte("usr_ann"), []byte("usr_bob"), 1)
		}
		return line
	})
	rep := verify(t, dir)
	var from, to int
	if len(rep.Problems) != 1 {
		t.Fatal(rep.Problems)
	}
	if _, err := fmt.Sscanf(rep.Problems[0], "Stream use: of the lines %d to %d", &from, &to); err != nil || from < 51 || from > 70 || to < 70 || to > 100 {
		t.Errorf("%d to %d, %v: %s", from, to, err, rep.Problems[0])
	}
}

// A whole older state, put back with its own checkpoints, shows against a
// checkpoint that was kept elsewhere, and only there.
func TestRollback(t *testing.T) {
	t.Parallel()
	dir, old := t.TempDir(), t.TempDir()
	fill(t, dir, 40)
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	fill(t, dir, 40)
	last, err := os.ReadFile(filepath.Join(dir, Use, latestFile))
	if err != nil {
		t.Fatal(err)
	}
	if r := verify(t, old); !r.OK() {
		t.Error(r.Problems)
	}
	if r := verify(t, old, last); r.OK() || !strings.Contains(r.Problems[0], "40 lines are missing at the end: 80 were signed") {
		t.Errorf("%q", r.Problems)
	}
	// Beside it, a checkpoint whose lines go on differently.
	fork := t.TempDir()
	fill(t, fork, 45)
	if r := verify(t, fork, last); r.OK() {
		t.Error("another trail fits the checkpoint")
	}
	if r := verify(t, old, []byte("no note")); r.OK() {
		t.Error("nonsense is a checkpoint")
	}
	// The right tree with another chain before it.
	sign, err := newSigner(ring.Trail())
	if err != nil {
		t.Fatal(err)
	}
	c, err := openNote(last, sign.verifier)
	if err != nil {
		t.Fatal(err)
	}
	c.Chain = strings.Repeat("0", len(c.Chain))
	if last, err = sign.sign(c); err != nil {
		t.Fatal(err)
	}
	if r := verify(t, dir, last); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "the chain up to line 80") {
		t.Errorf("%q", r.Problems)
	}
}

// Where the oldest segments are gone and nothing says that they were trimmed, it
// shows.
func TestLeadingSegmentsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fill(t, dir, 150)
	segments, err := journal.Segments(filepath.Join(dir, Use))
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Drop(segments[:3]); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("Stream use: the lines 0 to %d are missing at the begin, and no signed record says that they were trimmed.", segments[3].First-1)
	if r := verify(t, dir); len(r.Problems) != 1 || r.Problems[0] != want || r.Streams[0].Lines != 150-segments[3].First {
		t.Fatalf("%+v", r)
	}
	// An edge that does not fit its size is told, not walked into.
	v := &vandal{t: t}
	v.file(segments[3].Path, func(lines [][]byte) [][]byte {
		at := bytes.Index(lines[0], []byte(`"roots":[`))
		lines[0] = relined(append(lines[0][:at:at], `"roots":[]}}}}`...))
		return lines
	})
	if r := verify(t, dir); len(r.Problems) != 2 || !strings.Contains(r.Problems[1], "the oldest segment does not say what came before it") {
		t.Errorf("%q", r.Problems)
	}
}
