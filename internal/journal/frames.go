package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// maxFrame bounds what one frame may unfold to: far more than a batch of the
// largest records there are, and less than what would fill a machine.
const maxFrame = 256 << 20

// newUnpacker makes what unfolds frames. There is one for each file that is open, as
// there are channels in it, and those belong to who made them.
func newUnpacker() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}

// SegmentFile is a segment to be read, as its lines stand in the plain file.
type SegmentFile interface {
	io.ReaderAt
	io.Closer
}

// OpenSegment opens a segment in either form for reading. The name is that of
// the file it found.
func OpenSegment(dir string, number uint64) (f SegmentFile, name string, err error) {
	return openSegment(segmentPath(dir, number))
}

// openSegment opens a segment whose plain or compressed file is path. A plain
// one that is gone may have been compressed in this moment.
func openSegment(path string) (SegmentFile, string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(path, segmentSuffix) {
		path += packedSuffix
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, path, fmt.Errorf("journal: %w", err)
	}
	if !isPacked(path) {
		return f, path, nil
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // the first error is the one to report
		return nil, path, fmt.Errorf("journal: %w", err)
	}
	return &frames{f: f, end: info.Size(), at: -1, unpacker: newUnpacker()}, path, nil
}

func isPacked(path string) bool {
	return strings.HasSuffix(strings.TrimSuffix(path, tempSuffix), packedSuffix)
}

// frames reads a compressed segment as if it were plain. It walks from frame to
// frame by their headers and unfolds one at a time. It is not for concurrent use.
type frames struct {
	f        *os.File
	unpacker *zstd.Decoder

	end   int64   // of the file
	known []frame // from the first on, without a gap
	at    int     // the number of the one in plain; -1: none
	plain []byte
	raw   []byte
}

// frame is a piece of a compressed segment.
type frame struct {
	off, size   int64 // in the file
	from, plain int64 // in the plain segment: where it begins, and its length
}

// frameError says that a frame is not what was written.
type frameError struct {
	off int64 // in the file
	err error
}

func (e *frameError) Error() string {
	return fmt.Sprintf("the compressed frame at byte %d is damaged: %v", e.off, e.err)
}
func (e *frameError) Unwrap() error { return e.err }

// Close closes the file.
func (z *frames) Close() error {
	z.unpacker.Close()
	return z.f.Close()
}

// ReadAt reads plain bytes. Behind a damaged frame it reads nothing.
func (z *frames) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		i, err := z.find(off + int64(n))
		if err != nil {
			return n, err
		}
		if err := z.unfold(i); err != nil {
			return n, err
		}
		n += copy(p[n:], z.plain[off+int64(n)-z.known[i].from:])
	}
	return n, nil
}

// find is the number of the frame that holds a plain byte.
func (z *frames) find(off int64) (int, error) {
	for i := max(0, z.at); ; i++ {
		if i == len(z.known) {
			if err := z.walk(); err != nil {
				return 0, err
			}
		}
		switch f := z.known[i]; {
		case off < f.from: // behind us
			i = -1
		case off < f.from+f.plain:
			return i, nil
		}
	}
}

// walk finds out about one more frame.
func (z *frames) walk() error {
	var next frame
	if n := len(z.known); n > 0 {
		last := z.known[n-1]
		next.off, next.from = last.off+last.size, last.from+last.plain
	}
	if next.off >= z.end {
		return io.EOF
	}
	if err := z.measure(&next); err != nil {
		return err
	}
	z.known = append(z.known, next)
	return nil
}

var errFrame = errors.New("no frame of a segment")

// measure reads the size of a frame from its header and those of its blocks
// (RFC 8878, 3.1.1).
func (z *frames) measure(f *frame) error {
	bad := func(err error) error { return &frameError{f.off, err} }
	var buf [zstd.HeaderMaxSize]byte
	n, err := z.f.ReadAt(buf[:], f.off)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("journal: %w", err)
	}
	var h zstd.Header
	if err := h.Decode(buf[:n]); err != nil {
		return bad(err)
	}
	if h.Skippable || !h.HasFCS || h.FrameContentSize == 0 || h.FrameContentSize > maxFrame || !h.HasCheckSum {
		return bad(errFrame)
	}
	f.plain, f.size = int64(h.FrameContentSize), int64(h.HeaderSize) //nolint:gosec // below maxFrame
	const head, sum = 3, 4
	for last := false; !last; {
		if _, err := z.f.ReadAt(buf[:head], f.off+f.size); errors.Is(err, io.EOF) {
			return bad(io.ErrUnexpectedEOF)
		} else if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		word := int64(buf[0]) | int64(buf[1])<<8 | int64(buf[2])<<16
		last = word&1 == 1
		size := word >> 3
		if word>>1&3 == 1 { // one byte, repeated
			size = 1
		}
		f.size += head + size
	}
	if f.size += sum; f.off+f.size > z.end {
		return bad(io.ErrUnexpectedEOF)
	}
	return nil
}

// unfold puts a known frame into plain.
func (z *frames) unfold(i int) error {
	if z.at == i {
		return nil
	}
	z.at = -1
	f := z.known[i]
	if int64(cap(z.raw)) < f.size {
		z.raw = make([]byte, f.size)
	}
	raw := z.raw[:f.size]
	if _, err := z.f.ReadAt(raw, f.off); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	var err error
	if z.plain, err = z.unpacker.DecodeAll(raw, z.plain[:0]); err != nil {
		return &frameError{f.off, err}
	}
	if int64(len(z.plain)) != f.plain {
		return &frameError{f.off, errFrame}
	}
	z.at = i
	return nil
}

// frameMagic begins each frame.
var frameMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// eachSound calls fn with the plain text of every frame from a place in the file
// on that is whole, also behind damage, until fn says that it has enough.
func (z *frames) eachSound(off int64, fn func(plain []byte) (more bool)) error {
	data := make([]byte, z.end-min(off, z.end))
	if _, err := z.f.ReadAt(data, off); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("journal: %w", err)
	}
	for {
		next := bytes.Index(data, frameMagic)
		if next < 0 {
			return nil
		}
		data, off = data[next:], off+int64(next)
		f := frame{off: off}
		size := int64(len(frameMagic))
		if z.measure(&f) == nil {
			plain, err := z.unpacker.DecodeAll(data[:f.size], nil)
			if err == nil {
				if !fn(plain) {
					return nil
				}
				size = f.size
			}
		}
		data, off = data[size:], off+size
	}
}
