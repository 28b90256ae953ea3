package maintenance

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
)

// A segment is a gzip file with one JSON object on each line, and beside it a
// signed note with its number, the number of lines, its SHA-256 and that of the
// note before, so that neither a changed segment nor a missing one goes
// unnoticed. Whoever has the folder and the public key can check and search it.

// keyName is how notes name the key; it is the trail's.
const keyName = "gradegate-trail"

// Line is a token in a segment. Members are never renamed; there is no secret
// among them, only the digest of one.
type Line struct {
	ID           string     `json:"id"`
	Kind         string     `json:"kind"`
	Name         string     `json:"name"`
	Owner        string     `json:"owner"`
	Digest       string     `json:"digest"`
	Scopes       []string   `json:"scopes,omitempty"`
	Competitions []string   `json:"competitions,omitempty"`
	Family       string     `json:"family,omitempty"`
	Parent       string     `json:"parent,omitempty"`
	Predecessor  string     `json:"predecessor,omitempty"`
	Successor    string     `json:"successor,omitempty"`
	IssuedAt     time.Time  `json:"issued_at"`
	IssuedBy     string     `json:"issued_by,omitempty"`
	EndedAt      time.Time  `json:"ended_at"`
	Why          string     `json:"why"`
	Reason       string     `json:"reason,omitempty"`
	ArchivedAt   time.Time  `json:"archived_at"`
	LastUsedAt   *time.Time `json:"last_used_at,omitempty"`
	LastUsedIP   string     `json:"last_used_ip,omitempty"`
	Uses         int64      `json:"uses,omitempty"`
	Segment      string     `json:"segment,omitempty"` // where it is; empty in the segment itself
}

// LineOf is a token of the archive as it is shown and written down.
func LineOf(a Archived) Line {
	t := &a.Token
	l := Line{
		ID: string(t.ID), Kind: t.Kind.String(), Name: t.Name, Owner: string(t.Owner), Digest: hex.EncodeToString(t.Digest.Bytes()),
		Scopes: t.Scopes, Competitions: t.Competitions, Family: string(t.Family), Parent: string(t.Parent), Predecessor: string(t.Predecessor),
		Successor: string(t.Successor), IssuedAt: t.IssuedAt, IssuedBy: t.IssuedBy, EndedAt: a.EndedAt, Why: string(a.Why), Reason: string(t.Reason),
		ArchivedAt: a.ArchivedAt, Uses: a.Use.Count, Segment: a.Segment,
	}
	if !a.Use.At.IsZero() {
		l.LastUsedAt = &a.Use.At
	}
	if a.Use.Addr.IsValid() {
		l.LastUsedIP = a.Use.Addr.String()
	}
	return l
}

type signer struct {
	note.Verifier
	key ed25519.PrivateKey
}

func (s signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

func newSigner(key ed25519.PrivateKey) (signer, error) {
	text, err := note.NewEd25519VerifierKey(keyName, key.Public().(ed25519.PublicKey))
	if err != nil {
		return signer{}, fmt.Errorf("the archive's key: %w", err)
	}
	v, err := note.NewVerifier(text)
	return signer{v, key}, err
}

const (
	segmentEnd = ".jsonl.gz"
	noteEnd    = ".note"
	header     = "gradegate archive 1"
)

// seal is what a segment's note says.
type seal struct {
	name   string
	number int
	lines  int
	digest string
	before string // SHA-256 of the note before; "-" of the first
}

func (s *seal) text() string {
	return fmt.Sprintf("%s\nsegment %s\nnumber %d\nlines %d\nsha256 %s\nbefore %s\n", header, s.name, s.number, s.lines, s.digest, s.before)
}

func readSeal(msg []byte, v note.Verifier) (s seal, err error) {
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return s, err
	}
	_, err = fmt.Sscanf(n.Text, header+"\nsegment %s\nnumber %d\nlines %d\nsha256 %s\nbefore %s\n", &s.name, &s.number, &s.lines, &s.digest, &s.before)
	if err == nil && s.text() != n.Text {
		err = errors.New("it has another form")
	}
	return s, err
}

// Head is what the trail says of a segment, so that one that is gone from the end
// of the row is missed, too.
type Head struct {
	Segment string // its name
	Note    string // SHA-256 of its note; empty in lines of an older version
}

// noteDetail names the digest of the note in the line of the trail.
const noteDetail = "note"

// HeadOf is the segment that a line of the trail tells of.
func HeadOf(e *audit.Event) (h Head, ok bool) {
	return Head{Segment: e.Target, Note: e.Detail[noteDetail]}, e.Action == audit.ArchiveReduce && e.Outcome == audit.Done
}

// writeSegment makes a segment and then its note durable. A crash or a full disk in
// between leaves a segment without a note, which the next one replaces.
func writeSegment(dir string, sign note.Signer, lines []Line, now time.Time) (Head, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Head{}, err
	}
	notes, err := noteFiles(dir)
	if err != nil {
		return Head{}, err
	}
	s := seal{number: len(notes) + 1, lines: len(lines), before: "-"}
	if len(notes) > 0 {
		last, err := os.ReadFile(filepath.Join(dir, notes[len(notes)-1]))
		if err != nil {
			return Head{}, err
		}
		s.before = digestOf(last)
		if s.number, err = numberOf(notes[len(notes)-1]); err != nil {
			return Head{}, err
		}
		s.number++
	}
	s.name = fmt.Sprintf("tokens-%06d-%s%s", s.number, now.UTC().Format("20060102"), segmentEnd)
	data, err := packed(lines)
	if err != nil {
		return Head{}, err
	}
	s.digest = digestOf(data)
	signed, err := note.Sign(&note.Note{Text: s.text()}, sign)
	if err != nil {
		return Head{}, err
	}
	if err := leave(dir, s.name, data); err != nil {
		return Head{}, err
	}
	return Head{Segment: s.name, Note: digestOf(signed)}, leave(dir, s.name+noteEnd, signed)
}

func packed(lines []Line) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	e := json.NewEncoder(z)
	for _, l := range lines {
		if err := e.Encode(l); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return out.Bytes(), err
}

// leave makes a file durable, whole or not at all.
func leave(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		var d *os.File
		if d, err = os.Open(dir); err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
	}
	return err
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// noteFiles are the names of the notes in the order of their numbers.
func noteFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "tokens-") && strings.HasSuffix(e.Name(), segmentEnd+noteEnd) {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, err
}

func numberOf(name string) (int, error) {
	_, rest, _ := strings.Cut(name, "-")
	digits, _, _ := strings.Cut(rest, "-")
	return strconv.Atoi(digits)
}

// Checked says what the check of a folder of segments found.
type Checked struct {
	Segments int      `json:"segments"`
	Lines    int      `json:"lines"`
	Told     int      `json:"told"` // segments that the trail tells of
	Problems []string `json:"problems"`
}

// VerifySegments checks a folder with nothing but the verifying key: every
// segment is what was signed, and none is missing in the row, nor any that the
// trail tells of. each, if set, is given every line of those that are.
func VerifySegments(dir, key string, told []Head, each func(Line) error) (Checked, error) {
	out := Checked{Problems: []string{}}
	v, err := note.NewVerifier(strings.TrimSpace(key))
	if err != nil {
		return out, fault.Wrap(fault.Invalid, "key_invalid", "That is no verifying key.", err).WithFix("gradegate audit key")
	}
	notes, err := noteFiles(dir)
	if err != nil {
		return out, fault.Wrap(fault.Invalid, "archive_unreadable", "The folder cannot be read: "+err.Error()+".", err).WithFix("Name the folder of archive.dir: --dir DIR")
	}
	before := "-"
	there := map[string]string{}
	for i, name := range notes {
		bad := func(format string, args ...any) {
			out.Problems = append(out.Problems, fmt.Sprintf(name+": "+format, args...))
		}
		msg, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return out, err
		}
		s, err := readSeal(msg, v)
		switch {
		case err != nil:
			bad("the note is not signed with this key: %v", err)
		case s.name+noteEnd != name:
			bad("it is the note of %s", s.name)
		case s.number != i+1:
			bad("it is number %d and stands at place %d: a segment is missing", s.number, i+1)
		case s.before != before:
			bad("the note before it is another one")
		}
		before = digestOf(msg)
		there[strings.TrimSuffix(name, noteEnd)] = before
		if err != nil {
			continue
		}
		n, err := readSegment(dir, &s, each)
		if err != nil {
			bad("%v", err)
			continue
		}
		out.Segments, out.Lines = out.Segments+1, out.Lines+n
	}
	out.compare(there, told)
	return out, nil
}

// compare misses what the trail tells of: whoever takes the newest segments away
// leaves a row without a gap.
func (c *Checked) compare(there map[string]string, told []Head) {
	told = slices.Compact(told)
	c.Told = len(told)
	for _, h := range told {
		switch is, ok := there[h.Segment]; {
		case !ok:
			c.Problems = append(c.Problems, h.Segment+": the trail tells of it, and it is missing")
		case h.Note != "" && h.Note != is:
			c.Problems = append(c.Problems, h.Segment+": its note is not the one that the trail tells of")
		}
	}
}

// segmentSize bounds what is read of one segment.
const segmentSize = 256 << 20

func readSegment(dir string, s *seal, each func(Line) error) (n int, err error) {
	data, err := os.ReadFile(filepath.Join(dir, filepath.Base(s.name)))
	if err != nil {
		return 0, err
	}
	if digestOf(data) != s.digest {
		return 0, errors.New("the segment is not the one that was signed")
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(io.LimitReader(z, segmentSize))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var l Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return n, err
		}
		n++
		if l.Segment = s.name; each != nil {
			if err := each(l); err != nil {
				return n, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return n, err
	}
	if n != s.lines {
		return n, fmt.Errorf("it has %d lines, and %d were signed", n, s.lines)
	}
	return n, nil
}
