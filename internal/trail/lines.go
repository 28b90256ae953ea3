package trail

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"gradegate/internal/journal"
)

// Reading lines from a place in the midst of a segment. The format is that of
// package journal, which has the last word: what is not plainly right here is
// left to it.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line is a line of a segment: a record, or the end of a batch.
type line struct {
	record []byte
	end    *terminator
}

type terminator struct {
	N, First uint64
	Chain    journal.Chain
}

// parseLine reads a line, with or without its newline. It is not ok if it is
// anything else, or if its checksum does not fit.
func parseLine(text []byte) (l line, ok bool) {
	const head = `{"c":"00000000","r":`
	text = bytes.TrimSuffix(text, []byte{'\n'})
	if len(text) <= len(head) || text[len(text)-1] != '}' {
		return l, false
	}
	kind, inner := text[17], text[len(head):len(text)-1]
	if string(text[:len(head)]) != fmt.Sprintf(`{"c":"%08x","%c":`, crc32.Checksum(inner, castagnoli), kind) {
		return l, false
	}
	switch kind {
	case 'r':
		return line{record: inner}, true
	case 'b':
		l.end = new(terminator)
		return l, json.Unmarshal(inner, l.end) == nil
	}
	return l, false
}

// nextLine reads a complete line, or what there is of one. Zeros are space that
// is not written yet.
func nextLine(in *bufio.Reader) (text []byte, ok bool) {
	if next, err := in.Peek(1); err != nil || next[0] == 0 {
		return nil, false
	}
	text, err := in.ReadBytes('\n')
	return text, err == nil
}

// batch is a batch of the journal, and the position after it.
type batch struct {
	records [][]byte
	end     journal.Position
}

// readBatch reads the batch that begins at pos, if it is whole and follows from
// what lies before. If not, its end is where reading stopped, and that is pos if
// there is nothing.
func readBatch(in *bufio.Reader, pos journal.Position) (batch, bool) {
	b := batch{end: pos}
	chain := sha256.New()
	chain.Write(pos.Chain[:])
	for {
		text, ok := nextLine(in)
		b.end.Offset += int64(len(text))
		if !ok {
			return b, false
		}
		l, ok := parseLine(text)
		switch {
		case !ok:
			return b, false
		case l.end == nil:
			b.records = append(b.records, l.record)
			chain.Write(l.record)
			chain.Write([]byte{'\n'})
		default:
			n := uint64(len(b.records))
			b.end.Next, b.end.Chain = pos.Next+n, l.end.Chain
			return b, n > 0 && l.end.N == n && l.end.First == pos.Next && l.end.Chain == journal.Chain(chain.Sum(nil))
		}
	}
}
