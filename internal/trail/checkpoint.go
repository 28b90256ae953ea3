package trail

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gradegate/internal/fault"
)

// keyName is the name of the signing key in notes.
const keyName = "gradegate-trail"

// A checkpoint is a signed note (c2sp.org/tlog-checkpoint): the stream, its
// size and root, and as extension lines the time and the journal's chain.
type checkpoint struct {
	Stream string
	Size   uint64
	Root   tlog.Hash
	At     time.Time
	Chain  string // empty in notes that say nothing of it
}

func (c checkpoint) text() string {
	text := fmt.Sprintf("%s/%s\n%d\n%s\ntime %s\n", keyName, c.Stream, c.Size,
		base64.StdEncoding.EncodeToString(c.Root[:]), c.At.UTC().Format(time.RFC3339Nano))
	if c.Chain != "" {
		text += "chain " + c.Chain + "\n"
	}
	return text
}

var errCheckpoint = errors.New("no checkpoint")

// parseCheckpoint reads a text that was signed. Extension lines that it does not
// know are those of a newer version, and left alone.
func parseCheckpoint(text string) (c checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 {
		return c, errCheckpoint
	}
	var ok bool
	if c.Stream, ok = strings.CutPrefix(lines[0], keyName+"/"); !ok {
		return c, errCheckpoint
	}
	if c.Size, err = strconv.ParseUint(lines[1], 10, 63); err != nil {
		return c, errCheckpoint
	}
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return c, errCheckpoint
	}
	at, _ := strings.CutPrefix(lines[3], "time ")
	if c.At, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return c, errCheckpoint
	}
	for _, line := range lines[4:] {
		if chain, ok := strings.CutPrefix(line, "chain "); ok {
			c.Chain = chain
		}
	}
	return c, nil
}

// signer signs notes with the trail's key.
type signer struct {
	key      ed25519.PrivateKey
	verifier note.Verifier
	text     string // of the verifying key
}

func newSigner(key ed25519.PrivateKey) (*signer, error) {
	text, err := note.NewEd25519VerifierKey(keyName, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("trail key: %w", err)
	}
	v, err := note.NewVerifier(text)
	if err != nil {
		return nil, fmt.Errorf("trail key: %w", err)
	}
	return &signer{key: key, verifier: v, text: text}, nil
}

// Name, KeyHash and Sign make a note.Signer.
func (s *signer) Name() string                    { return s.verifier.Name() }
func (s *signer) KeyHash() uint32                 { return s.verifier.KeyHash() }
func (s *signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// hash is the form in which segments name the key.
func (s *signer) hash() string { return hashText(s.verifier) }

func hashText(v note.Verifier) string { return fmt.Sprintf("%08x", v.KeyHash()) }

func (s *signer) sign(c checkpoint) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.text()}, s)
}

// openNote checks the signature and gives the checkpoint.
func openNote(msg []byte, v note.Verifier) (checkpoint, error) {
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	return parseCheckpoint(n.Text)
}

// Note is what a checkpoint says.
type Note struct {
	Stream string
	Size   uint64 // so many lines there were
	Root   string // of their Merkle tree
	At     time.Time
}

// ReadNote reads a checkpoint without looking at its signature, which is for
// Verify to do.
func ReadNote(msg []byte) (Note, error) {
	text, _, ok := strings.Cut(string(msg), "\n\n")
	c, err := parseCheckpoint(text + "\n")
	if err != nil || !ok {
		return Note{}, fault.New(fault.Invalid, "checkpoint_damaged", "What lies in the place of the newest checkpoint is none.").
			WithFix("gradegate audit verify")
	}
	return Note{c.Stream, c.Size, c.Root.String(), c.At}, nil
}

// The two files of checkpoints in a stream's folder. The newest is replaced as
// a whole, each second in which something happened. Of all of them one a
// minute is kept, one for each segment, and the last of each run, one after the
// other: at a line a second, 8.9 GB a year of signed notes become 0.15 GB, and
// what the newest vouches for is the same.
const (
	latestFile = "checkpoint"
	allFile    = "checkpoints"
	// between separates notes in the file of all: a note never holds it.
	between = "\n--\n"
	// maxNote is far more than a note has.
	maxNote = 64 << 10
	// keepEvery is how often a checkpoint is kept.
	keepEvery = time.Minute
)

// replaceLatest makes a note the newest one. Whenever the power goes, the file
// is the one or the other, and whole.
func replaceLatest(dir string, msg []byte) error {
	tmp := filepath.Join(dir, "."+latestFile)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	_, err = f.Write(msg)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, filepath.Join(dir, latestFile))
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// keepNote adds a note to those that are kept in a file.
func keepNote(path string, msg []byte) error {
	all, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	_, err = all.Write(append(msg[:len(msg):len(msg)], between[1:]...))
	if err != nil {
		err = errors.Join(err, all.Close(), mendNotes(path))
	} else {
		err = errors.Join(all.Sync(), all.Close())
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// keepLatest keeps the newest note of the run before, which may have ended
// between two that were kept. Otherwise a cut tail would be forgotten with the
// next checkpoint. It returns what that note says; nothing if there is none, or
// one that is not ours to keep.
func keepLatest(dir string, v note.Verifier) (checkpoint, error) {
	msg, err := latest(dir)
	if err != nil || msg == nil {
		return checkpoint{}, err
	}
	c, err := openNote(msg, v)
	if err != nil {
		return checkpoint{}, nil //nolint:nilerr // another key, or no note: it would make those that are kept look forged
	}
	end, err := tailOf(filepath.Join(dir, allFile), int64(len(msg)+len(between)))
	if err != nil || bytes.HasSuffix(end, append(msg[:len(msg):len(msg)], between[1:]...)) {
		return c, err
	}
	return c, keepNote(filepath.Join(dir, allFile), msg)
}

// tailOf reads the last bytes of a file, which need not exist.
func tailOf(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	end, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-n), n))
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	return end, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// mendNotes cuts off a note that was written only half, lest the next one be
// glued to it and both look forged.
func mendNotes(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("checkpoints: %w", err)
	}
	err = cutHalfNote(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("checkpoints: %w", err)
	}
	return nil
}

func cutHalfNote(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	from := max(0, info.Size()-maxNote)
	end := make([]byte, info.Size()-from)
	if _, err := f.ReadAt(end, from); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	keep := from
	if i := bytes.LastIndex(end, []byte(between)); i >= 0 {
		keep += int64(i + len(between))
	} else if from > 0 {
		return nil // no crash makes this: verification will say so
	}
	if keep == info.Size() {
		return nil
	}
	return errors.Join(f.Truncate(keep), f.Sync())
}

// latest reads the newest checkpoint of a stream's folder; nil if there is none.
func latest(dir string) ([]byte, error) {
	msg, err := os.ReadFile(filepath.Join(dir, latestFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	return msg, nil
}

// readNotes calls fn for each note in a file, in the order of their making, a few
// thousand at a time. A note that was cut off at the very end is left out.
func readNotes(path string, fn func(notes [][]byte)) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("checkpoints: %w", err)
	}
	defer f.Close()
	const atOnce = 4096
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, maxNote)
	scan.Split(func(data []byte, _ bool) (int, []byte, error) {
		if i := bytes.Index(data, []byte(between)); i >= 0 {
			return i + len(between), data[:i+1], nil
		}
		return 0, nil, nil
	})
	var notes [][]byte
	for scan.Scan() {
		notes = append(notes, bytes.Clone(scan.Bytes()))
		if len(notes) == atOnce {
			fn(notes)
			notes = notes[:0]
		}
	}
	if len(notes) > 0 {
		fn(notes)
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("checkpoints: %w", err)
	}
	return nil
}
