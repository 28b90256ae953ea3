package trail

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"

	"gradegate/internal/journal"
)

// damaged tells why reading stopped, in words for whoever has to act on it.
func (c *check) damaged(err error) {
	var corrupt *journal.CorruptError
	switch {
	case !errors.As(err, &corrupt):
		c.bad("the files cannot be read: %v.", err)
	case strings.Contains(corrupt.Reason, "segment is missing"):
		c.bad("the file %s is missing, and with it its lines.", filepath.Base(corrupt.Path))
	case corrupt.Until > corrupt.Next:
		c.bad("the lines %d to %d cannot be read: in %s %s.", corrupt.Next, corrupt.Until-1, filepath.Base(corrupt.Path), corrupt.Reason)
	default:
		where := fmt.Sprintf("line %d is not what was written (%s, byte %d)", corrupt.Next, filepath.Base(corrupt.Path), corrupt.Offset)
		if c.end.Segment == corrupt.Segment && c.end.Offset > 0 && c.end.Offset <= corrupt.Offset {
			if w, changed := c.afterEnd(); changed {
				where = w
			}
		}
		c.bad("%s: %s.", where, corrupt.Reason)
	}
}

// afterEnd looks at what lies behind the last batch that could be read, and
// tells the first line there that is not what was written. A line that is not
// whole is none: that is how a cut or a crash leaves it.
func (c *check) afterEnd() (where string, changed bool) {
	if c.end.Segment == 0 {
		return "", false
	}
	f, path, err := journal.OpenSegment(c.dir, c.end.Segment)
	if err != nil {
		return "", false
	}
	defer f.Close()
	name := filepath.Base(path)
	in := bufio.NewReader(io.NewSectionReader(f, c.end.Offset, math.MaxInt64-c.end.Offset))
	first, index, at := c.end.Next, c.end.Next, c.end.Offset
	for {
		text, ok := nextLine(in)
		if !ok {
			return "", false
		}
		l, ok := parseLine(text)
		if ok && l.end != nil || !ok && looksLikeEnd(text) {
			return fmt.Sprintf("between line %d and line %d something was changed, taken out or put in (%s, up to byte %d)", first, max(first, index-1), name, at), true
		}
		if !ok {
			return fmt.Sprintf("line %d is not what was written (%s, byte %d)", index, name, at), true
		}
		index++
		at += int64(len(text))
	}
}

// looksLikeEnd says whether a line may have been the end of a batch.
func looksLikeEnd(text []byte) bool {
	return bytes.HasPrefix(text[min(len(text), len(`{"c":"00000000",`)):], []byte(`"b":`))
}
