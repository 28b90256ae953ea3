package trail

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
)

// pollEvery is how often Follow looks for new lines.
const pollEvery = 200 * time.Millisecond

// Follow calls fn for every line of some streams, each from an index on, and
// goes on with what is written from then on, until ctx ends. What it finds in
// several streams at the same time comes in the order of time.
func Follow(ctx context.Context, dir string, from map[string]uint64, fn func(Found) error) error {
	var all []*follower
	for _, name := range []string{Use, Act} {
		if index, ok := from[name]; ok {
			all = append(all, &follower{name: name, dir: filepath.Join(dir, name), pos: journal.Position{Next: index}})
		}
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		news := make([]iter.Seq2[Found, error], len(all))
		for i, f := range all {
			news[i] = f.news
		}
		for found, err := range byTime(news) {
			if err != nil {
				return fmt.Errorf("trail: %w", err)
			}
			if err := fn(found); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// byTime gives the lines of several sequences by time, those of each in its
// own order. An error ends it.
func byTime(all []iter.Seq2[Found, error]) iter.Seq2[Found, error] {
	if len(all) == 1 {
		return all[0]
	}
	type head struct {
		Found
		next func() (Found, error, bool)
	}
	return func(yield func(Found, error) bool) {
		var heads []*head
		for _, seq := range all {
			next, stop := iter.Pull2(seq)
			defer stop()
			heads = append(heads, &head{next: next})
		}
		renew := func(h *head) (ok bool) { // false: it is over, for all
			var err error
			var more bool
			if h.Found, err, more = h.next(); err != nil {
				yield(Found{}, err)
				return false
			}
			if !more {
				h.next = nil
			}
			return true
		}
		for _, h := range heads {
			if !renew(h) {
				return
			}
		}
		for {
			var first *head
			for _, h := range heads {
				if h.next != nil && (first == nil || h.At.Before(first.At)) {
					first = h
				}
			}
			if first == nil || !yield(first.Found, nil) || !renew(first) {
				return
			}
		}
	}
}

// follower reads one stream as it grows. In the segment that is being written
// it goes on where it stopped; where anything is not as expected (a new
// segment, a torn tail that was cut, a damaged line) it leaves the reading to the
// journal, which knows what that means.
type follower struct {
	name, dir string
	pos       journal.Position // behind the newest batch that was read

	// A file that was written to and has nothing to give is odd: half of a batch,
	// for a moment, or damage.
	known time.Time // the file's time when it was last understood
	odd   time.Time // since when it is odd; zero: it is not
}

// askAfter is how long something odd is left alone.
const askAfter = time.Second

// news gives what was written since the last call.
func (f *follower) news(yield func(Found, error) bool) {
	if err := f.read(yield); err != nil && !errors.Is(err, errStop) {
		yield(Found{}, err)
	}
}

func (f *follower) read(yield func(Found, error) bool) error {
	if f.pos.Segment == 0 { // the first time
		return f.ask(yield)
	}
	if journal.Exists(f.dir, f.pos.Segment+1) {
		return f.ask(yield)
	}
	file, err := os.Open(f.segment(f.pos.Segment))
	if errors.Is(err, fs.ErrNotExist) {
		return f.ask(yield)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	before := f.pos
	clean, err := f.batches(file, yield)
	if err != nil {
		return err
	}
	more := f.pos != before
	first := !more && f.known.IsZero() && f.odd.IsZero() // the journal has just looked
	switch {
	case more && clean, info.ModTime().Equal(f.known), first:
	case more, f.odd.IsZero():
		f.odd = time.Now()
		return nil
	case time.Since(f.odd) < askAfter:
		return nil
	default:
		err = f.ask(yield)
	}
	f.known, f.odd = info.ModTime(), time.Time{}
	return err
}

func (f *follower) segment(number uint64) string {
	return filepath.Join(f.dir, fmt.Sprintf("%08d.jsonl", number))
}

// ask has the journal read everything from the newest line on, or from the
// oldest that is kept.
func (f *follower) ask(yield func(Found, error) bool) error {
	segments, err := journal.Segments(f.dir)
	if err != nil {
		return err
	}
	from := f.pos.Next
	if len(segments) > 0 {
		from = max(from, segments[0].First)
	}
	pos, err := journal.Batches(f.dir, from, func(first uint64, records [][]byte, pos journal.Position) error {
		skip := from - min(from, first) // the first batch may have begun before
		if err := f.give(first+skip, records[skip:], yield); err != nil {
			return err
		}
		f.pos = pos
		return nil
	})
	if err == nil && pos.Next >= f.pos.Next { // otherwise there are fewer lines than were asked for
		f.pos = pos
	}
	return err
}

// batches reads the whole batches behind the position. It is a clean end if
// nothing stands behind them.
func (f *follower) batches(file *os.File, yield func(Found, error) bool) (clean bool, err error) {
	in := bufio.NewReader(io.NewSectionReader(file, f.pos.Offset, math.MaxInt64-f.pos.Offset))
	for {
		b, ok := readBatch(in, f.pos)
		if !ok {
			return b.end == f.pos, nil
		}
		if err := f.give(f.pos.Next, b.records, yield); err != nil {
			return false, err
		}
		f.pos = b.end
	}
}

// give hands on the lines that follow the index first.
func (f *follower) give(first uint64, records [][]byte, yield func(Found, error) bool) error {
	for i, r := range records {
		e, err := audit.Decode(r)
		if err != nil {
			continue // a line of a newer version: not ours to print
		}
		if !yield(Found{Stream: f.name, Index: first + uint64(i), Event: e}, nil) {
			return errStop
		}
	}
	return nil
}
