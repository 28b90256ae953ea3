package score

import (
	"bytes"
	"encoding/csv"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The example is what its README says: Fisher's table, a program that learns
// from it, and predictions made by a rule of thumb.
func TestIris(t *testing.T) {
	dir := filepath.Join("..", "..", "examples", "iris")
	grade := func(predictions string) Result {
		t.Helper()
		truth, err := os.Open(filepath.Join(dir, "hidden", "labels.csv"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = truth.Close() }()
		in, err := os.Open(predictions)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = in.Close() }()
		g, err := Grade(truth, in, []string{"accuracy", "macro_f1"})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	if g := grade(filepath.Join(dir, "predictions.csv")); g.Rows != 30 || g.Scores[0].Value != 28./30 {
		t.Errorf("the rule of thumb: %v", g)
	}
	out := t.TempDir()
	cmd := exec.Command("/bin/sh", filepath.Join(dir, "program", "run.sh"))
	cmd.Env = append(os.Environ(), "GRADEGATE_DATA="+dir, "GRADEGATE_OUTPUT="+out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if g := grade(filepath.Join(out, "predictions.csv")); g.Scores[0].Value != 27./30 {
		t.Errorf("the program: %v", g)
	}
}

// Sums of Fisher's own table, species by species, in tenths of a centimetre;
// from the means of R's datasets::iris: 5.006 3.428 1.462 0.246, 5.936 2.770
// 4.260 1.326, 6.588 2.974 5.552 2.026.
func TestIrisIsFishers(t *testing.T) {
	dir := filepath.Join("..", "..", "examples", "iris")
	read := func(name string) [][]string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		return rows[1:]
	}
	rows, label := read("train.csv"), map[string]string{}
	for _, r := range read("hidden/labels.csv") {
		label[r[0]] = r[1]
	}
	for _, r := range read("test.csv") {
		rows = append(rows, append(r, label[r[0]]))
	}
	sums, ids := map[string][4]int{}, map[string]bool{}
	for _, r := range rows {
		s := sums[r[5]]
		for k := range s {
			v, err := strconv.ParseFloat(r[1+k], 64)
			if err != nil {
				t.Fatal(err)
			}
			s[k] += int(math.Round(10 * v))
		}
		sums[r[5]], ids[r[0]] = s, true
	}
	want := map[string][4]int{"setosa": {2503, 1714, 731, 123}, "versicolor": {2968, 1385, 2130, 663}, "virginica": {3294, 1487, 2776, 1013}}
	if diff := cmp.Diff(want, sums); diff != "" || len(rows) != 150 || len(ids) != 150 {
		t.Errorf("%d rows, %d ids\n%s", len(rows), len(ids), diff)
	}
}
