package trail

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/journal"
)

// planning finds out which of the oldest segments of a stream may go.
type planning struct {
	ctx     context.Context //nolint:containedctx // it lives as long as one call
	s       *stream
	before  time.Time                 // everything has to be older
	judge   func(*audit.Event) string // nil: nothing is held
	stopped string                    // why no more
	marks   map[uint64]checkpoint     // what was signed, by size
	signed  uint64                    // the newest size
}

// plan reads every line that is to go, and compares it with what was signed: a record
// says what was there, and must not say it of what somebody else has put there. Nil means that nothing
// may go.
func (p *planning) plan() (*trim, error) {
	segments, err := journal.Segments(p.s.dir)
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	e, err := p.begin(segments)
	if err != nil {
		return nil, err
	}
	if err := p.loadMarks(); err != nil {
		return nil, err
	}
	t := &trim{From: e.Size}
	var span block
	n := 0
	for ; n < len(segments)-1; n++ {
		next, err := p.segment(&segments[n], &segments[n+1], &e, &span)
		if err != nil {
			return nil, err
		}
		if next == nil {
			break
		}
		e = *next
	}
	if p.stopped == "" {
		p.stopped = "it is the one that is written to"
	}
	if n == 0 {
		return nil, nil
	}
	if err := p.proven(e); err != nil {
		return nil, err
	}
	t.checkpoint = checkpoint{Stream: p.s.name, Size: e.Size, Root: e.root(), Chain: segments[n].Prev.String()}
	t.First, t.Last, t.Earliest, t.Latest, t.Roots = segments[0].Segment, segments[n-1].Segment, span.From, span.To, e.Roots
	return t, nil
}

// begin is the tree before the oldest segment.
func (p *planning) begin(segments []journal.Segment) (edge, error) {
	last, err := lastTrim(p.s.dir, p.s.name, p.s.sign.verifier)
	switch {
	case err != nil:
		return edge{}, err
	case len(segments) == 0 || segments[0].First == 0:
		return edge{}, nil
	case last != nil && last.Size == segments[0].First:
		return last.edge(), nil
	case last != nil && last.Size > segments[0].First: // a trim that was interrupted; only a dry run comes here
		return edge{}, fault.New(fault.Unavailable, "trim_unfinished", "A trim of %s was interrupted.", p.s.dir).WithFix("gradegate audit trim")
	}
	return edge{}, notWhole(p.s.dir, errors.New("lines are missing at the begin"))
}

func notWhole(dir string, err error) error {
	return fault.Wrap(fault.Invalid, "audit_not_whole", "The trail does not verify, so nothing is dropped from it.", err).
		WithFix("gradegate audit verify --dir %s", filepath.Dir(dir))
}

func (p *planning) loadMarks() error {
	p.marks = map[uint64]checkpoint{}
	take := func(notes [][]byte) {
		for _, o := range openNotes(notes, p.s.sign.verifier) {
			if o.err == nil && o.Stream == p.s.name {
				p.marks[o.Size] = o.checkpoint
				p.signed = max(p.signed, o.Size)
			}
		}
	}
	if err := readNotes(filepath.Join(p.s.dir, allFile), take); err != nil {
		return err
	}
	msg, err := latest(p.s.dir)
	if err == nil && msg != nil {
		take([][]byte{msg})
	}
	return err
}

// errStays ends the reading of a segment that may not go.
var errStays = errors.New("it stays")

// segment is the tree after a segment that may go; nil if it has to stay.
func (p *planning) segment(s, following *journal.Segment, e *edge, span *block) (*edge, error) {
	const young = "it has lines that are not old enough"
	if following.First > p.signed {
		p.stopped = "it is not signed yet"
		return nil, nil
	}
	if x := readIndex(s, following); x != nil && !x.latest().Before(p.before) {
		p.stopped = young
		return nil, nil
	}
	next, seen := e.clone(), *span
	err := journal.Part(*s, following, journal.Position{}, func(_ uint64, records [][]byte, _ journal.Position) error {
		for _, r := range records {
			at, ok := timeOf(r)
			if !ok || !at.Before(p.before) { // what a newer version wrote is of any time
				p.stopped = young
				return errStays
			}
			if why := p.held(r); why != "" {
				p.stopped = "it is held: " + why
				return errStays
			}
			seen.see(at)
			next.add(r)
			if m, ok := p.marks[next.Size]; ok && m.Root != next.root() {
				return notWhole(p.s.dir, fmt.Errorf("the first %d lines are not what was signed", next.Size))
			}
		}
		return p.ctx.Err()
	})
	switch {
	case errors.Is(err, errStays):
		return nil, nil
	case errors.Is(err, journal.ErrCorrupt):
		return nil, notWhole(p.s.dir, err)
	case err != nil:
		return nil, err
	}
	*span = seen
	return &next, nil
}

// held is why a line must be kept; "" if it need not.
func (p *planning) held(line []byte) string {
	if p.judge == nil {
		return ""
	}
	e, err := audit.Decode(line)
	if err != nil {
		return "it cannot be read"
	}
	return p.judge(&e)
}

// proven goes on to the next thing that was signed, which vouches for
// everything before it.
func (p *planning) proven(e edge) error {
	walk := e.clone()
	check := func() error {
		m, ok := p.marks[walk.Size]
		switch {
		case !ok:
			return nil
		case m.Root != walk.root():
			return notWhole(p.s.dir, fmt.Errorf("the first %d lines are not what was signed", walk.Size))
		}
		return errStop
	}
	err := check()
	if err == nil {
		_, err = journal.Batches(p.s.dir, e.Size, func(_ uint64, records [][]byte, _ journal.Position) error {
			for _, r := range records {
				walk.add(r)
				if err := check(); err != nil {
					return err
				}
			}
			return p.ctx.Err()
		})
	}
	switch {
	case errors.Is(err, errStop):
		return nil
	case errors.Is(err, journal.ErrCorrupt):
		return notWhole(p.s.dir, err)
	case err != nil:
		return err
	}
	return notWhole(p.s.dir, errors.New("nothing that was signed follows"))
}
