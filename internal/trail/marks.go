package trail

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"gradegate/internal/fault"
	"gradegate/internal/journal"
)

// loadMarks reads the stored checkpoints. Their sizes must rise: an older one
// at the end would be a rollback. What is wrong with many is told once.
func (c *check) loadMarks() {
	var size uint64
	var newest []byte
	wrong := map[string][]int{} // numbers of the checkpoints by what is wrong
	take := func(notes [][]byte) {
		for i, o := range openNotes(notes, c.verifier) {
			c.stored++
			switch {
			case o.err != nil:
				why := notOurs(o.err)
				wrong[why] = append(wrong[why], c.stored)
				continue
			case o.Stream != c.name:
				why := "of the stream " + o.Stream
				wrong[why] = append(wrong[why], c.stored)
				continue
			case o.Size < size:
				why := "older than the one before"
				wrong[why] = append(wrong[why], c.stored)
			}
			size, newest = o.Size, notes[i]
			c.marks = append(c.marks, o.checkpoint)
		}
	}
	if err := readNotes(filepath.Join(c.dir, allFile), take); err != nil {
		c.bad("the checkpoints cannot be read: %v.", err)
	}
	kept := c.stored
	last, err := latest(c.dir)
	switch {
	case err != nil:
		c.bad("the newest checkpoint cannot be read: %v.", err)
	case last == nil && kept > 0:
		c.bad("the newest checkpoint is missing: there is no file %s.", filepath.Join(c.dir, latestFile))
	case last != nil && !bytes.Equal(last, newest):
		take([][]byte{last})
	}
	c.tellWrong(wrong, kept)
}

// tellWrong tells what is wrong with checkpoints; the one behind those that are
// kept is the newest.
func (c *check) tellWrong(wrong map[string][]int, kept int) {
	for _, what := range slices.Sorted(maps.Keys(wrong)) {
		switch numbers := wrong[what]; {
		case len(numbers) > 1:
			c.bad("%d checkpoints, the first of them number %d, are %s.", len(numbers), numbers[0], what)
		case numbers[0] > kept:
			c.bad("the newest checkpoint (file %s) is %s.", latestFile, what)
		default:
			c.bad("checkpoint %d is %s.", numbers[0], what)
		}
	}
}

// notOurs says why a note is none of the key's.
func notOurs(err error) string {
	if other := otherKey(err); other != "" {
		return "signed by another key (" + other + ")"
	}
	return "not what was signed, or no checkpoint at all"
}

// otherKey is the hash of the key that signed a note which could not be opened;
// empty if that is not the reason.
func otherKey(err error) string {
	var unverified *note.UnverifiedNoteError
	if errors.As(err, &unverified) && len(unverified.Note.UnverifiedSigs) > 0 {
		return fmt.Sprintf("%08x", unverified.Note.UnverifiedSigs[0].Hash)
	}
	return ""
}

// openKnown opens the checkpoints that were kept elsewhere, by stream.
func openKnown(files [][]byte, v note.Verifier) (known map[string][]checkpoint, problems []string) {
	known = map[string][]checkpoint{}
	for _, file := range files {
		for _, msg := range SplitNotes(file) {
			c, err := openNote(msg, v)
			if err != nil {
				problems = append(problems, "A checkpoint that was kept elsewhere is "+notOurs(err)+".")
				continue
			}
			known[c.Stream] = append(known[c.Stream], c)
		}
	}
	return known, problems
}

// SplitNotes gives the notes in a file of several, with a line "--" behind each
// or between them. Line ends of other systems are put right.
func SplitNotes(file []byte) (notes [][]byte) {
	file = bytes.ReplaceAll(file, []byte("\r\n"), []byte("\n"))
	for part := range bytes.SplitSeq(append(bytes.TrimRight(file, "\n"), '\n'), []byte(between)) {
		if text := bytes.Trim(part, "\n"); len(text) > 0 && string(text) != "--" {
			notes = append(notes, append(bytes.Clone(text), '\n'))
		}
	}
	if len(notes) == 0 {
		notes = [][]byte{nil} // so that an empty file is not taken for a proof
	}
	return notes
}

// rightKey is an error if nothing in a trail names the key and something names
// another one: then nothing can be said about the lines.
func rightKey(dir string, v note.Verifier) error {
	var others []string
	see := func(key string) (ours bool) {
		if key != "" && key != hashText(v) {
			others = append(others, key)
		}
		return key == hashText(v)
	}
	for _, name := range []string{Use, Act} {
		segments, err := journal.Segments(filepath.Join(dir, name))
		if err != nil {
			continue // verification says so
		}
		for _, s := range segments {
			if m, err := readMeta(s.Meta); err == nil && see(m.Key) {
				return nil
			}
		}
		msg, err := latest(filepath.Join(dir, name))
		if err != nil || msg == nil {
			continue
		}
		_, err = openNote(msg, v)
		if other := otherKey(err); other == "" { // it opens, or was changed
			return nil
		} else if see(other) {
			return nil
		}
	}
	if len(others) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "audit_key_wrong", "This trail was signed with another key (%s) than the one given (%s), so nothing can be said about its lines. "+
		"Either the key is that of another server, or somebody has written the whole trail anew.", others[0], hashText(v)).
		WithFix("gradegate audit key")
}

type opened struct {
	checkpoint
	err error
}

// openNotes is openNote for many, on all processors: a signature takes as long
// as fifty lines.
func openNotes(notes [][]byte, v note.Verifier) []opened {
	out := make([]opened, len(notes))
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(notes); i += workers {
				out[i].checkpoint, out[i].err = openNote(notes[i], v)
			}
		})
	}
	wg.Wait()
	return out
}
