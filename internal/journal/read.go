package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrRemoved says that the records asked for were in segments that are no
// longer there.
var ErrRemoved = errors.New("journal: records were removed")

// Segment describes one file of a journal.
type Segment struct {
	Header
	Path       string
	Size       int64 // bytes of the file, allocated space included
	Body       int64 // where its batches begin, behind the header of the plain form
	Compressed bool
}

// Record is one record as Read gives it.
type Record struct {
	Index   uint64
	Data    []byte // valid only during the call
	Segment uint64
	Last    bool // the last of its batch
}

// Segments lists the segments of the journal in dir in order. A last one without
// a valid header, left by a crash, is left out. It needs no lock.
func Segments(dir string) (segments []Segment, err error) {
	for range listings {
		if segments, err = segmentsOnce(dir); !errors.Is(err, fs.ErrNotExist) {
			break // otherwise the oldest were removed meanwhile, or there is no folder
		}
	}
	return segments, err
}

func segmentsOnce(dir string) ([]Segment, error) {
	numbers, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	segments := make([]Segment, 0, len(numbers))
	for i, number := range numbers {
		seg, err := readSegment(segmentPath(dir, number), number, i == len(numbers)-1)
		if errors.Is(err, errStop) {
			break
		}
		if errors.Is(err, fs.ErrNotExist) && i < len(numbers)-1 {
			segments = segments[:0] // the oldest were removed meanwhile, up to this one
			continue
		}
		if err != nil {
			return nil, err
		}
		if n := len(segments); n > 0 && (seg.Stream != segments[0].Stream || seg.First < segments[n-1].First) {
			return nil, &CorruptError{Path: seg.Path, Segment: number, Next: seg.First, Reason: "header does not follow from the segment before"}
		}
		segments = append(segments, seg)
	}
	return segments, nil
}

// readSegment reads a header. errStop means: last, and left by a crash.
func readSegment(path string, number uint64, last bool) (Segment, error) {
	f, path, err := openSegment(path)
	if err != nil {
		return Segment{}, err
	}
	defer f.Close()
	info, err := os.Stat(path)
	if err != nil {
		return Segment{}, fmt.Errorf("journal: %w", err)
	}
	s := &scanner{r: f}
	if last {
		err = s.begin(path, number)
	} else if err = s.start(path, number); errors.Is(err, errStop) {
		err = s.corrupt()
	}
	return Segment{Header: s.header, Path: path, Size: info.Size(), Body: s.head.Offset, Compressed: isPacked(path)}, err
}

// Batches calls fn for every complete batch in dir that ends behind index from, whole, in
// order, with the index of its first record and the position after it. The
// slices are valid only during the call. An error of fn ends the reading and is
// returned as it is.
//
// It needs no lock. Beside a live writer it sees whole batches only, and
// possibly one that is not acknowledged yet and may still become void. An incomplete
// tail is the end, not an error. If from lies before the first segment that
// still exists, the error is ErrRemoved; Segments tells where that one starts.
// The position returned is where the reading ended.
func Batches(dir string, from uint64, fn func(first uint64, records [][]byte, pos Position) error) (Position, error) {
	segments, err := Segments(dir)
	if err != nil || len(segments) == 0 {
		return Position{}, err
	}
	if from < segments[0].First {
		return Position{}, fmt.Errorf("%w: %s starts at record %d, not %d", ErrRemoved, segments[0].Path, segments[0].First, from)
	}
	var records [][]byte
	each := func(s *scanner) error {
		if s.head.Next <= from {
			return nil
		}
		records = s.current.records(records[:0])
		return fn(s.head.Next-uint64(len(records)), records, s.head)
	}
	var pos Position
	for i, seg := range segments {
		var following *Segment
		if i+1 < len(segments) {
			following = &segments[i+1]
			if following.First <= from {
				continue
			}
		}
		if pos, err = scanSegment(seg, following, each); err != nil {
			return pos, err
		}
	}
	return pos, nil
}

// Read calls fn for every record from index from on; otherwise it is Batches.
func Read(dir string, from uint64, fn func(Record) error) (Position, error) {
	return Batches(dir, from, func(first uint64, records [][]byte, pos Position) error {
		for i, data := range records {
			index := first + uint64(i)
			if index < from {
				continue
			}
			if err := fn(Record{Index: index, Data: data, Segment: pos.Segment, Last: i == len(records)-1}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Verify reads everything that is there and returns the position after it. It
// proves that the lines are whole and chained, from the first segment that still
// exists; who wrote them is for the caller's signatures to say.
func Verify(dir string) (Position, error) {
	segments, err := Segments(dir)
	if err != nil || len(segments) == 0 {
		return Position{}, err
	}
	return Batches(dir, segments[0].First, func(uint64, [][]byte, Position) error { return nil })
}

// Part calls fn for every batch of one segment from a place on, which is one that
// a reading gave, or from its begin if that is the zero Position. following is the next
// segment, nil if there is none.
func Part(seg Segment, following *Segment, from Position, fn func(first uint64, records [][]byte, pos Position) error) error {
	var records [][]byte
	_, err := scanFrom(seg, following, from, func(s *scanner) error {
		records = s.current.records(records[:0])
		return fn(s.head.Next-uint64(len(records)), records, s.head)
	})
	return err
}

// scanSegment calls each after every batch of a segment. It goes up to the place
// where the following segment continues, ignoring what lies beyond: that was
// void. Without a following segment it goes up to the last complete batch.
func scanSegment(seg Segment, following *Segment, each func(*scanner) error) (Position, error) {
	return scanFrom(seg, following, Position{}, each)
}

func scanFrom(seg Segment, following *Segment, from Position, each func(*scanner) error) (Position, error) {
	f, path, err := openSegment(seg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Position{}, fmt.Errorf("%w meanwhile: %s", ErrRemoved, seg.Path)
	}
	if err != nil {
		return Position{}, err
	}
	defer f.Close()
	s := &scanner{r: f}
	if from != (Position{}) {
		s.path, s.header, s.head = path, seg.Header, from
		s.seek(from.Offset)
	} else if err := s.start(path, seg.Segment); err != nil {
		if errors.Is(err, errStop) {
			err = s.corrupt()
		}
		return s.head, err
	}
	for following == nil || s.head.Next < following.First {
		err := s.next()
		if errors.Is(err, errStop) {
			if following != nil {
				s.bad.reason += fmt.Sprintf(", but the next segment continues at record %d", following.First)
				return s.head, s.corrupt()
			}
			if _, err = s.settle(); err == nil {
				return s.head, nil
			}
			if errors.Is(err, errRetry) {
				err = nil
			}
		}
		if err == nil {
			err = each(s)
		}
		if err != nil {
			return s.head, bounded(err, following)
		}
	}
	if s.head.Next != following.First || s.head.Chain != following.Prev {
		s.bad = spot{offset: s.head.Offset, reason: fmt.Sprintf("the next segment continues at record %d with another chain", following.First)}
		return s.head, s.corrupt()
	}
	return s.head, nil
}

// bounded adds to damage whose end is not known where the next segment begins.
func bounded(err error, following *Segment) error {
	var e *CorruptError
	if errors.As(err, &e) && e.Until == 0 && following != nil {
		e.Until = following.First
	}
	return err
}
