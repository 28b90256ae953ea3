package trail

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
)

// An index says of a sealed segment which of its blocks hold lines of which time, so
// that a search reads those alone. It lies beside the segment, follows from it, and may be
// deleted: then the whole segment is read, until the server has made it anew. A block begins
// where a frame of the compressed segment does.
type index struct {
	End    uint64  `json:"end"` // behind the segment's last line
	Blocks []block `json:"blocks"`
}

// block is a piece of a segment: batches of a megabyte or so.
type block struct {
	Next   uint64        `json:"next"` // index of its first line
	Chain  journal.Chain `json:"chain"`
	Offset int64         `json:"offset"` // in the plain segment
	From   time.Time     `json:"from"`   // of its earliest line
	To     time.Time     `json:"to"`     // of its latest
}

func (b *block) see(at time.Time) {
	if b.From.IsZero() || at.Before(b.From) {
		b.From = at
	}
	if at.After(b.To) {
		b.To = at
	}
}

func (b *block) position(segment uint64) journal.Position {
	return journal.Position{Next: b.Next, Chain: b.Chain, Segment: segment, Offset: b.Offset}
}

// blockBytes is that of a frame.
const blockBytes = 1 << 20

func indexPath(s *journal.Segment) string {
	return filepath.Join(filepath.Dir(s.Path), fmt.Sprintf("%08d.index", s.Segment))
}

// readIndex gives a segment's index; nil if there is none that fits. What it says
// of the places is checked by the reading, and what it says of times by Verify.
func readIndex(s, following *journal.Segment) *index {
	data, err := os.ReadFile(indexPath(s))
	if err != nil {
		return nil
	}
	var x index
	if json.Unmarshal(data, &x) != nil || x.End != following.First || len(x.Blocks) == 0 ||
		x.Blocks[0].Next != s.First || x.Blocks[0].Chain != s.Prev {
		return nil
	}
	for i := range x.Blocks {
		if i > 0 && (x.Blocks[i].Next <= x.Blocks[i-1].Next || x.Blocks[i].Offset <= x.Blocks[i-1].Offset) {
			return nil
		}
	}
	return &x
}

// latest is the instant of the latest line.
func (x *index) latest() (t time.Time) {
	for i := range x.Blocks {
		if x.Blocks[i].To.After(t) {
			t = x.Blocks[i].To
		}
	}
	return t
}

// makeIndex reads a sealed segment and gives its index.
func makeIndex(s, following *journal.Segment) (*index, error) {
	x := &index{End: following.First}
	at := journal.Position{Next: s.First, Chain: s.Prev, Offset: s.Body}
	err := journal.Part(*s, following, journal.Position{}, func(_ uint64, records [][]byte, pos journal.Position) error {
		if n := len(x.Blocks); n == 0 || at.Offset-x.Blocks[n-1].Offset >= blockBytes {
			x.Blocks = append(x.Blocks, block{Next: at.Next, Chain: at.Chain, Offset: at.Offset})
		}
		b := &x.Blocks[len(x.Blocks)-1]
		for _, r := range records {
			if t, ok := timeOf(r); ok {
				b.see(t)
			} else { // a line of a newer version may be of any time
				b.From, b.To = time.Unix(0, 0).UTC(), endOfTime
			}
		}
		at = pos
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	return x, nil
}

// endOfTime is later than any line.
var endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// timeOf is the instant of an encoded event. Looking for it spares the decoding:
// it is the second member.
func timeOf(line []byte) (time.Time, bool) {
	id := idOf(line)
	rest, ok := bytes.CutPrefix(line[min(len(line), len(`{"id":"`)+len(id)):], []byte(`","at":"`))
	if end := bytes.IndexByte(rest, '"'); ok && id != nil && end > 0 {
		if t, err := time.Parse(time.RFC3339Nano, string(rest[:end])); err == nil {
			return t, true
		}
	}
	e, err := audit.Decode(line)
	return e.At, err == nil && !e.At.IsZero()
}

// writeIndex keeps an index. A crash may leave half of one: it does not fit then,
// and is made anew.
func writeIndex(s *journal.Segment, x *index) error {
	data, err := json.Marshal(x)
	if err != nil {
		return err
	}
	temp := indexPath(s) + ".tmp"
	err = errors.Join(os.WriteFile(temp, append(data, '\n'), 0o600), os.Rename(temp, indexPath(s)))
	if err != nil {
		return fmt.Errorf("trail: index: %w", err)
	}
	return nil
}

// lineSpan is what an index says of the lines before an index.
type lineSpan struct {
	block
	end  uint64
	file string
}

// spansOf are the blocks of all indices.
func spansOf(segments []journal.Segment) (all []lineSpan) {
	for i := range segments[:max(0, len(segments)-1)] {
		x := readIndex(&segments[i], &segments[i+1])
		if x == nil {
			continue
		}
		for k, b := range x.Blocks {
			end := x.End
			if k+1 < len(x.Blocks) {
				end = x.Blocks[k+1].Next
			}
			all = append(all, lineSpan{b, end, filepath.Base(segments[i].Path)})
		}
	}
	return all
}

// timed compares a line with what an index says of its time: a search would pass
// over it otherwise.
func (r *replay) timed(line []byte) {
	for len(r.spans) > 0 && r.spans[0].end <= r.e.Size {
		r.spans = r.spans[1:]
	}
	if len(r.spans) == 0 || r.e.Size < r.spans[0].Next {
		return
	}
	s := &r.spans[0]
	if at, ok := timeOf(line); ok && (at.Before(s.From) || at.After(s.To)) {
		r.bad("the index of %s says that line %d is of another time than it is, so that a search may not find it. The index may be deleted: the server makes it anew.", s.file, r.e.Size)
		r.spans = r.spans[1:] // once for each
	}
}
