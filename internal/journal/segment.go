package journal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// formatVersion is the header's format. A reader refuses what it does not know.
const formatVersion = 1

const (
	segmentSuffix = ".jsonl"
	packedSuffix  = ".zst" // more, of a compressed one
	tempSuffix    = ".tmp"
)

// ErrForeign says that a folder holds another stream, or a newer format.
var ErrForeign = errors.New("journal: another stream or format")

// Header is the first line of a segment.
type Header struct {
	Format  int             `json:"format"`
	Stream  string          `json:"stream"`
	Segment uint64          `json:"segment"`
	First   uint64          `json:"first"` // index of the first record
	Prev    Chain           `json:"prev"`  // chain before it
	Meta    json.RawMessage `json:"meta,omitempty"`
}

// encode gives the header as a line.
func (h Header) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // meta is for people, too
	if err := e.Encode(h); err != nil {
		return nil, fmt.Errorf("journal: segment header: %w", err)
	}
	inner := bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
	if err := checkRecord(inner); err != nil {
		return nil, fmt.Errorf("journal: segment header: %w", err)
	}
	return appendLine(nil, kindHeader, inner, checksum(inner)), nil
}

// parseHeader reads a header line without its newline. It accepts exactly what
// encode makes, and whatever another format may have in its header.
func parseHeader(line []byte) (h Header, ok bool) {
	kind, inner, ok := parseLine(line)
	if !ok || kind != kindHeader || json.Unmarshal(inner, &h) != nil {
		return h, false
	}
	if h.Format != formatVersion {
		return h, true
	}
	again, err := h.encode()
	return h, err == nil && bytes.Equal(line, again[:len(again)-1])
}

// segmentName is the file name of a segment.
func segmentName(number uint64) string { return fmt.Sprintf("%08d%s", number, segmentSuffix) }

// listings is how often a folder is looked at before a gap in it is believed: a
// listing beside a compression or a trim may see neither the old nor the new.
const listings = 3

// listSegments gives the numbers of the segments in dir, rising by one. Other
// files are none of our business. Only leading segments may be missing.
func listSegments(dir string) (numbers []uint64, err error) {
	for range listings {
		if numbers, err = listOnce(dir); err == nil {
			return numbers, nil
		}
	}
	return nil, err
}

func listOnce(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var numbers []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(strings.TrimSuffix(e.Name(), packedSuffix), segmentSuffix)
		n, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil && n > 0 && strings.HasPrefix(e.Name(), segmentName(n)) {
			numbers = append(numbers, n)
		}
	}
	slices.SortFunc(numbers, cmp.Compare)
	numbers = slices.Compact(numbers) // both forms, for as long as one replaces the other
	for i := 1; i < len(numbers); i++ {
		missing := numbers[i-1] + 1
		if numbers[i] == missing {
			continue
		}
		if !Exists(dir, missing) {
			return nil, &CorruptError{Path: filepath.Join(dir, segmentName(missing)), Segment: missing, Reason: "segment is missing"}
		}
		numbers = slices.Insert(numbers, i, missing)
	}
	for len(numbers) > 0 && numbers[0] > 1 && Exists(dir, numbers[0]-1) {
		numbers = slices.Insert(numbers, 0, numbers[0]-1)
	}
	return numbers, nil
}

// Exists reports whether there is a segment of that number, in either form.
func Exists(dir string, number uint64) bool {
	path := segmentPath(dir, number)
	return exists(path) || exists(path+packedSuffix)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// create makes a segment durable under its name, with its header and body, and
// returns it open with its size. The name appears by rename: a segment that can be seen is
// whole, so that a crash here loses nothing of the body.
func (j *Journal) create(number uint64, at Position, body []byte) (f file, size int64, err error) {
	path := j.path(number)
	temp := path + tempSuffix
	defer func() {
		if err != nil {
			err = fmt.Errorf("journal: create %s: %w", path, err)
			if f != nil {
				_ = f.Close()
				f = nil
			}
			_ = os.Remove(temp) // Open removes it otherwise
		}
	}()
	h := Header{Format: formatVersion, Stream: j.o.Stream, Segment: number, First: at.Next, Prev: at.Chain}
	if j.o.Meta != nil {
		if h.Meta, err = j.o.Meta(at.Next, at.Chain); err != nil {
			return nil, 0, err
		}
	}
	content, err := h.encode()
	if err != nil {
		return nil, 0, err
	}
	content = append(content, body...)
	if f, err = j.disk.create(temp); err != nil {
		return nil, 0, err
	}
	if err = writeAt(f, content, 0); err != nil {
		return f, 0, err
	}
	if err = f.Datasync(); err != nil {
		return f, 0, err
	}
	if err = j.disk.rename(temp, path); err != nil {
		return f, 0, err
	}
	if err = j.disk.syncDir(j.dir); err != nil {
		return f, 0, err
	}
	return f, int64(len(content)), nil
}

func (j *Journal) path(number uint64) string { return segmentPath(j.dir, number) }
