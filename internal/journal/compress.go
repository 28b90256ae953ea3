package journal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// frameBytes is how much plain text goes into one frame, at least: damage costs
// that much, and reading from the midst of a segment begins with unfolding it.
const frameBytes = 1 << 20

// newPacker makes what compresses, with one processor at a time: whoever answers
// requests has the others.
func newPacker() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// The points between two steps of a compression, where a test ends the process.
const (
	pointBegun    = "the temporary file is there"
	pointHalf     = "half of it is written"
	pointWritten  = "it is durable"
	pointChecked  = "it was read back"
	pointRenamed  = "it has its name"
	pointNamed    = "its name is durable"
	pointReplaced = "the plain file is gone"
)

// crashPoint is nothing except in tests.
var crashPoint = func(point string) {}

// Compress replaces the plain file of a sealed segment, which is one that
// another follows, by a compressed one. What goes is read back first, line by line and
// against the chain. Whenever the process or the power goes, the segment can be read:
// as long as both files are there, the plain one counts, and Compress begins anew.
// A segment that is damaged stays as it is, and the error says so. pace is called between pieces of
// work, and may wait.
func Compress(ctx context.Context, seg, following Segment, pace func()) error {
	return compress(ctx, seg, following, pace, osDisk{})
}

func compress(ctx context.Context, seg, following Segment, pace func(), d disk) error {
	if seg.Compressed {
		return nil
	}
	dir, packed := filepath.Dir(seg.Path), seg.Path+packedSuffix
	temp := packed + tempSuffix
	if err := pack(ctx, seg, following, pace, d, temp); err != nil {
		_ = os.Remove(temp) // Open removes it otherwise
		return err
	}
	crashPoint(pointChecked)
	err := d.rename(temp, packed)
	if err == nil {
		crashPoint(pointRenamed)
		err = d.syncDir(dir)
	}
	if err == nil {
		crashPoint(pointNamed)
		err = d.remove(seg.Path)
	}
	if err == nil {
		crashPoint(pointReplaced)
		err = d.syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("journal: compress %s: %w", seg.Path, err)
	}
	return nil
}

// pack writes the compressed form of a segment to a file, makes it durable and
// reads it back.
func pack(ctx context.Context, seg, following Segment, pace func(), d disk, path string) (err error) {
	f, err := d.create(path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	crashPoint(pointBegun)
	p := &packing{f: f, packer: newPacker(), sum: sha256.New()}
	step := func() error {
		pace()
		return ctx.Err()
	}
	err = p.segment(seg, following, step)
	if err == nil {
		if err = f.Datasync(); err == nil {
			crashPoint(pointWritten)
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("journal: compress %s: %w", seg.Path, err)
	}
	again := &packing{sum: sha256.New()}
	seg.Path, seg.Compressed = path, true
	if err := again.segment(seg, following, step); err != nil {
		return fmt.Errorf("journal: reading back: %w", err)
	}
	if !bytes.Equal(again.sum.Sum(nil), p.sum.Sum(nil)) {
		return fmt.Errorf("journal: reading back %s: other lines than were written", path)
	}
	return nil
}

// packing is a segment on its way into frames.
type packing struct {
	f      file // nil: it is only read
	packer *zstd.Encoder

	off   int64
	sum   hash.Hash // of the plain text
	plain []byte
	raw   []byte
}

// segment goes through all that counts of a segment: what lies behind the place where
// the next one begins is void, and left out.
func (p *packing) segment(seg, following Segment, step func() error) error {
	header, err := seg.encode()
	if err != nil {
		return err
	}
	p.plain = append(p.plain, header...)
	if err := p.frame(); err != nil { // by itself, so that it is quickly read
		return err
	}
	_, err = scanSegment(seg, &following, func(s *scanner) error {
		p.plain = append(p.plain, s.text()...)
		if len(p.plain) < frameBytes {
			return nil
		}
		return errors.Join(p.frame(), step())
	})
	if err == nil && len(p.plain) > 0 {
		err = p.frame()
	}
	return err
}

// frame ends a frame and writes it.
func (p *packing) frame() error {
	p.sum.Write(p.plain)
	if p.f != nil {
		p.raw = p.packer.EncodeAll(p.plain, p.raw[:0])
		half := len(p.raw) / 2
		if err := writeAt(p.f, p.raw[:half], p.off); err != nil {
			return err
		}
		crashPoint(pointHalf)
		if err := writeAt(p.f, p.raw[half:], p.off+int64(half)); err != nil {
			return err
		}
		p.off += int64(len(p.raw))
	}
	p.plain = p.plain[:0]
	return nil
}

// Drop removes the segments of a journal that are given, which are its oldest ones, in
// both forms, the oldest first: whenever it is interrupted, what is left has no gap.
func Drop(oldest []Segment) error { return drop(oldest, osDisk{}) }

func drop(oldest []Segment, d disk) error {
	for _, s := range oldest {
		plain := strings.TrimSuffix(s.Path, packedSuffix)
		for _, path := range []string{plain, plain + packedSuffix} {
			if err := d.remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("journal: %w", err)
			}
		}
		if err := d.syncDir(filepath.Dir(plain)); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}
