package cli

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"gradegate/internal/fault"
	"gradegate/internal/score"
)

// metricFor is a metric for each thing that predictions can hold.
var metricFor = map[string]string{"label": "accuracy", "value": "mae", "probability": "log_loss"}

// checkForm checks a file of predictions whose competition is not known here:
// its header says what it holds.
func checkForm(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	header, _ := tableReader(f).Read() // what is wrong with it, the scorer says
	wants := "label"
	if len(header) == 2 && metricFor[strings.TrimSpace(header[1])] != "" {
		wants = strings.TrimSpace(header[1])
	}
	_, err = checkTable(file, wants, nil)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Code == "predictions_wrong_header" {
		return f.WithFix("Write id,label as the first line; or id,value or id,probability, if the competition's metric wants that.")
	}
	return err
}

// checkTable reads predictions by the rules of the scorer itself: it scores them
// against a made-up truth with the ids that belong into them, and throws the
// score away. Without ids their own are taken, so that only the form is checked.
func checkTable(file, wants string, ids []string) (rows int, err error) {
	own := len(ids) == 0
	if own {
		if ids, err = idsOf(file, 0); err != nil {
			return 0, err
		}
		// Two more, since a truth has two classes at least; that they are missing
		// is no mistake.
		ids = append(ids, "gradegate-check-1", "gradegate-check-2")
	}
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	_, err = score.Grade(truthOf(ids, wants), f, []string{metricFor[wants]})
	if own && fault.CodeOf(err) == "predictions_missing_rows" {
		return len(ids) - 2, nil
	}
	return len(ids), err
}

// truthOf is a truth that has the ids, and says nothing.
func truthOf(ids []string, wants string) io.Reader {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	column := wants
	if wants == "probability" {
		column = "label" // the classes 0 and 1
	}
	_ = w.Write([]string{"id", column}) // into memory
	for i, id := range ids {
		_ = w.Write([]string{id, fmt.Sprint(i % 2)})
	}
	w.Flush()
	return &b
}

// idsOf are the ids in a column of a table, each once, as far as it can be read
// and they are ones.
func idsOf(file string, column int) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	in := tableReader(f)
	var ids []string
	seen := map[string]bool{}
	for n := 0; ; n++ {
		row, err := in.Read()
		if err != nil {
			return ids, nil //nolint:nilerr // what is wrong with it, the scorer says
		}
		if n == 0 || column >= len(row) {
			continue
		}
		id := strings.TrimSpace(row[column])
		if id != "" && len(id) <= 256 && utf8.ValidString(id) && !seen[id] {
			id = strings.Clone(id)
			seen[id] = true
			ids = append(ids, id)
		}
	}
}

// tableReader reads CSV as the scorer does.
func tableReader(r io.Reader) *csv.Reader {
	buffered := bufio.NewReader(r)
	if mark, _ := buffered.Peek(3); string(mark) == "\xef\xbb\xbf" {
		_, _ = buffered.Discard(3) // it was peeked
	}
	in := csv.NewReader(buffered)
	in.FieldsPerRecord, in.ReuseRecord = -1, true
	return in
}

// testIDs finds the rows that are to be predicted in the public files: the one
// CSV with "test" in its name and a column "id". The name is "" if there is no
// such file, or more than one.
func testIDs(dir string) (name string, ids []string, err error) {
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(strings.ToLower(path.Base(p)), "test") || !strings.HasSuffix(strings.ToLower(p), ".csv") {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		header, _ := tableReader(f).Read() // without one it is no table for us
		column := slices.IndexFunc(header, func(h string) bool { return strings.TrimSpace(h) == "id" })
		if err := f.Close(); err != nil || column < 0 {
			return err
		}
		if name != "" {
			return errTwoTests
		}
		if name, err = filepath.Rel(dir, p); err != nil {
			return err
		}
		ids, err = idsOf(p, column)
		return err
	})
	if errors.Is(err, errTwoTests) || len(ids) < 2 {
		return "", nil, nil
	}
	return name, ids, err
}

var errTwoTests = errors.New("two test files")
