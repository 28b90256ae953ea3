package keys

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"gradegate/internal/fault"
)

// Peppers are keys outside of the database that go into what it keeps of a
// secret, one for each version; 0 is none. The newest one is used for what is
// new. A nil *Peppers has none. It is safe for concurrent use.
type Peppers struct {
	macs   [256]*sync.Pool // of *mac, keyed; nil: there is no such version
	lost   [256]bool
	newest uint8
}

// mac has the room for its result, so that using it allocates nothing.
type mac struct {
	hash hash.Hash
	out  [sha256.Size]byte
}

// PeppersOf makes them from their keys, by version from 1.
func PeppersOf(byVersion map[uint8][Size]byte) *Peppers {
	p := &Peppers{}
	for version, key := range byVersion {
		p.macs[version] = &sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, key[:])} }}
		p.newest = max(p.newest, version)
	}
	return p
}

// Newest is the version for what is new; 0: there are no peppers.
func (p *Peppers) Newest() uint8 {
	if p == nil {
		return 0
	}
	return p.newest
}

// Sum is HMAC-SHA256 of data under the pepper of that version; version 0 is
// data itself. It reports whether the version is known.
func (p *Peppers) Sum(version uint8, data [sha256.Size]byte) ([sha256.Size]byte, bool) {
	if version == 0 {
		return data, true
	}
	if p == nil || p.macs[version] == nil {
		return [sha256.Size]byte{}, false
	}
	m := p.macs[version].Get().(*mac)
	m.hash.Reset()
	m.out = data
	m.hash.Write(m.out[:])
	m.hash.Sum(m.out[:0])
	out := m.out
	p.macs[version].Put(m)
	return out, true
}

// Knows reports whether secrets that were kept under that version can be told
// from others, or are known to be lost.
func (p *Peppers) Knows(version uint8) bool {
	return version == 0 || p != nil && (p.macs[version] != nil || p.lost[version])
}

// LoadPeppers reads a pepper file: a line for each version, such as "1 " and 64
// hexadecimal digits, or "1 lost" for one that nobody has any more. An empty
// path is no peppers.
func LoadPeppers(path string) (*Peppers, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // a nil *Peppers is none
	}
	text, err := readAlone(path, "pepper file")
	if err != nil {
		return nil, err
	}
	byVersion, lost := map[uint8][Size]byte{}, []uint8{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		version, key, err := pepperLine(line)
		if _, twice := byVersion[version]; err == nil && twice {
			err = fmt.Errorf("version %d is there twice", version)
		}
		switch {
		case err != nil:
			return nil, fault.New(fault.Invalid, "pepper_damaged", "Line %d of %s: %v.", n, path, err).
				WithFix("A line is a version from 1 to 255, a space and 64 hexadecimal digits: gradegate pepper add %s", path)
		case key == nil:
			lost = append(lost, version)
		default:
			byVersion[version] = [Size]byte(key)
		}
	}
	p := PeppersOf(byVersion)
	for _, version := range lost {
		if p.macs[version] == nil {
			p.lost[version] = true
		}
	}
	return p, lines.Err()
}

func pepperLine(line string) (version uint8, key []byte, err error) {
	number, rest, _ := strings.Cut(line, " ")
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil || n == 0 {
		return 0, nil, errors.New("it does not begin with a version from 1 to 255")
	}
	rest = strings.TrimSpace(rest)
	if rest == "lost" {
		return uint8(n), nil, nil
	}
	key, err = hex.DecodeString(rest)
	if err != nil || len(key) != Size {
		return 0, nil, errors.New("the pepper is not 64 hexadecimal digits")
	}
	return uint8(n), key, nil
}

// AddPepper writes a new version to a pepper file, which it makes if there is
// none, and tells which.
func AddPepper(path string) (version uint8, err error) {
	p, err := LoadPeppers(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	next := 1
	if p != nil {
		for v := range p.macs {
			if p.Knows(uint8(v)) && v > 0 {
				next = v + 1
			}
		}
	}
	if next > 255 {
		return 0, fault.New(fault.Invalid, "peppers_used_up", "There were 255 peppers already.").WithFix("Take lines out of %s that nothing needs.", path)
	}
	var key [Size]byte
	_, _ = rand.Read(key[:]) // never fails: the runtime stops the process instead
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, fmt.Errorf("pepper file: %w", err)
	}
	_, err = fmt.Fprintf(f, "%d %x\n", next, key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, fmt.Errorf("pepper file: %w", err)
	}
	return uint8(next), nil
}
