package story

import (
	"bufio"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gradegate/api"
)

// R1.2, R2.7, B1: the demo's whole story holds on the built binary.
func TestDemo(t *testing.T) {
	out, err := exec.Command(binary, "demo", "--exit", "--grace", "1s").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "FAIL") || !strings.Contains(string(out), "Isolation of programs: ") {
		t.Errorf("%s", out)
	}
	if strings.Contains(string(out), "ggpat_") || strings.Contains(string(out), "ggses_") {
		t.Error("the demo shows a secret")
	}
}

// The grades of the example are what anybody gets who computes them anew, and
// they change when the training data do.
func TestGradesAreReal(t *testing.T) {
	w := start(t)
	w.local("competition", "apply", "examples/iris")
	ann := w.person("ann")
	before := gradeOf(t, w, ann, "examples/iris/program")
	beforePredictions := gradeOf(t, w, ann, "examples/iris/predictions.csv")

	iris := filepath.Join("..", "..", "examples", "iris")
	if acc, f1 := nearestMiddle(t, iris); !near(before["accuracy"], acc) || !near(before["macro_f1"], f1) {
		t.Errorf("the program's grade is %v, recomputed %v %v", before, acc, f1)
	}
	truth, pred := column(t, filepath.Join(iris, "hidden", "labels.csv"), 1), column(t, filepath.Join(iris, "predictions.csv"), 1)
	if acc, f1 := grade(truth, pred); !near(beforePredictions["accuracy"], acc) || !near(beforePredictions["macro_f1"], f1) {
		t.Errorf("the predictions' grade is %v, recomputed %v %v", beforePredictions, acc, f1)
	}

	// The same program on other training data: two species change names.
	other := filepath.Join(t.TempDir(), "iris")
	if err := os.CopyFS(other, os.DirFS(iris)); err != nil {
		t.Fatal(err)
	}
	train := filepath.Join(other, "train.csv")
	data, err := os.ReadFile(train)
	if err != nil {
		t.Fatal(err)
	}
	swapped := strings.NewReplacer("setosa", "virginica", "virginica", "setosa").Replace(string(data))
	if err := os.WriteFile(train, []byte(swapped), 0o600); err != nil {
		t.Fatal(err)
	}
	w.local("competition", "apply", other)
	after := gradeOf(t, w, ann, "examples/iris/program")
	if acc, f1 := nearestMiddle(t, other); !near(after["accuracy"], acc) || !near(after["macro_f1"], f1) || near(after["accuracy"], before["accuracy"]) {
		t.Errorf("after the training data changed: %v, recomputed %v %v, before %v", after, acc, f1, before)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// gradeOf hands something in and gives its scores.
func gradeOf(t *testing.T, w *world, c *api.Client, path string) map[string]float64 {
	t.Helper()
	j := handIn(t, w, c, path)
	w.until("the job is graded", func() bool {
		now, err := c.JobByID(t.Context(), j.ID)
		if err != nil {
			t.Fatal(err)
		}
		j = now
		return j.State == "succeeded" || j.State == "failed"
	}, nil)
	if j.State != "succeeded" {
		t.Fatalf("%s: %s %s", path, j.Reason, j.Detail)
	}
	return j.Scores
}

// column reads a column of a CSV file without its header.
func column(t *testing.T, path string, n int) (out []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Scan()
	for lines.Scan() {
		out = append(out, strings.Split(lines.Text(), ",")[n])
	}
	return out
}

// grade is accuracy and macro-F1 by their textbook definitions.
func grade(truth, pred []string) (accuracy, macroF1 float64) {
	labels := map[string]bool{}
	for i := range truth {
		labels[truth[i]], labels[pred[i]] = true, true
		if truth[i] == pred[i] {
			accuracy++
		}
	}
	for l := range labels {
		var hit, said, is float64
		for i := range truth {
			if truth[i] == l {
				is++
			}
			if pred[i] == l {
				said++
				if truth[i] == l {
					hit++
				}
			}
		}
		if hit > 0 {
			precision, recall := hit/said, hit/is
			macroF1 += 2 * precision * recall / (precision + recall)
		}
	}
	return accuracy / float64(len(truth)), macroF1 / float64(len(labels))
}

// nearestMiddle does what the example program says it does, in another language.
func nearestMiddle(t *testing.T, dir string) (accuracy, macroF1 float64) {
	t.Helper()
	species := column(t, filepath.Join(dir, "train.csv"), 5)
	count := map[string]float64{}
	middle := map[string][4]float64{}
	var mean, square [4]float64
	for k := range 4 {
		for i, v := range numbers(t, column(t, filepath.Join(dir, "train.csv"), k+1)) {
			m := middle[species[i]]
			m[k] += v
			middle[species[i]] = m
			mean[k] += v
			square[k] += v * v
		}
	}
	n := float64(len(species))
	for _, s := range species {
		count[s]++
	}
	var test [4][]float64
	for k := range 4 {
		test[k] = numbers(t, column(t, filepath.Join(dir, "test.csv"), k+1))
	}
	var pred []string
	for i := range test[0] {
		best, least := "", math.Inf(1)
		for s, m := range middle {
			d := 0.0
			for k := range 4 {
				d += math.Pow(test[k][i]-m[k]/count[s], 2) / (square[k]/n - math.Pow(mean[k]/n, 2))
			}
			if d < least {
				best, least = s, d
			}
		}
		pred = append(pred, best)
	}
	return grade(column(t, filepath.Join(dir, "hidden", "labels.csv"), 1), pred)
}
