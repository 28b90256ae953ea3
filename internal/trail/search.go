package trail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/journal"
)

// Query selects lines. Zero members do not select.
type Query struct {
	Stream       string // use, act; "" is both, ordered by time
	Since, Until time.Time
	Actor        string
	Token        string
	Target       string
	Owner        string
	User         string // who did it, whose it is, or to whom it was done
	Action       string // exact, or a prefix that ends in a dot
	Outcome      string
	Addr         string
	Request      string
	Reason       string
	Text         string // anywhere in the line as it is stored
	Limit        int    // newest that many; 0: 100
}

// Found is a line with the stream and place it stands at.
type Found struct {
	Stream string
	Index  uint64
	audit.Event
}

func (q *Query) matches(e *audit.Event) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	action := is(q.Action, string(e.Action)) || strings.HasSuffix(q.Action, ".") && strings.HasPrefix(string(e.Action), q.Action)
	user := q.User == "" || q.User == e.Actor || q.User == e.Owner || q.User == e.Target
	return action && user && is(q.Actor, e.Actor) && (is(q.Token, e.Token) || q.Token == e.Target) && is(q.Target, e.Target) && is(q.Owner, e.Owner) &&
		is(q.Outcome, string(e.Outcome)) && is(q.Addr, e.Addr) && is(q.Request, e.Request) && is(q.Reason, e.Reason) &&
		(q.Since.IsZero() || !e.At.Before(q.Since)) && (q.Until.IsZero() || e.At.Before(q.Until))
}

// needles are what a line that matches has somewhere. Looking for them first
// saves decoding nearly all lines.
func (q *Query) needles() [][]byte {
	var out [][]byte
	for _, s := range []string{q.Actor, q.Token, q.Target, q.Owner, q.User, q.Action, q.Outcome, q.Addr, q.Request, q.Reason} {
		quoted := (&audit.Event{ID: s}).Encode()
		if id := idOf(quoted); s != "" && string(id) == s { // it is stored as it is
			out = append(out, id)
		}
	}
	if q.Text != "" {
		out = append(out, []byte(q.Text))
	}
	return out
}

func hasAll(line []byte, needles [][]byte) bool {
	for _, n := range needles {
		if !bytes.Contains(line, n) {
			return false
		}
	}
	return true
}

// Search finds the newest lines that match, oldest first. It reads the files
// from the end, and stops at the segment where it has enough.
func Search(ctx context.Context, dir string, q Query) ([]Found, error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	if q.Stream != "" && q.Stream != Use && q.Stream != Act {
		return nil, errStream
	}
	var out []Found
	for _, name := range []string{Use, Act} {
		if q.Stream != "" && q.Stream != name {
			continue
		}
		found, err := searchStream(ctx, filepath.Join(dir, name), name, q)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	slices.SortStableFunc(out, func(a, b Found) int { return a.At.Compare(b.At) })
	return out[max(0, len(out)-q.Limit):], nil
}

// late is how much later than it happened a line may be written: stores copy
// their effects when they can.
const late = 24 * time.Hour

// early is how much a clock may have been ahead when it named a request.
const early = time.Minute

// errStop ends the reading of a segment where it is known that nothing follows.
var errStop = errors.New("stop")

// span is the time in which lines that match lie; zero ends are open. The id of a
// request says when it came; its lines were written then, and its effects when they could be.
func (q *Query) span() (since, until time.Time) {
	since, until = q.Since, q.Until
	at, ok := authority.TimeOf(q.Request)
	if !ok {
		return since, until
	}
	if from := at.Add(-early); from.After(since) {
		since = from
	}
	if to := at.Add(late); until.IsZero() || to.Before(until) {
		until = to
	}
	return since, until
}

// searching is the search of one stream.
type searching struct {
	ctx          context.Context //nolint:containedctx // it lives as long as one call
	name         string
	q            Query
	needles      [][]byte
	since, until time.Time // of lines that may match
	out          []Found   // the newest so far, oldest first
}

func searchStream(ctx context.Context, dir, name string, q Query) ([]Found, error) {
	segments, err := journal.Segments(dir)
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	s := &searching{ctx: ctx, name: name, q: q, needles: q.needles()}
	s.since, s.until = q.span()
	more := true
	for i := len(segments) - 1; i >= 0 && more && len(s.out) < q.Limit; i-- {
		var following *journal.Segment
		if i+1 < len(segments) {
			following = &segments[i+1]
		}
		more, err = s.segment(&segments[i], following)
		if errors.Is(err, journal.ErrRemoved) {
			break // trimmed meanwhile, and with it all that are older
		}
		if err != nil {
			return nil, fmt.Errorf("trail: %w", err)
		}
	}
	return s.out[max(0, len(s.out)-q.Limit):], nil
}

// segment searches one segment, and says whether older ones may hold something.
func (s *searching) segment(seg, following *journal.Segment) (more bool, err error) {
	if following != nil {
		if x := readIndex(seg, following); x != nil {
			before := s.out
			err := s.blocks(seg, following, x.Blocks)
			if !errors.Is(err, journal.ErrCorrupt) {
				return !s.beforeAll(x.latest()), err
			}
			s.out = before // the index may be what is wrong
		}
	}
	first, err := firstTime(seg, following)
	if err != nil || first.IsZero() {
		return true, err
	}
	if !s.until.IsZero() && !first.Add(-late).Before(s.until) {
		return true, nil // everything in it is later
	}
	whole := block{Next: seg.First, Chain: seg.Prev, Offset: seg.Body, To: endOfTime}
	return !s.beforeAll(first), s.blocks(seg, following, []block{whole})
}

// beforeAll reports whether everything in older segments happened before the
// span, given an instant of a line in this one: they were written earlier.
func (s *searching) beforeAll(t time.Time) bool { return t.Before(s.since.Add(-late)) }

// firstTime is the instant of a segment's first line; zero if there is none.
func firstTime(seg, following *journal.Segment) (at time.Time, err error) {
	err = journal.Part(*seg, following, journal.Position{}, func(_ uint64, records [][]byte, _ journal.Position) error {
		at, _ = timeOf(records[0])
		if at.IsZero() {
			at = endOfTime // of a newer version: it tells nothing
		}
		return errStop
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return at, err
}

// atOnce is how many blocks are read in one go, from the end on.
const atOnce = 8

// blocks searches those blocks of a segment whose time is in the span.
func (s *searching) blocks(seg, following *journal.Segment, blocks []block) error {
	in := func(b *block) bool { return !b.To.Before(s.since) && (s.until.IsZero() || b.From.Before(s.until)) }
	for to := len(blocks); to > 0 && len(s.out) < s.q.Limit; {
		if !in(&blocks[to-1]) {
			to--
			continue
		}
		from := to - 1
		for from > 0 && to-from < atOnce && in(&blocks[from-1]) {
			from--
		}
		end := ^uint64(0)
		if to < len(blocks) {
			end = blocks[to].Next
		}
		here, err := s.lines(seg, following, blocks[from].position(seg.Segment), end)
		if err != nil {
			return err
		}
		s.out = append(here, s.out...)
		to = from
	}
	return nil
}

// lines searches the lines from a place up to an index.
func (s *searching) lines(seg, following *journal.Segment, from journal.Position, end uint64) (here []Found, err error) {
	err = journal.Part(*seg, following, from, func(first uint64, records [][]byte, _ journal.Position) error {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if first >= end {
			return errStop
		}
		for i, r := range records {
			if !hasAll(r, s.needles) {
				continue
			}
			e, err := audit.Decode(r)
			if err == nil && s.q.matches(&e) { // a line of a newer version is not ours to find
				here = append(here, Found{Stream: s.name, Index: first + uint64(i), Event: e})
			}
		}
		if len(here) >= 2*s.q.Limit { // only the newest are wanted
			here = append(here[:0], here[len(here)-s.q.Limit:]...)
		}
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return here, err
}
