package trail

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// keyName is the name of the signing key in notes.
const keyName = "gradegate-trail"

// A checkpoint is a signed note (c2sp.org/tlog-checkpoint): the stream, its
// size and root, and the time as an extension line.
type checkpoint struct {
	Stream string
	Size   uint64
	Root   tlog.Hash
	At     time.Time
}

func (c checkpoint) text() string {
	return fmt.Sprintf("%s/%s\n%d\n%s\ntime %s\n", keyName, c.Stream, c.Size,
		base64.StdEncoding.EncodeToString(c.Root[:]), c.At.UTC().Format(time.RFC3339Nano))
}

var errCheckpoint = errors.New("no checkpoint")

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

// The two files of checkpoints in a stream's folder: the latest one, replaced
// as a whole, and all of them, one after the other.
const (
	latestFile = "checkpoint"
	allFile    = "checkpoints"
	// between separates notes in the file of all: a note never holds it.
	between = "\n--\n"
)

func storeCheckpoint(dir string, msg []byte) error {
	all, err := os.OpenFile(filepath.Join(dir, allFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	_, err = all.Write(append(msg[:len(msg):len(msg)], between[1:]...))
	if err = errors.Join(err, all.Sync(), all.Close()); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	tmp := filepath.Join(dir, "."+latestFile)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	_, err = f.Write(msg)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, filepath.Join(dir, latestFile))
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// loadCheckpoints reads the notes of a stream, in the order of their making.
// A note that a crash cut off at the very end is left out.
func loadCheckpoints(dir string) ([][]byte, error) {
	data, err := os.ReadFile(filepath.Join(dir, allFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	var out [][]byte
	for {
		one, rest, ok := strings.Cut(string(data), between)
		if !ok {
			return out, nil
		}
		out = append(out, []byte(one+"\n"))
		data = []byte(rest)
	}
}
