package trail

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gradegate/internal/journal"
	"gradegate/internal/keys"
)

// trimTampering is what may be done to a trail that was trimmed, without the key.
var trimTampering = []struct {
	what string
	do   func(v *vandal)
}{
	{"a further segment removed", func(v *vandal) { v.remove(v.segments[0]) }},
	{"several more removed", func(v *vandal) {
		for _, path := range v.segments[:v.pick(len(v.segments))] {
			v.remove(path)
		}
	}},
	{"the records removed", func(v *vandal) { _ = os.Remove(filepath.Join(v.dir, trimsFile)) }},
	{"the records removed with a further segment", func(v *vandal) {
		_ = os.Remove(filepath.Join(v.dir, trimsFile))
		v.remove(v.segments[0])
	}},
	{"only an older record left", func(v *vandal) {
		data, _ := os.ReadFile(filepath.Join(v.dir, trimsFile))
		v.write(filepath.Join(v.dir, trimsFile), append(SplitNotes(data)[0], "--\n"...))
	}},
	{"only the newer record left", func(v *vandal) {
		data, _ := os.ReadFile(filepath.Join(v.dir, trimsFile))
		v.write(filepath.Join(v.dir, trimsFile), append(SplitNotes(data)[1], "--\n"...))
	}},
	{"a record edited", func(v *vandal) {
		data, _ := os.ReadFile(filepath.Join(v.dir, trimsFile))
		data[v.IntN(bytes.IndexByte(data, 0xe2))] ^= 1
		v.write(filepath.Join(v.dir, trimsFile), data)
	}},
	{"a record that goes further, signed by another key", func(v *vandal) {
		segments, _ := journal.Segments(v.dir)
		m, _ := readMeta(segments[1].Meta)
		last, _ := lastTrim(v.dir, Use, ourSigner().verifier)
		sign, _ := newSigner(keys.New([keys.Size]byte{9}).Trail())
		next := *last
		next.From, next.Size, next.Root, next.Roots, next.Chain = last.Size, m.Edge.Size, m.Edge.root(), m.Edge.Roots, segments[1].Prev.String()
		msg, _ := sign.signTrim(&next)
		if err := keepNote(filepath.Join(v.dir, trimsFile), msg); err != nil {
			v.t.Fatal(err)
		}
		v.remove(segments[0].Path)
	}},
	{"the record of the other stream", func(v *vandal) {
		last, _ := lastTrim(v.dir, Use, ourSigner().verifier)
		last.Stream = Act
		msg, _ := ourSigner().signTrim(last)
		v.write(filepath.Join(v.dir, trimsFile), append(msg, "--\n"...))
	}},
	{"a checkpoint in the place of a record", func(v *vandal) {
		msg, _ := os.ReadFile(filepath.Join(v.dir, latestFile))
		v.write(filepath.Join(v.dir, trimsFile), append(msg, "--\n"...))
	}},
	{"what was dropped put back, changed", func(v *vandal) {
		made := scratch(v.t)
		aged(v.t, 20, made)
		found, _ := filepath.Glob(filepath.Join(made, Use, "*.jsonl"))
		data, _ := os.ReadFile(found[0])
		segments, _ := journal.Segments(v.dir)
		for n := segments[0].Segment - 1; n > 0; n-- {
			v.write(filepath.Join(v.dir, fmt.Sprintf("%08d.jsonl", n)), data)
		}
	}},
}

func (v *vandal) remove(path string) {
	if err := os.Remove(path); err != nil {
		v.t.Fatal(err)
	}
}

func ourSigner() *signer {
	s, _ := newSigner(ring.Trail())
	return s
}

// A27, B7, R9.6: on a trail that was trimmed twice and compressed, everything that can be done
// to it without the key is found: what is done to a whole one, and what concerns the
// trimming.
func TestTamperingTrimmed(t *testing.T) {
	t.Parallel()
	orig := scratch(t)
	c := aged(t, 700, orig)
	later := c.Now()
	for _, now := range []time.Time{birth.Add(500 * day), later} {
		c.Now = func() time.Time { return now }
		tr := openWith(t, c)
		trimmed(t, tr, false)
		shut(t, tr)
	}
	tidied(t, filepath.Join(orig, Use))
	last, err := os.ReadFile(filepath.Join(orig, Use, latestFile))
	if err != nil {
		t.Fatal(err)
	}
	if r := verify(t, orig, last); !r.OK() || r.Streams[0].Trims != 2 || r.Streams[0].First == 0 {
		t.Fatalf("%+v", r)
	}
	r := rand.New(rand.NewPCG(9, 10))
	for round := range 4 * (len(trimTampering) + len(mutations)) {
		dir := scratch(t)
		if err := os.CopyFS(dir, os.DirFS(orig)); err != nil {
			t.Fatal(err)
		}
		v := &vandal{Rand: r, t: t, dir: filepath.Join(dir, Use)}
		n := round % (len(trimTampering) + len(mutations))
		x := trimTampering[n%len(trimTampering)]
		if n >= len(trimTampering) {
			x = mutations[n-len(trimTampering)]
			v.unpack()
		}
		v.segments, _ = filepath.Glob(filepath.Join(v.dir, "*.jsonl*"))
		x.do(v)
		if rep := verify(t, dir, last); rep.OK() {
			t.Errorf("round %d: not found: %s", round, x.what)
		}
	}
}

// unpack puts plain files in the places of compressed ones, for those who edit
// lines.
func (v *vandal) unpack() {
	v.t.Helper()
	segments, err := journal.Segments(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, s := range segments {
		if !s.Compressed {
			continue
		}
		f, _, err := journal.OpenSegment(v.dir, s.Segment)
		if err != nil {
			v.t.Fatal(err)
		}
		var text []byte
		buf := make([]byte, 1<<20)
		n, _ := f.ReadAt(buf, 0)
		text = append(text, buf[:n]...)
		f.Close()
		v.write(strings.TrimSuffix(s.Path, ".zst"), text)
		v.remove(s.Path)
	}
}
