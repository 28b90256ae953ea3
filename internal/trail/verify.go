package trail

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

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
}

func (c *check) bad(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf("Stream "+c.name+": "+format, args...))
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
	edges := c.replay(start, segments)
	r.First, r.Lines = start.Size, edges.Size-start.Size
	signed := c.compare(start.Size, edges.Size)
	r.Unsigned = edges.Size - min(edges.Size, max(signed, start.Size))
	return r
}

// loadMarks reads the stored checkpoints. Their sizes must rise: an older one
// at the end would be a rollback.
func (c *check) loadMarks() {
	stored, err := loadCheckpoints(c.dir)
	if err != nil {
		c.bad("the checkpoints cannot be read: %v.", err)
	}
	if last, err := latest(c.dir); err == nil && last != nil {
		stored = append(stored, last)
	}
	size := uint64(0)
	for i, msg := range stored {
		m, err := openNote(msg, c.verifier)
		switch {
		case err != nil:
			c.bad("checkpoint %d is not signed by this key.", i+1)
			continue
		case m.Stream != c.name:
			c.bad("checkpoint %d is one of the stream %s.", i+1, m.Stream)
			continue
		case m.Size < size:
			c.bad("checkpoint %d is older than the one before it.", i+1)
		}
		size = m.Size
		c.marks = append(c.marks, m)
	}
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

// replay reads every line and compares the tree at each mark and header.
func (c *check) replay(start edge, segments []journal.Segment) edge {
	e := start.clone()
	at := map[uint64][]checkpoint{}
	for _, m := range c.marks {
		at[m.Size] = append(at[m.Size], m)
	}
	heads := map[uint64]*edge{}
	for _, s := range segments {
		m, err := readMeta(s.Meta)
		if err != nil {
			c.bad("the header of %s cannot be read.", filepath.Base(s.Path))
			continue
		}
		if m.Edge != nil {
			heads[s.First] = m.Edge
		}
	}
	see := func() {
		for _, m := range at[e.Size] {
			if m.Root != e.root() {
				c.bad("the lines before number %d are not those that were signed on %s.", m.Size, m.At.Format("2 Jan 2006 15:04:05"))
			}
		}
		if h := heads[e.Size]; h != nil && (h.Size != e.Size || h.root() != e.root()) {
			c.bad("the segment that begins at line %d was written after other lines than these.", e.Size)
		}
		if c.progress != nil && e.Size&0xffff == 0 {
			c.progress(e.Size)
		}
	}
	see()
	_, err := journal.Read(c.dir, start.Size, func(r journal.Record) error {
		if r.Index != e.Size {
			return fmt.Errorf("line %d follows line %d", r.Index, e.Size)
		}
		e.add(r.Data)
		see()
		return nil
	})
	if err != nil {
		c.bad("reading stopped after line %d: %v.", e.Size, err)
	}
	return e
}

// compare finds marks that lie beyond the lines that are there: a cut tail. It
// returns the size that the newest mark vouches for.
func (c *check) compare(first, size uint64) (signed uint64) {
	for _, m := range c.marks {
		if m.Size > size {
			c.bad("%d lines are missing at the end: %d were signed on %s, and %d are there.",
				m.Size-size, m.Size, m.At.Format("2 Jan 2006 15:04:05"), size)
			return size
		}
		if m.Size >= first {
			signed = max(signed, m.Size)
		}
	}
	return signed
}

// latest reads the newest checkpoint of a stream's folder; nil if there is none.
func latest(dir string) ([]byte, error) {
	msg, err := os.ReadFile(filepath.Join(dir, latestFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return msg, nil
}
