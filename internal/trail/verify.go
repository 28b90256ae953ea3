package trail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
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
	Trims       int    // signed records of what was trimmed before it
	Checkpoints int
	// Unsigned is how many lines at the end no checkpoint vouches for yet.
	Unsigned uint64
}

// OK reports whether nothing is wrong.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Options of a verification.
type Options struct {
	// Known are checkpoints kept elsewhere, as signed notes: with them even a
	// cut of both the files and their checkpoints shows. Each may be several,
	// as they are kept: with a line "--" behind each.
	Known [][]byte
	// Progress is called now and then with the number of lines read of a stream,
	// and how many there are according to its checkpoints.
	Progress func(stream string, lines, of uint64)
}

// Verify checks a trail folder with nothing but its files and the verifying
// key: every line, the chain, the tree against every signed checkpoint. An
// error means that it could not be checked at all; what is wrong with it is in
// the report.
// It ends early, with an error, when ctx does.
func Verify(ctx context.Context, dir, key string, o Options) (Report, error) {
	v, err := note.NewVerifier(key)
	if err != nil {
		return Report{}, fault.Wrap(fault.Invalid, "audit_key_invalid", "That is no verifying key of a trail.", err).
			WithFix("gradegate audit key")
	}
	if err := IsTrail(dir); err != nil {
		return Report{}, err
	}
	var r Report
	known, problems := openKnown(o.Known, v)
	if len(known) == 0 {
		if err := rightKey(dir, v); err != nil {
			return r, err
		}
	}
	r.Problems = problems
	for _, name := range []string{Use, Act} {
		sub := filepath.Join(dir, name)
		if _, err := os.Stat(sub); errors.Is(err, os.ErrNotExist) {
			r.Problems = append(r.Problems, fmt.Sprintf("The stream %s is missing: there is no folder %s.", name, sub))
			continue
		}
		c := check{ctx: ctx, name: name, dir: sub, verifier: v, known: known[name], marks: slices.Clone(known[name]), progress: o.Progress}
		r.Streams = append(r.Streams, c.run())
		if err := ctx.Err(); err != nil {
			return Report{}, fmt.Errorf("trail: verification: %w", err)
		}
		r.Problems = append(r.Problems, c.problems...)
	}
	return r, nil
}

// IsTrail is nil if a folder looks like that of a trail, or tells where one is.
func IsTrail(dir string) error {
	has := func(parts ...string) bool {
		found, err := filepath.Glob(filepath.Join(parts...))
		return err == nil && len(found) > 0
	}
	no := func(why string, fix string, args ...any) error {
		return fault.New(fault.Invalid, "audit_missing", "%s holds no audit trail: %s", dir, why).WithFix(fix, args...)
	}
	const general = "Give the folder audit in the server's data folder, or what audit.dir or audit.second say in its configuration."
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return no("there is no such folder.", general)
	case err != nil:
		return no(err.Error()+".", general)
	case !info.IsDir():
		return no("it is a file.", general)
	case has(dir, Use) || has(dir, Act):
		return nil
	case has(dir, "*.jsonl"):
		if up := filepath.Dir(filepath.Clean(dir)); has(up, Use) && has(up, Act) {
			return no("it is one stream of a trail.", "Give the folder of both: %s", up)
		}
		return no("it is another journal, such as the ledger.", general)
	case has(dir, "audit", Use) || has(dir, "audit", Act):
		return no("it is the data folder.", "Give the folder in it: %s", filepath.Join(dir, "audit"))
	case !has(dir, "*"):
		return no("it is empty.", general)
	}
	return no("there is neither a folder use nor a folder act in it.", general)
}

// check verifies one stream.
type check struct {
	ctx       context.Context //nolint:containedctx // it lives as long as one call
	name, dir string
	verifier  note.Verifier
	known     []checkpoint // that were kept elsewhere
	marks     []checkpoint // all that must hold, those included
	trims     []trim       // all records, oldest first
	problems  []string
	progress  func(string, uint64, uint64)
	stored    int              // checkpoints in the files
	end       journal.Position // of the reading
	broken    bool             // reading stopped before the end
	lost      uint64           // lines that were passed over, since they cannot be read
	proven    uint64           // size of the newest mark that holds
	forged    bool             // one did not, so that none after it can
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
	c.loadTrims()
	r.Trims = len(c.trims)
	segments, err := journal.Segments(c.dir)
	if err != nil {
		c.damaged(err)
		return r
	}
	start, ok := c.begin(segments)
	if !ok {
		return r
	}
	end := c.replay(start, segments)
	r.First, r.Lines = start.Size, end.Size-start.Size-c.lost
	if c.broken {
		return r
	}
	if c.stored == 0 && c.lasts(start.Size) {
		c.bad("nothing is signed: there is no checkpoint, and a stream has one after its first second.")
	}
	signed := c.compare(start.Size, end.Size)
	r.Unsigned = end.Size - min(end.Size, max(signed, start.Size))
	return r
}

// lasts reports whether the lines are of more than the first seconds.
func (c *check) lasts(first uint64) bool {
	var begin, end time.Time
	_, err := journal.Read(c.dir, first, func(r journal.Record) error {
		e, err := audit.Decode(r.Data)
		if err != nil {
			return nil //nolint:nilerr // a line of a newer version tells nothing
		}
		if end = e.At; begin.IsZero() {
			begin = e.At
		}
		if end.Sub(begin) > slow {
			return errStop
		}
		return nil
	})
	return errors.Is(err, errStop)
}

// slow is longer than a disk that works takes to store the first checkpoint.
const slow = 5 * time.Second

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

// replay reads every line and compares the tree at each mark and header. Behind
// damage it goes on with the next segment that says which tree it begins with: the next
// mark tells whether that is true.
func (c *check) replay(start edge, segments []journal.Segment) edge {
	r := replay{check: c, e: start.clone(), heads: c.heads(segments), at: map[uint64][]checkpoint{}, spans: spansOf(segments)}
	for _, m := range c.marks {
		r.at[m.Size] = append(r.at[m.Size], m)
		r.of = max(r.of, m.Size)
	}
	r.see()
	for {
		var err error
		c.end, err = journal.Batches(c.dir, r.e.Size, r.batch)
		if err == nil {
			return r.e
		}
		if c.ctx.Err() != nil {
			c.broken = true
			return r.e
		}
		c.damaged(err)
		if !r.skip(err, segments) {
			c.broken = true
			return r.e
		}
	}
}

// replay is the reading of a stream's lines.
type replay struct {
	*check
	e         edge
	heads     map[uint64]*edge
	at        map[uint64][]checkpoint
	of        uint64 // so many lines there should be
	unchained bool
	spans     []lineSpan // what the indices say, by line
}

// see compares what was read up to here with what was said of it.
func (r *replay) see() {
	r.hold(r.at[r.e.Size], &r.e)
	if h := r.heads[r.e.Size]; h != nil && !r.forged && h.root() != r.e.root() {
		r.bad("the segment that begins at line %d was written after other lines than these.", r.e.Size)
	}
	if r.progress != nil && r.e.Size&0xffff == 0 {
		r.progress(r.name, r.e.Size, r.of)
	}
}

func (r *replay) batch(first uint64, records [][]byte, pos journal.Position) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if first != r.e.Size {
		return fmt.Errorf("line %d follows line %d", first, r.e.Size)
	}
	for _, record := range records {
		r.timed(record)
		r.e.add(record)
		r.see()
	}
	for _, m := range r.at[pos.Next] {
		if !r.forged && !r.unchained && m.Chain != "" && m.Chain != pos.Chain.String() {
			r.unchained = true // and with it every one after it
			r.bad("the chain up to line %d is not the one that was signed on %s.", m.Size, moment(m.At))
		}
	}
	return nil
}

// skip goes on behind a damaged segment.
func (r *replay) skip(err error, segments []journal.Segment) bool {
	corrupt, ok := errors.AsType[*journal.CorruptError](err)
	if !ok || r.forged {
		return false
	}
	for _, s := range segments {
		if h := r.heads[s.First]; h != nil && h.Size == s.First && s.Segment > corrupt.Segment && s.First > r.e.Size {
			r.lost += s.First - r.e.Size
			r.proven = s.First // as far as it is told
			r.e = h.clone()
			return true
		}
	}
	return false
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

// compare finds marks that lie beyond the lines that are there: the newest of
// them tells what is missing, if nothing worse was found. It returns the size
// that the newest mark vouches for.
func (c *check) compare(first, size uint64) (signed uint64) {
	var newest checkpoint
	for _, m := range c.marks {
		if m.Size > newest.Size {
			newest = m
		}
		if m.Size >= first && m.Size <= size {
			signed = max(signed, m.Size)
		}
	}
	if newest.Size <= size {
		return signed
	}
	switch where, changed := c.afterEnd(); {
	case c.forged: // what was taken out or put in before is the cause
	case changed:
		c.bad("%s. From there on nothing can be read; up to line %d it was signed on %s.", where, newest.Size-1, moment(newest.At))
	default:
		c.bad("%d lines are missing at the end: %d were signed on %s, and %d are there.",
			newest.Size-size, newest.Size, moment(newest.At), size)
	}
	return size
}
