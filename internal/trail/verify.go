package trail

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gradegate/internal/journal"
)

// Report is what a verification found. It is whole if Problems is empty.
type Report struct {
	Streams  []StreamReport
	Problems []string // sentences for people
}

// StreamReport is one stream's share.
type StreamReport struct {
	Name        string
	Lines       uint64 // that are there
	First       uint64 // index of the first; above zero after retention
	Checkpoints int
	// Unsigned is how many lines at the end no checkpoint vouches for yet.
	Unsigned uint64
}

// OK reports whether nothing is wrong.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Options of a verification.
type Options struct {
	// Known are checkpoints kept elsewhere, as signed notes: with them even a
	// cut of both the files and their checkpoints shows.
	Known [][]byte
	// Progress is called now and then with the number of lines read.
	Progress func(lines uint64)
}

// Verify checks a trail folder with nothing but its files and the verifying
// key: every line, the chain, the tree against every signed checkpoint. An
// error means that it could not be read at all; what is wrong with it is in
// the report.
func Verify(dir, key string, o Options) (Report, error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return Report{}, fmt.Errorf("the verifying key is not one: %w", err)
	}
	known := map[string][]checkpoint{}
	var r Report
	for _, msg := range o.Known {
		c, err := openNote(msg, v)
		if err != nil {
			r.Problems = append(r.Problems, "A checkpoint that was kept elsewhere is not signed by this key.")
			continue
		}
		known[c.Stream] = append(known[c.Stream], c)
	}
	found := false
	for _, name := range []string{Use, Act} {
		sub := filepath.Join(dir, name)
		if _, err := os.Stat(sub); errors.Is(err, os.ErrNotExist) {
			r.Problems = append(r.Problems, fmt.Sprintf("The stream %s is missing.", name))
			continue
		}
		found = true
		c := check{name: name, dir: sub, verifier: v, marks: known[name], progress: o.Progress}
		r.Streams = append(r.Streams, c.run())
		r.Problems = append(r.Problems, c.problems...)
	}
	if !found {
		return r, fmt.Errorf("%s holds no audit trail", dir)
	}
	return r, nil
}

// check verifies one stream.
type check struct {
	name, dir string
	verifier  note.Verifier
	marks     []checkpoint // all that must hold
	problems  []string
	progress  func(uint64)
	broken    bool   // reading stopped before the end
	proven    uint64 // size of the newest mark that holds
	forged    bool   // one did not, so that none after it can
}

// maxProblems bounds what is told of one stream: who reads the first few does
// not need the rest.
const maxProblems = 20

func (c *check) bad(format string, args ...any) {
	switch n := len(c.problems); {
	case n < maxProblems:
		c.problems = append(c.problems, fmt.Sprintf("Stream "+c.name+": "+format, args...))
	case n == maxProblems:
		c.problems = append(c.problems, "Stream "+c.name+": there is more.")
	}
}

func (c *check) run() StreamReport {
	r := StreamReport{Name: c.name}
	c.loadMarks()
	r.Checkpoints = len(c.marks)
	segments, err := journal.Segments(c.dir)
	if err != nil {
		c.bad("the files cannot be read: %v.", err)
		return r
	}
	start, ok := c.begin(segments)
	if !ok {
		return r
	}
	end := c.replay(start, segments)
	r.First, r.Lines = start.Size, end.Size-start.Size
	if c.broken {
		return r
	}
	signed := c.compare(start.Size, end.Size)
	r.Unsigned = end.Size - min(end.Size, max(signed, start.Size))
	return r
}

// loadMarks reads the stored checkpoints. Their sizes must rise: an older one
// at the end would be a rollback.
func (c *check) loadMarks() {
	n, size := 0, uint64(0)
	var newest []byte
	take := func(notes [][]byte) {
		for i, o := range openNotes(notes, c.verifier) {
			n++
			switch {
			case o.err != nil:
				c.bad("checkpoint %d is not signed by this key.", n)
				continue
			case o.Stream != c.name:
				c.bad("checkpoint %d is one of the stream %s.", n, o.Stream)
				continue
			case o.Size < size:
				c.bad("checkpoint %d is older than the one before it.", n)
			}
			size, newest = o.Size, notes[i]
			c.marks = append(c.marks, o.checkpoint)
		}
	}
	if err := readNotes(c.dir, take); err != nil {
		c.bad("the checkpoints cannot be read: %v.", err)
	}
	last, err := latest(c.dir)
	if err != nil {
		c.bad("the newest checkpoint cannot be read: %v.", err)
	}
	if last != nil && !bytes.Equal(last, newest) {
		take([][]byte{last})
	}
}

type opened struct {
	checkpoint
	err error
}

// openNotes is openNote for many, on all processors: a signature takes as long
// as fifty lines.
func openNotes(notes [][]byte, v note.Verifier) []opened {
	out := make([]opened, len(notes))
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(notes); i += workers {
				out[i].checkpoint, out[i].err = openNote(notes[i], v)
			}
		})
	}
	wg.Wait()
	return out
}

// begin is the tree before the first segment that is still there.
func (c *check) begin(segments []journal.Segment) (edge, bool) {
	if len(segments) == 0 || segments[0].First == 0 {
		return edge{}, true
	}
	m, err := readMeta(segments[0].Meta)
	if err != nil || m.Edge == nil || m.Edge.Size != segments[0].First {
		c.bad("the oldest segment does not say what came before it.")
		return edge{}, false
	}
	return *m.Edge, true
}

// heads are the trees that segments say they begin with.
func (c *check) heads(segments []journal.Segment) map[uint64]*edge {
	heads := map[uint64]*edge{}
	for _, s := range segments {
		file := filepath.Base(s.Path)
		m, err := readMeta(s.Meta)
		switch {
		case err != nil:
			c.bad("the header of %s cannot be read.", file)
			continue
		case s.Stream != c.name:
			c.bad("%s belongs to the stream %q.", file, s.Stream)
		case m.Key != "" && m.Key != hashText(c.verifier):
			c.bad("%s was written under another signing key (%s).", file, m.Key)
		case m.Edge != nil && m.Edge.Size != s.First:
			c.bad("%s begins at line %d and says line %d.", file, s.First, m.Edge.Size)
		}
		if m.Edge != nil {
			heads[s.First] = m.Edge
		}
	}
	return heads
}

// replay reads every line and compares the tree at each mark and header.
func (c *check) replay(start edge, segments []journal.Segment) edge {
	e := start.clone()
	heads := c.heads(segments)
	at := map[uint64][]checkpoint{}
	for _, m := range c.marks {
		at[m.Size] = append(at[m.Size], m)
	}
	see := func() {
		c.hold(at[e.Size], &e)
		if h := heads[e.Size]; h != nil && !c.forged && h.root() != e.root() {
			c.bad("the segment that begins at line %d was written after other lines than these.", e.Size)
		}
		if c.progress != nil && e.Size&0xffff == 0 {
			c.progress(e.Size)
		}
	}
	see()
	_, err := journal.Batches(c.dir, start.Size, func(first uint64, records [][]byte, pos journal.Position) error {
		if first != e.Size {
			return fmt.Errorf("line %d follows line %d", first, e.Size)
		}
		for _, r := range records {
			e.add(r)
			see()
		}
		for _, m := range at[pos.Next] {
			if !c.forged && m.Chain != "" && m.Chain != pos.Chain.String() {
				c.bad("the chain up to line %d is not the one that was signed on %s.", m.Size, moment(m.At))
			}
		}
		return nil
	})
	if err != nil {
		c.broken = true
		c.bad("line %d cannot be read: %v.", e.Size, err)
	}
	return e
}

// hold compares the tree with what was signed of it.
func (c *check) hold(marks []checkpoint, e *edge) {
	for _, m := range marks {
		switch {
		case c.forged:
		case m.Root == e.root():
			c.proven = m.Size
		default:
			c.forged = true
			c.bad("of the lines %d to %d (the first line is 0) at least one is not what was signed on %s.", c.proven, m.Size-1, moment(m.At))
		}
	}
}

func moment(t time.Time) string { return t.Format("2 Jan 2006 15:04:05") }

// compare finds marks that lie beyond the lines that are there: a cut tail. It
// returns the size that the newest mark vouches for.
func (c *check) compare(first, size uint64) (signed uint64) {
	for _, m := range c.marks {
		if m.Size > size {
			c.bad("%d lines are missing at the end: %d were signed on %s, and %d are there.",
				m.Size-size, m.Size, moment(m.At), size)
			return size
		}
		if m.Size >= first {
			signed = max(signed, m.Size)
		}
	}
	return signed
}
