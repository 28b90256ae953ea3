package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Recovery is what Open found and did.
type Recovery struct {
	Position      // where the journal goes on
	Created  bool // there was no segment before
	Removed  int  // segments without a valid header: a crash while creating them
	Cut      Cut  // the incomplete tail, if there was one
}

// Cut is an incomplete tail that Open removed. None of it was acknowledged with
// sync.
type Cut struct {
	Bytes   int64 // zero if nothing was cut
	Records int   // whole record lines among them
	Segment uint64
	Offset  int64
	Reason  string
}

// Open opens the journal in dir, which it creates with mode 0700 if it is missing, and
// recovers from a crash. It verifies the last segment in full and no other; see
// Verify for the rest. What it found is durable when it returns.
func Open(dir string, o Options) (*Journal, Recovery, error) { return open(dir, o, osDisk{}) }

func open(dir string, o Options, d disk) (*Journal, Recovery, error) {
	if o.Stream == "" || !utf8.ValidString(o.Stream) {
		return nil, Recovery{}, errors.New("journal: Options.Stream is missing or not UTF-8")
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	j := &Journal{dir: dir, o: o, disk: d}
	j.idle.L = &j.mu
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, Recovery{}, fmt.Errorf("journal: %w", err)
	}
	rec, err := j.recover()
	if err != nil {
		if j.f != nil {
			_ = j.f.Close() // the first error is the one to report
		}
		return nil, rec, err
	}
	return j, rec, nil
}

func (j *Journal) recover() (rec Recovery, err error) {
	if err := j.removeTemps(); err != nil {
		return rec, err
	}
	numbers, err := listSegments(j.dir)
	if err != nil {
		return rec, err
	}
	for len(numbers) > 0 {
		last := numbers[len(numbers)-1]
		err := j.adopt(last, &rec)
		if !errors.Is(err, errStop) {
			return rec, err
		}
		// There is no header, and no complete batch either. Under a number above
		// one it is the whole journal only if its past is gone.
		if len(numbers) == 1 && last > 1 {
			return rec, &CorruptError{Path: j.path(last), Segment: last, Reason: "the only segment has no valid header"}
		}
		if err := os.Remove(j.path(last)); err != nil {
			return rec, fmt.Errorf("journal: %w", err)
		}
		rec.Removed++
		numbers = numbers[:len(numbers)-1]
	}
	rec.Created = true
	err = j.goOn(1, Position{}, &rec)
	return rec, err
}

// goOn begins a segment behind everything that is there.
func (j *Journal) goOn(number uint64, at Position, rec *Recovery) error {
	f, size, err := j.create(number, at, nil)
	if err != nil {
		return err
	}
	j.f, j.first, j.allocated = f, at.Next, size
	at.Segment, at.Offset = number, size
	j.head, j.safe = at, at
	rec.Position = at
	return nil
}

// removeTemps removes what a crash left of segments in the making.
func (j *Journal) removeTemps() error {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), segmentSuffix+tempSuffix) || strings.HasSuffix(e.Name(), segmentSuffix+packedSuffix+tempSuffix) {
			if err := os.Remove(filepath.Join(j.dir, e.Name())); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
		}
	}
	return nil
}

// adopt makes a segment the active one, after cutting its torn tail. errStop
// means that it has no header and may be removed.
func (j *Journal) adopt(number uint64, rec *Recovery) error {
	path := j.path(number)
	s, t, err := scanLast(path, number)
	if err != nil {
		return err
	}
	if s.header.Stream != j.o.Stream {
		return fmt.Errorf("%w: %s belongs to stream %q, not %q", ErrForeign, path, s.header.Stream, j.o.Stream)
	}
	if !exists(path) { // it is compressed, and what followed it is gone
		return j.goOn(number+1, s.head, rec)
	}
	f, err := j.disk.open(path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.f = f
	if t.end > s.head.Offset {
		rec.Cut = Cut{Bytes: t.end - s.head.Offset, Records: t.records, Segment: number, Offset: s.head.Offset, Reason: s.bad.reason}
		if err := f.Truncate(s.head.Offset); err != nil {
			return fmt.Errorf("journal: cut %s at %d: %w", path, s.head.Offset, err)
		}
	}
	// A batch that a killed process left in the page cache is about to be
	// acted upon: it has to be durable first, and so has the segment's name.
	if err := f.Datasync(); err != nil {
		return fmt.Errorf("journal: fsync %s: %w", path, err)
	}
	if err := j.disk.syncDir(j.dir); err != nil {
		return fmt.Errorf("journal: fsync %s: %w", j.dir, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.head, j.safe = s.head, s.head
	j.first, j.allocated = s.header.First, info.Size()
	rec.Position = j.head
	return nil
}

// scanLast verifies the last segment of a journal up to its end.
func scanLast(path string, number uint64) (*scanner, tail, error) {
	f, path, err := openSegment(path)
	if err != nil {
		return nil, tail{}, err
	}
	defer f.Close()
	s := &scanner{r: f}
	if err := s.begin(path, number); err != nil {
		return nil, tail{}, err
	}
	for {
		err := s.next()
		if errors.Is(err, errStop) {
			var t tail
			if t, err = s.settle(); err == nil {
				return s, t, nil
			}
			if errors.Is(err, errRetry) {
				continue
			}
		}
		if err != nil {
			return nil, tail{}, err
		}
	}
}

// begin is start for the last segment: a missing header is errStop only if
// nothing in the file was ever acknowledged.
func (s *scanner) begin(path string, number uint64) error {
	err := s.start(path, number)
	if !errors.Is(err, errStop) {
		return err
	}
	t, rerr := s.rest(0)
	switch {
	case rerr != nil:
		return rerr
	case t.complete || t.synced: // a header is always synced before its batches
		s.bad.reason += notTorn
		return s.corrupt()
	}
	return err
}
