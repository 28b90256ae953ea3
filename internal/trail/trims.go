package trail

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gradegate/internal/journal"
)

// trimsFile holds, in a stream's folder, a signed record of each time that its
// oldest segments were dropped: the certificate of their deletion, and what the
// lines that are left are proven from. It is never cut.
const trimsFile = "trims"

// trim is such a record: a checkpoint of the lines that are gone, so that whatever
// was signed of the stream before and after can be compared with it, and the
// right edge of their tree, from which it goes on.
type trim struct {
	checkpoint
	From             uint64 // the first line that was dropped; Size is the first that was not
	First, Last      uint64 // numbers of the segments
	Earliest, Latest time.Time
	Why              string        // retention, lost
	Keep             time.Duration // that old everything was, at least
	Event            string        // id of its line in the trail
	Roots            []tlog.Hash
}

// Why lines are gone.
const (
	retention = "retention"
	// lost is said by a sink that finds its folder empty, as on a new disk, and goes on there.
	lost = "lost"
)

// trimStream is how a record names its stream, so that none can pass for a
// checkpoint.
func trimStream(name string) string { return name + "/trim" }

func (t *trim) edge() edge { return edge{Size: t.Size, Roots: slices.Clone(t.Roots)} }

func (t *trim) text() string {
	c := t.checkpoint
	c.Stream = trimStream(c.Stream)
	text := c.text() + fmt.Sprintf("why %s\nfrom %d\nsegments %d %d\n", t.Why, t.From, t.First, t.Last)
	if t.Why == retention {
		text += fmt.Sprintf("span %s %s\nkeep %s\nevent %s\n",
			t.Earliest.UTC().Format(time.RFC3339Nano), t.Latest.UTC().Format(time.RFC3339Nano), t.Keep, t.Event)
	}
	for _, h := range t.Roots {
		text += "edge " + base64.StdEncoding.EncodeToString(h[:]) + "\n"
	}
	return text
}

var errTrim = errors.New("no record of a trim")

func parseTrim(text string) (t trim, err error) {
	if t.checkpoint, err = parseCheckpoint(text); err != nil {
		return t, err
	}
	var ok bool
	if t.Stream, ok = strings.CutSuffix(t.Stream, trimStream("")); !ok {
		return t, errTrim
	}
	for line := range strings.Lines(text) {
		if err := t.set(strings.Fields(line)); err != nil {
			return t, errors.Join(errTrim, err)
		}
	}
	e := t.edge()
	if len(e.Roots) != bits.OnesCount64(e.Size) || e.root() != t.Root || t.From >= t.Size || t.First > t.Last {
		return t, errTrim
	}
	return t, nil
}

// set takes the value of one line. What it does not know is left alone.
func (t *trim) set(words []string) error {
	if len(words) == 0 {
		return nil
	}
	var err [2]error
	switch key, n := words[0], len(words); {
	case key == "why" && n == 2:
		t.Why = words[1]
	case key == "from" && n == 2:
		t.From, err[0] = strconv.ParseUint(words[1], 10, 63)
	case key == "segments" && n == 3:
		t.First, err[0] = strconv.ParseUint(words[1], 10, 63)
		t.Last, err[1] = strconv.ParseUint(words[2], 10, 63)
	case key == "span" && n == 3:
		t.Earliest, err[0] = time.Parse(time.RFC3339Nano, words[1])
		t.Latest, err[1] = time.Parse(time.RFC3339Nano, words[2])
	case key == "keep" && n == 2:
		t.Keep, err[0] = time.ParseDuration(words[1])
	case key == "event" && n == 2:
		t.Event = words[1]
	case key == "edge" && n == 2:
		var h tlog.Hash
		h, err[0] = tlog.ParseHash(words[1])
		t.Roots = append(t.Roots, h)
	}
	return errors.Join(err[:]...)
}

// signTrim gives a record as a signed note.
func (s *signer) signTrim(t *trim) ([]byte, error) { return note.Sign(&note.Note{Text: t.text()}, s) }

func openTrim(msg []byte, v note.Verifier) (trim, error) {
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return trim{}, fmt.Errorf("trim: %w", err)
	}
	return parseTrim(n.Text)
}

// readTrim reads a record without looking at its signature.
func readTrim(msg []byte) (trim, error) {
	text, _, ok := strings.Cut(string(msg), "\n\n")
	if !ok {
		return trim{}, errTrim
	}
	return parseTrim(text + "\n")
}

// trimNotes are the records of a stream's folder as they are stored, oldest first.
func trimNotes(dir string) (notes [][]byte, err error) {
	err = readNotes(filepath.Join(dir, trimsFile), func(some [][]byte) { notes = append(notes, some...) })
	return notes, err
}

// lastTrim is the newest record of a stream's folder; nil if there is none. A file with
// anything else in it is an error: it must not be added to, nor go on from it.
func lastTrim(dir, name string, v note.Verifier) (*trim, error) {
	notes, err := trimNotes(dir)
	if err != nil || len(notes) == 0 {
		return nil, err
	}
	t, err := openTrim(notes[len(notes)-1], v)
	if err == nil && t.Stream != name {
		err = errTrim
	}
	if err != nil {
		return nil, fmt.Errorf("trail: the newest record in %s: %w", filepath.Join(dir, trimsFile), err)
	}
	return &t, nil
}

// loadTrims reads the records. Each must go on where the one before it ended, and all of
// them hold like checkpoints as far as the lines they speak of are left.
func (c *check) loadTrims() {
	notes, err := trimNotes(c.dir)
	if err != nil {
		c.bad("the records of what was trimmed cannot be read: %v.", err)
	}
	for i, msg := range notes {
		t, err := openTrim(msg, c.verifier)
		switch last := c.trimmed(); {
		case errors.Is(err, errTrim):
			c.bad("record %d of what was trimmed is none.", i+1)
		case err != nil:
			c.bad("record %d of what was trimmed is %s.", i+1, notOurs(err))
		case t.Stream != c.name:
			c.bad("record %d of what was trimmed is of the stream %s.", i+1, t.Stream)
		case t.From != last.Size:
			c.bad("record %d of what was trimmed begins at line %d, and the one before it ends at line %d: one is missing.", i+1, t.From, last.Size)
			fallthrough
		default:
			c.trims = append(c.trims, t)
			c.marks = append(c.marks, t.checkpoint)
		}
	}
	c.beginAnew()
}

// beginAnew tells of lines that somebody has a checkpoint of, and that this sink had
// lost before it went on in an empty folder.
func (c *check) beginAnew() {
	if len(c.trims) == 0 || c.trims[0].Why != lost {
		return
	}
	anew := c.trims[0]
	for _, m := range c.known {
		if m.Size <= anew.Size {
			c.bad("%d lines were signed on %s and are missing: the folder was empty on %s, and what follows begins with line %d.",
				m.Size, moment(m.At), moment(anew.At), anew.Size)
			return
		}
	}
}

// trimmed is the newest record; all zero if there is none.
func (c *check) trimmed() trim {
	if len(c.trims) == 0 {
		return trim{}
	}
	return c.trims[len(c.trims)-1]
}

// begin is the tree before the first line that is there: an empty one, or the one
// that was signed of the lines that were trimmed. Lines before that may be left: a trim
// that was interrupted has them, and no more than its record allows.
func (c *check) begin(segments []journal.Segment) (edge, bool) {
	last := c.trimmed()
	if len(segments) == 0 {
		if last.Size > 0 {
			c.bad("all lines from %d on are missing: only those before it were trimmed.", last.Size)
		}
		return edge{}, last.Size == 0
	}
	first := segments[0]
	switch {
	case first.First == 0:
		return edge{}, true
	case last.Size == 0:
		c.bad("the lines 0 to %d are missing at the begin, and no signed record says that they were trimmed.", first.First-1)
	case first.First > last.Size:
		c.bad("the lines %d to %d are missing: on %s those before line %d were trimmed, and no others.", last.Size, first.First-1, moment(last.At), last.Size)
	case first.First == last.Size && first.Prev.String() != last.Chain:
		c.bad("%s does not follow from the lines that were trimmed on %s.", filepath.Base(first.Path), moment(last.At))
		return last.edge(), true
	case first.First == last.Size:
		return last.edge(), true
	}
	// Whatever else can be said of the lines that are left is said, too.
	m, err := readMeta(first.Meta)
	if err != nil || m.Edge == nil || m.Edge.Size != first.First {
		c.bad("the oldest segment does not say what came before it.")
		return edge{}, false
	}
	return *m.Edge, true
}
