package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

// MaxRecord is the largest record in bytes. The limit lets a reader give up on
// garbage without a newline before it fills the memory.
const MaxRecord = 16 << 20

// ErrRecord says that a record was refused before anything was written: it must
// be a JSON object, at most MaxRecord long, with no newline and no zero byte.
var ErrRecord = errors.New("journal: not a record")

// Kinds of line.
const (
	kindRecord = 'r'
	kindBatch  = 'b'
	kindHeader = 'h'
)

const (
	linePrefix = `{"c":"00000000","r":`
	lineExtra  = len(linePrefix) + len("}")
	hexDigits  = "0123456789abcdef"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(inner []byte) uint32 { return crc32.Checksum(inner, castagnoli) }

// Chain is the hash that binds all records up to a place. Its text form is 64
// lower-case hexadecimal digits.
type Chain [sha256.Size]byte

// String is the text form.
func (c Chain) String() string { return hex.EncodeToString(c[:]) }

// MarshalText is the text form.
func (c Chain) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, c[:]), nil }

// UnmarshalText accepts the text form and nothing else.
func (c *Chain) UnmarshalText(text []byte) error {
	if len(text) != 2*len(c) || bytes.ContainsAny(text, "ABCDEF") {
		return errors.New("journal: a chain is 64 lower-case hexadecimal digits")
	}
	_, err := hex.Decode(c[:], text)
	return err
}

// checkRecord is cheap on purpose: it keeps the framing safe, and leaves it to
// the caller that the JSON is valid. A zero byte, never valid in JSON, would
// look like unwritten space.
func checkRecord(r []byte) error {
	switch {
	case len(r) < 2 || r[0] != '{' || r[len(r)-1] != '}':
		return fmt.Errorf("%w: no JSON object", ErrRecord)
	case len(r) > MaxRecord:
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrRecord, len(r), MaxRecord)
	case bytes.IndexByte(r, '\n') >= 0 || bytes.IndexByte(r, 0) >= 0:
		return fmt.Errorf("%w: newline or zero byte", ErrRecord)
	}
	return nil
}

// appendLine appends the envelope around inner, whose checksum is sum.
func appendLine(dst []byte, kind byte, inner []byte, sum uint32) []byte {
	at := len(dst)
	dst = append(dst, linePrefix...)
	for i := range 8 {
		dst[at+6+i] = hexDigits[sum>>(28-4*i)&15]
	}
	dst[at+17] = kind
	dst = append(dst, inner...)
	return append(dst, '}', '\n')
}

// parseLine is the inverse of appendLine for a line without its newline. It
// accepts exactly what appendLine makes; inner is a part of line.
func parseLine(line []byte) (kind byte, inner []byte, ok bool) {
	if len(line) < lineExtra || line[len(line)-1] != '}' {
		return 0, nil, false
	}
	kind, inner = line[17], line[len(linePrefix):len(line)-1]
	if kind != kindRecord && kind != kindBatch && kind != kindHeader {
		return 0, nil, false
	}
	var want [len(linePrefix)]byte
	prefix := appendLine(want[:0:len(want)], kind, nil, checksum(inner))[:len(want)]
	return kind, inner, bytes.Equal(line[:len(want)], prefix)
}

// terminator is the inner part of a batch's last line.
type terminator struct {
	n      uint64
	first  uint64
	synced uint64
	chain  Chain
}

func (t terminator) append(dst []byte) []byte {
	dst = strconv.AppendUint(append(dst, `{"n":`...), t.n, 10)
	dst = strconv.AppendUint(append(dst, `,"first":`...), t.first, 10)
	dst = strconv.AppendUint(append(dst, `,"synced":`...), t.synced, 10)
	dst = hex.AppendEncode(append(dst, `,"chain":"`...), t.chain[:])
	return append(dst, `"}`...)
}

// parseTerminator accepts exactly what append makes.
func parseTerminator(inner []byte) (t terminator, ok bool) {
	rest := inner
	for _, f := range []struct {
		name string
		to   *uint64
	}{{`{"n":`, &t.n}, {`,"first":`, &t.first}, {`,"synced":`, &t.synced}} {
		if rest, ok = bytes.CutPrefix(rest, []byte(f.name)); !ok {
			return t, false
		}
		if *f.to, rest, ok = cutUint(rest); !ok {
			return t, false
		}
	}
	rest, ok = bytes.CutPrefix(rest, []byte(`,"chain":"`))
	if !ok || len(rest) != 2*len(t.chain)+2 || t.chain.UnmarshalText(rest[:2*len(t.chain)]) != nil {
		return t, false
	}
	var buf [192]byte
	return t, t.n > 0 && bytes.Equal(inner, t.append(buf[:0]))
}

func cutUint(b []byte) (uint64, []byte, bool) {
	n := 0
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(string(b[:n]), 10, 64)
	return v, b[n:], err == nil
}

// span is a part of a buffer that may still move.
type span struct{ from, to int }

// batch is an encoded batch in the making. Its buffer is what will be written,
// so that a record is copied once.
type batch struct {
	buf   []byte
	inner []span // of each record in buf
}

// maxKeep is how much buffer is kept for the next batch, so that one huge batch
// does not hold its memory for ever.
const maxKeep = 4 << 20

func (b *batch) reset() {
	b.buf, b.inner = b.buf[:0], b.inner[:0]
	if cap(b.buf) > maxKeep {
		b.buf, b.inner = nil, nil
	}
}

// add appends a checked record with its checksum, which is a parameter so that
// it can be computed outside a lock.
func (b *batch) add(record []byte, sum uint32) {
	from := len(b.buf) + len(linePrefix)
	b.buf = appendLine(b.buf, kindRecord, record, sum)
	b.inner = append(b.inner, span{from, from + len(record)})
}

// terminate appends the terminator for a batch that starts at pos and returns
// the position after it.
func (b *batch) terminate(pos Position, synced uint64) Position {
	t := terminator{n: uint64(len(b.inner)), first: pos.Next, synced: synced}
	t.chain = extend(pos.Chain, b.buf, b.inner)
	var buf [192]byte
	inner := t.append(buf[:0])
	b.buf = appendLine(b.buf, kindBatch, inner, checksum(inner))
	pos.Next += t.n
	pos.Chain = t.chain
	pos.Offset += int64(len(b.buf))
	return pos
}

// records are the inner bytes, valid until the buffer changes.
func (b *batch) records(dst [][]byte) [][]byte {
	for _, s := range b.inner {
		dst = append(dst, b.buf[s.from:s.to:s.to])
	}
	return dst
}

// extend computes the chain after the records in buf.
func extend(chain Chain, buf []byte, inner []span) Chain {
	h := sha256.New()
	h.Write(chain[:])
	newline := []byte{'\n'}
	for _, s := range inner {
		h.Write(buf[s.from:s.to])
		h.Write(newline)
	}
	h.Sum(chain[:0])
	return chain
}
