package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// ErrCorrupt is matched by every CorruptError.
var ErrCorrupt = errors.New("journal: corrupt")

// CorruptError says that the journal is damaged in a way no crash explains.
type CorruptError struct {
	Path    string // file
	Segment uint64 // its number
	Offset  int64  // first byte of the bad line
	Next    uint64 // index of the first record that cannot be read
	Until   uint64 // index of the first one behind it that can be; 0: not known
	Reason  string
}

// Error names file, offset, index and reason.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("journal: corrupt: %s at %d, record %d: %s", e.Path, e.Offset, e.Next, e.Reason)
}

// Is matches ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

const (
	// readChunk is how much is read at once.
	readChunk = 64 << 10
	// maxLine is more than any line we write; a record is the longest.
	maxLine = MaxRecord + lineExtra
	// sector is the least a disk writes at once: a hole left by pages that
	// never reached it ends at a multiple of this.
	sector = 512
)

// errStop is the scanner's inner signal that no batch starts here: either a
// clean end or a bad line, as scanner.bad tells.
var errStop = errors.New("journal: no complete batch")

// scanner reads the batches of one segment. Its memory is one batch.
type scanner struct {
	r      io.ReaderAt
	path   string
	header Header

	mem  []byte // where buf lies, kept for the next chunks
	buf  []byte // bytes of the file from off on
	off  int64
	eof  bool
	used int // bytes of buf that the last batch took

	head    Position // after the last batch
	current batch    // the last batch, in buf
	bad     spot     // set with errStop
}

// spot is why and where a scan stopped.
type spot struct {
	offset int64
	hole   bool // the line runs into unwritten space
	reason string
}

// tail is what lies behind the last good batch of a segment.
type tail struct {
	end      int64 // after the last byte that is not zero
	records  int   // lines that are whole records
	complete bool  // there is a complete batch
	synced   bool  // a later terminator says that the place was on the disk
}

// acknowledged says that no crash explains the tail: it was on the disk, or
// it is neither the last batch nor pages that never reached the disk.
func (t tail) acknowledged(hole bool) bool { return t.synced || (t.complete && !hole) }

const notTorn = ", and later batches show that it was whole"

// start reads the header. errStop means that there is none.
func (s *scanner) start(path string, number uint64) error {
	s.path = path
	s.head.Segment = number
	end, err := s.line(0)
	if err != nil {
		return err
	}
	ok := false
	if end >= 0 {
		s.header, ok = parseHeader(s.buf[:end])
	}
	if !ok {
		s.bad = spot{reason: "no valid segment header"}
		return errStop
	}
	if s.header.Format != formatVersion {
		return fmt.Errorf("%w: %s has format %d, known is %d", ErrForeign, path, s.header.Format, formatVersion)
	}
	if s.header.Segment != number {
		s.bad = spot{reason: fmt.Sprintf("header of segment %d", s.header.Segment)}
		return s.corrupt()
	}
	s.used = end + 1
	s.head = Position{Next: s.header.First, Chain: s.header.Prev, Segment: number, Offset: int64(s.used)}
	return nil
}

func (s *scanner) corrupt() error {
	return &CorruptError{Path: s.path, Segment: s.head.Segment, Offset: s.bad.offset, Next: s.head.Next, Reason: s.bad.reason}
}

// lost says which records a damaged frame of a compressed segment held. A frame
// holds whole batches, so that nothing of it was read.
func (s *scanner) lost(bad *frameError) error {
	e := &CorruptError{Path: s.path, Segment: s.head.Segment, Offset: s.head.Offset, Next: s.head.Next, Reason: bad.Error()}
	z, ok := s.r.(*frames)
	if !ok {
		return e
	}
	err := z.eachSound(bad.off+1, func(plain []byte) bool {
		for line := range bytes.Lines(plain) {
			kind, inner, ok := parseLine(bytes.TrimSuffix(line, []byte{'\n'}))
			if t, isEnd := parseTerminator(inner); ok && kind == kindBatch && isEnd {
				e.Until = t.first
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return e
}

// text is the last batch as it stands in the file.
func (s *scanner) text() []byte { return s.buf[:s.used] }

// advance drops the first n bytes of the buffer.
func (s *scanner) advance(n int) { s.buf, s.off = s.buf[n:], s.off+int64(n) }

// seek forgets what was read, so that it is read again from off on.
func (s *scanner) seek(off int64) { s.buf, s.off, s.eof, s.used = s.mem[:0], off, false, 0 }

// fill reads one more chunk. An I/O error is returned as it is: a bad disk is
// not an end of file.
func (s *scanner) fill() error {
	n := len(s.buf)
	if cap(s.buf)-n < readChunk {
		if cap(s.mem) < n+readChunk {
			s.mem = make([]byte, max(2*cap(s.mem), n+readChunk))
		}
		s.buf = append(s.mem[:0], s.buf...) // to the front
	}
	m, err := s.r.ReadAt(s.buf[n:n+readChunk], s.off+int64(n))
	s.buf = s.buf[:n+m]
	var bad *frameError
	switch {
	case errors.Is(err, io.EOF):
		s.eof, err = true, nil
	case errors.As(err, &bad) && m > 0: // first what lies before it
		return nil
	case errors.As(err, &bad):
		return s.lost(bad)
	}
	if err != nil {
		return fmt.Errorf("journal: read %s at %d: %w", s.path, s.off+int64(n+m), err)
	}
	return nil
}

// line finds the end of the line that starts at buf[at], without its newline;
// -1 if there is no complete line.
func (s *scanner) line(at int) (int, error) {
	for seen := at; ; {
		if i := bytes.IndexByte(s.buf[seen:], '\n'); i >= 0 {
			return seen + i, nil
		}
		seen = len(s.buf)
		if s.eof || seen-at > maxLine || (at < seen && s.buf[at] == 0) {
			return -1, nil
		}
		if err := s.fill(); err != nil {
			return -1, err
		}
	}
}

// next reads one complete batch into current and moves head behind it. At
// anything else it stays where it is and returns errStop.
func (s *scanner) next() error {
	s.advance(s.used)
	s.used = 0
	s.current.inner = s.current.inner[:0]
	for at := 0; ; {
		end, err := s.line(at)
		if err != nil {
			return err
		}
		if end < 0 {
			return s.stop(at, len(s.buf), "incomplete batch")
		}
		kind, inner, ok := parseLine(s.buf[at:end])
		switch {
		case !ok:
			return s.stop(at, end, "line fails its checksum or form")
		case kind == kindRecord:
			from := at + len(linePrefix)
			s.current.inner = append(s.current.inner, span{from, from + len(inner)})
		case kind == kindBatch:
			return s.finish(at, end, inner)
		default:
			return s.stop(at, end, "segment header inside a segment")
		}
		at = end + 1
	}
}

// finish checks the terminator of the current batch, which is buf[at:end].
func (s *scanner) finish(at, end int, inner []byte) error {
	s.current.buf = s.buf
	t, ok := parseTerminator(inner)
	switch {
	case !ok:
		return s.stop(at, end, "malformed terminator")
	case t.n != uint64(len(s.current.inner)):
		return s.stop(at, end, fmt.Sprintf("terminator counts %d records, there are %d", t.n, len(s.current.inner)))
	case t.first != s.head.Next:
		return s.stop(at, end, fmt.Sprintf("batch starts at record %d", t.first))
	case t.chain != extend(s.head.Chain, s.buf, s.current.inner):
		return s.stop(at, end, "chain hash does not follow from the records before")
	}
	s.used = end + 1
	s.head.Next += t.n
	s.head.Chain = t.chain
	s.head.Offset += int64(s.used)
	return nil
}

// stop records why buf[at:end] ended the scan.
func (s *scanner) stop(at, end int, reason string) error {
	s.bad = spot{offset: s.off + int64(at), reason: reason}
	if zero := bytes.IndexByte(s.buf[at:end], 0); zero >= 0 {
		last := at + zero
		for last < len(s.buf) && s.buf[last] == 0 {
			last++
		}
		s.bad.hole = last == len(s.buf) || (s.off+int64(last))%sector == 0
	}
	return errStop
}

// settle decides, after errStop in the last segment, what the rest is: nil
// means that the segment ends here with a tail that may be cut, which includes
// none; errRetry that a live writer has meanwhile completed the batch.
func (s *scanner) settle() (tail, error) {
	t, err := s.rest(s.head.Offset)
	if err != nil || !t.acknowledged(s.bad.hole) {
		return t, err
	}
	// A reader beside a live writer may have seen half of a batch first and the
	// next one later. Written in order, it must be whole by now.
	bad := s.bad
	s.seek(s.head.Offset)
	err = s.next()
	if err == nil {
		return t, errRetry
	}
	if !errors.Is(err, errStop) {
		return t, err
	}
	s.bad = bad
	s.bad.reason += notTorn
	return t, s.corrupt()
}

// errRetry says that next has succeeded after all; see settle.
var errRetry = errors.New("journal: batch completed meanwhile")

// rest looks at everything from off to the end of the file.
func (s *scanner) rest(off int64) (t tail, err error) {
	p := scanner{r: s.r, path: s.path, off: off}
	t.end = off
	for run := uint64(0); ; {
		if err := p.skipZeros(); err != nil || len(p.buf) == 0 {
			return t, err
		}
		end, err := p.line(0)
		if err != nil {
			return t, err
		}
		whole := end >= 0
		if !whole {
			end = len(p.buf)
		}
		t.end = p.off + int64(len(bytes.TrimRight(p.buf[:end], "\x00")))
		kind, inner, ok := parseLine(p.buf[:end])
		switch {
		case !whole || !ok || kind == kindHeader:
			run = 0
		case kind == kindRecord:
			run++
			t.records++
		default:
			if b, ok := parseTerminator(inner); ok {
				t.complete = t.complete || b.n <= run
				t.synced = t.synced || b.synced > s.head.Next
			}
			run = 0
		}
		if whole {
			end++
			t.end = p.off + int64(end)
		}
		p.advance(end)
	}
}

// skipZeros moves to the next byte that is not zero; the buffer is empty at the
// end of the file.
func (s *scanner) skipZeros() error {
	for {
		s.advance(len(s.buf) - len(bytes.TrimLeft(s.buf, "\x00")))
		if len(s.buf) > 0 || s.eof {
			return nil
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// segmentPath is the path of a segment in dir.
func segmentPath(dir string, number uint64) string { return filepath.Join(dir, segmentName(number)) }
