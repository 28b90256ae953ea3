package score

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"gradegate/internal/fault"
)

// Limits of one table. Five million rows of a short id and label fit into 64 MiB.
const (
	maxBytes = 64 << 20
	maxRows  = 5_000_000
	maxCell  = 256
)

// table is a file of ids and one value each.
type table struct {
	ids   []string
	cells []cell
	row   map[string]int
}

// readTable reads a CSV file whose header is id and the wanted column. A byte
// order mark, CRLF and blank lines are silently accepted: they come from the
// tools that people use.
func readTable(r io.Reader, wants, what string) (table, error) {
	t := table{row: map[string]int{}}
	limited := &io.LimitedReader{R: r, N: maxBytes + 1}
	buffered := bufio.NewReader(limited)
	if mark, _ := buffered.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3) // it was peeked: it is there
	}
	in := csv.NewReader(buffered)
	in.FieldsPerRecord, in.ReuseRecord = -1, true
	for {
		record, err := in.Read()
		if limited.N <= 0 {
			return t, bad(what, "too_large", "has more than %d MiB", int64(maxBytes)>>20)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		line, _ := in.FieldPos(0)
		if err != nil {
			return t, unreadable(err, what)
		}
		if t.cells == nil {
			if len(record) != 2 || strings.TrimSpace(record[0]) != "id" || strings.TrimSpace(record[1]) != wants {
				return t, bad(what, "wrong_header", "must begin with the line id,%s", wants).
					WithFix("Write id,%s as the first line.", wants)
			}
			t.cells = []cell{}
			continue
		}
		if err := t.add(record, wants, what, line); err != nil {
			return t, err
		}
	}
	if len(t.cells) == 0 {
		return t, bad(what, "empty", "has no rows").WithFix("Write one id,%s row for each id of the test file.", wants)
	}
	return t, nil
}

// unreadable explains what the CSV reader refused, without its text: it would
// repeat the input.
func unreadable(err error, what string) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return bad(what, "malformed", "line %d is no CSV", parse.Line).WithFix("Write plain CSV, one id and one value on each line.")
	}
	return fmt.Errorf("reading %s: %w", what, err)
}

func (t *table) add(record []string, wants, what string, line int) error {
	if len(record) != 2 {
		return bad(what, "ragged", "line %d has %d fields where 2 belong", line, len(record)).
			WithFix("Write one id and one value on each line.")
	}
	if len(t.cells) >= maxRows {
		return bad(what, "too_large", "has more than %d rows", maxRows)
	}
	id, text := strings.TrimSpace(record[0]), strings.TrimSpace(record[1])
	switch {
	case !utf8.ValidString(id) || !utf8.ValidString(text):
		return bad(what, "not_utf8", "line %d is not UTF-8", line).WithFix("Save the file as UTF-8.")
	case id == "" || text == "" || len(id) > maxCell || len(text) > maxCell:
		return bad(what, "malformed", "line %d has an empty or overlong field", line)
	}
	if _, twice := t.row[id]; twice {
		return bad(what, "duplicate_id", "line %d repeats an id", line).WithFix("Give each id once.")
	}
	c := cell{text: strings.Clone(text)}
	if wants != "label" {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return bad(what, "not_a_number", "line %d holds no number", line).WithFix("Write finite decimal numbers, not NaN or inf.")
		}
		if wants == "probability" && (v < 0 || v > 1) {
			return bad(what, "not_a_probability", "line %d is not between 0 and 1", line)
		}
		c.number = v
	}
	id = strings.Clone(id)
	t.row[id] = len(t.cells)
	t.ids = append(t.ids, id)
	t.cells = append(t.cells, c)
	return nil
}

func bad(what, code, detail string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, what+"_"+code, "The file of %s %s.", what, fmt.Sprintf(detail, args...))
}

// readTruth reads the hidden labels; for probabilities they are the classes 0 and 1.
func readTruth(r io.Reader, chosen []Metric) (table, error) {
	wants := chosen[0].Wants
	if wants != "probability" {
		return readTable(r, wants, "labels")
	}
	t, err := readTable(r, "label", "labels")
	if err != nil {
		return t, err
	}
	seen := [2]bool{}
	for i := range t.cells {
		c := &t.cells[i]
		if c.text != "0" && c.text != "1" {
			return t, bad("labels", "not_binary", "holds classes other than 0 and 1")
		}
		c.number = float64(c.text[0] - '0')
		seen[c.text[0]-'0'] = true
	}
	if !seen[0] || !seen[1] {
		return t, bad("labels", "one_class", "has one class only")
	}
	return t, nil
}

// examples bounds how many ids a message names.
const examples = 3

// align puts the predictions into the order of the truth. Ids are public (they
// stand in the test file), so messages may name them.
func align(truth, predicted table) ([]cell, error) {
	out := make([]cell, len(truth.cells))
	var missing, extra []string
	missed, surplus := 0, 0
	for i, id := range truth.ids {
		at, ok := predicted.row[id]
		if !ok {
			missed++
			if len(missing) < examples {
				missing = append(missing, id)
			}
			continue
		}
		out[i] = predicted.cells[at]
	}
	for _, id := range predicted.ids {
		if _, ok := truth.row[id]; !ok {
			surplus++
			if len(extra) < examples {
				extra = append(extra, id)
			}
		}
	}
	if surplus > 0 {
		return nil, bad("predictions", "extra_rows", "has %d rows with ids that are not in the test file", surplus).
			With("rows", surplus).With("examples", extra).WithFix("Predict the ids of the test file and no others.")
	}
	if missed > 0 {
		return nil, bad("predictions", "missing_rows", "lacks %d of %d rows", missed, len(truth.ids)).
			With("rows", missed).With("examples", missing).WithFix("Predict every id of the test file.")
	}
	return out, nil
}
