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
	// maxRecord is what one row may take to read: two cells, their quotes, and
	// room for the buffer of the CSV reader. Without it an open quote would
	// gather the whole file in memory.
	maxRecord = 64 << 10
)

// file is a table as it is read: one row at a time, in memory that does not
// grow with the file, since predictions are hostile input.
type file struct {
	what  string // "predictions" or "labels": the start of every code
	wants string // the name of the second column
	in    *csv.Reader
	bound *bound
	line  int
	rows  int
}

// open begins to read a CSV file. A byte order mark, CRLF and blank lines are
// silently accepted: they come from the tools that people use.
func open(r io.Reader, wants, what string) (*file, error) {
	f := &file{what: what, wants: wants, bound: &bound{r: r, left: maxBytes + 1}}
	f.bound.record = maxRecord
	buffered := bufio.NewReader(f.bound)
	if mark, _ := buffered.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3) // it was peeked: it is there
	}
	f.in = csv.NewReader(buffered)
	f.in.FieldsPerRecord, f.in.ReuseRecord = -1, true
	header, err := f.record()
	if errors.Is(err, io.EOF) {
		return nil, f.empty()
	}
	if err != nil {
		return nil, err
	}
	if len(header) != 2 || strings.TrimSpace(header[0]) != "id" || strings.TrimSpace(header[1]) != wants {
		return nil, f.bad("wrong_header", "must begin with the line id,%s", wants).
			WithFix("Write id,%s as the first line, with a comma.", wants)
	}
	return f, nil
}

// next gives one row. The strings hold no more memory than they need only if
// they are cloned. At the end it gives io.EOF.
func (f *file) next() (id string, c cell, err error) {
	record, err := f.record()
	if errors.Is(err, io.EOF) && f.rows == 0 {
		err = f.empty()
	}
	if err != nil {
		return "", cell{}, err
	}
	if f.rows++; f.rows > maxRows {
		return "", cell{}, f.tooLarge("has more than %d rows", maxRows)
	}
	if len(record) != 2 {
		return "", cell{}, f.bad("ragged", "has %s where 2 belong in line %d", count(len(record), "field"), f.line).
			WithFix("Write one id and one value on each line.")
	}
	id, c.text = strings.TrimSpace(record[0]), strings.TrimSpace(record[1])
	switch {
	case !utf8.ValidString(id) || !utf8.ValidString(c.text):
		return "", cell{}, f.bad("not_utf8", "is not UTF-8 in line %d", f.line).WithFix("Save the file as UTF-8.")
	case id == "" || c.text == "" || len(id) > maxCell || len(c.text) > maxCell:
		return "", cell{}, f.bad("malformed", "has an empty or overlong field in line %d", f.line).
			WithFix("Write an id and a value of at most %d bytes each.", maxCell)
	case f.wants == "label" && strings.EqualFold(c.text, "nan"):
		return "", cell{}, f.bad("not_a_label", "holds NaN where a label belongs, in line %d", f.line).
			WithFix("Give every row a label; NaN is what programs write where they have none.")
	}
	if f.wants != "label" {
		c.number, err = f.number(c.text)
	}
	return id, c, err
}

// record reads one row and notes its line.
func (f *file) record() ([]string, error) {
	f.bound.record = maxRecord
	record, err := f.in.Read()
	var parse *csv.ParseError
	switch {
	case f.bound.left <= 0:
		return nil, f.tooLarge("has more than %d MiB", maxBytes>>20)
	case errors.Is(err, errLongRecord):
		return nil, f.malformed(f.line + 1)
	case errors.As(err, &parse):
		return nil, f.malformed(parse.Line) // without its text, which repeats the input
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", f.what, err)
	}
	f.line, _ = f.in.FieldPos(0)
	return record, nil
}

// number reads a finite decimal number; strconv would take 0x1p-2 and inf too.
func (f *file) number(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || strings.ContainsAny(text, "xX_") {
		return 0, f.bad("not_a_number", "holds no number in line %d", f.line).WithFix("Write finite decimal numbers, not NaN or inf.")
	}
	if f.wants == "probability" && (v < 0 || v > 1) {
		return 0, f.bad("not_a_probability", "has a value that is not between 0 and 1 in line %d", f.line).
			WithFix("Write the probability of class 1, from 0 to 1.")
	}
	return v, nil
}

func (f *file) bad(code, detail string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, f.what+"_"+code, "The file of %s %s.", f.what, fmt.Sprintf(detail, args...))
}

func (f *file) empty() error {
	return f.bad("empty", "has no rows").WithFix("Write one id,%s row for each id of the test file.", f.wants)
}

func (f *file) malformed(line int) error {
	return f.bad("malformed", "is no CSV in line %d", line).WithFix("Write plain CSV, one id and one value on each line.")
}

func (f *file) tooLarge(detail string, args ...any) error {
	return f.bad("too_large", detail, args...).WithFix("Write one row for each id of the test file, and nothing else.")
}

func (f *file) twice() error {
	return f.bad("duplicate_id", "repeats an id in line %d", f.line).WithFix("Give each id once.")
}

var errLongRecord = errors.New("a record that does not end")

// bound limits what is read in all, and for one record.
type bound struct {
	r            io.Reader
	left, record int
}

func (b *bound) Read(p []byte) (int, error) {
	switch {
	case b.left <= 0:
		return 0, io.EOF
	case b.record <= 0:
		return 0, errLongRecord
	}
	n, err := b.r.Read(p[:min(len(p), b.left, b.record)])
	b.left -= n
	b.record -= n
	return n, err
}

// table is the truth: ids and one value each, in memory.
type table struct {
	ids   []string
	cells []cell
	row   map[string]int
}

// readTruth reads the hidden labels; for probabilities they are the classes 0 and 1.
func readTruth(r io.Reader, chosen []Metric) (table, error) {
	wants := chosen[0].Wants
	if wants == "probability" {
		wants = "label"
	}
	t := table{row: map[string]int{}}
	f, err := open(r, wants, "labels")
	if err != nil {
		return t, err
	}
	for {
		id, c, err := f.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return t, err
		}
		if _, known := t.row[id]; known {
			return t, f.twice()
		}
		id, c.text = strings.Clone(id), strings.Clone(c.text)
		t.row[id] = len(t.ids)
		t.ids = append(t.ids, id)
		t.cells = append(t.cells, c)
	}
	if chosen[0].Wants == "probability" {
		return t, t.binary(f)
	}
	return t, nil
}

// binary reads the labels as the numbers 0 and 1, both of which must occur.
func (t *table) binary(f *file) error {
	seen := [2]bool{}
	for i := range t.cells {
		c := &t.cells[i]
		if c.text != "0" && c.text != "1" {
			return f.bad("not_binary", "holds classes other than 0 and 1").WithFix("Write the classes as 0 and 1.")
		}
		class := c.text[0] - '0'
		c.number, seen[class] = float64(class), true
	}
	if !seen[0] || !seen[1] {
		return f.bad("one_class", "has one class only").WithFix("Choose a test part with rows of both classes.")
	}
	return nil
}

// examples bounds how many ids a message names.
const examples = 3

// readPredictions gives the predictions in the order of the truth. It holds
// nothing but what the truth asks for, however much the file has.
func readPredictions(r io.Reader, truth table, wants string) ([]cell, error) {
	f, err := open(r, wants, "predictions")
	if err != nil {
		return nil, err
	}
	out, have := make([]cell, len(truth.ids)), make([]bool, len(truth.ids))
	extra, firstExtra := 0, 0
	for {
		id, c, err := f.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		at, known := truth.row[id]
		switch {
		case !known:
			if extra++; extra == 1 {
				firstExtra = f.line
			}
		case have[at]:
			return nil, f.twice()
		default:
			c.text = strings.Clone(c.text)
			out[at], have[at] = c, true
		}
	}
	if extra > 0 {
		return nil, f.bad("extra_rows", "has %s with an id that is not in the test file; the first is in line %d", count(extra, "row"), firstExtra).
			With("rows", extra).With("line", firstExtra).WithFix("Predict the ids of the test file and no others.")
	}
	return out, f.complete(truth, have)
}

// complete tells which rows are missing. Ids are public (they stand in the test
// file), so the message may name them.
func (f *file) complete(truth table, have []bool) error {
	missed := 0
	var missing, quoted []string
	for i, ok := range have {
		if ok {
			continue
		}
		if missed++; missed <= examples {
			missing, quoted = append(missing, truth.ids[i]), append(quoted, strconv.QuoteToASCII(truth.ids[i]))
		}
	}
	if missed == 0 {
		return nil
	}
	return f.bad("missing_rows", "lacks %d of %d rows, such as %s", missed, len(have), strings.Join(quoted, ", ")).
		With("rows", missed).With("examples", missing).WithFix("Predict every id of the test file.")
}

// count is a number of things in words that fit it.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
