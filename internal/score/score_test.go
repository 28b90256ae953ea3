package score

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"gradegate/internal/fault"
)

func csvOf(header string, values ...any) string {
	var b strings.Builder
	b.WriteString("id," + header + "\n")
	for i, v := range values {
		fmt.Fprintf(&b, "r%d,%v\n", i, v)
	}
	return b.String()
}

// The values are those of scikit-learn's documentation of each function.
func TestReferenceValues(t *testing.T) {
	for _, c := range []struct {
		metric             string
		truth, predictions string
		want               float64
	}{
		{"accuracy", csvOf("label", 0, 1, 2, 3), csvOf("label", 0, 2, 1, 3), 0.5},
		{"macro_f1", csvOf("label", 0, 1, 2, 0, 1, 2), csvOf("label", 0, 2, 1, 0, 0, 1), 0.26666666666666666},
		{"log_loss", csvOf("label", 1, 0, 0, 1), csvOf("probability", .9, .1, .2, .65), 0.21616187468057912},
		{"roc_auc", csvOf("label", 0, 0, 1, 1), csvOf("probability", .1, .4, .35, .8), 0.75},
		{"rmse", csvOf("value", 3, -0.5, 2, 7), csvOf("value", 2.5, 0.0, 2, 8), 0.6123724356957945},
		{"mae", csvOf("value", 3, -0.5, 2, 7), csvOf("value", 2.5, 0.0, 2, 8), 0.5},
	} {
		g, err := Grade(strings.NewReader(c.truth), strings.NewReader(c.predictions), []string{c.metric})
		if err != nil {
			t.Errorf("%s: %v", c.metric, err)
			continue
		}
		if got := g.Scores[0].Value; math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s = %v, want %v", c.metric, got, c.want)
		}
	}
}

// The area by ranks equals the count over all pairs, ties included.
func TestAUCByPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		n := 2 + r.IntN(40)
		truth, pred := make([]cell, n), make([]cell, n)
		for i := range truth {
			truth[i].number = float64(r.IntN(2))
			pred[i].number = float64(r.IntN(5)) / 4
		}
		truth[0].number, truth[1].number = 0, 1
		var sum, pairs float64
		for i := range truth {
			for j := range truth {
				if truth[i].number == 1 && truth[j].number == 0 {
					pairs++
					switch {
					case pred[i].number > pred[j].number:
						sum++
					case pred[i].number == pred[j].number:
						sum += 0.5
					}
				}
			}
		}
		got, err := rocAUC(truth, pred)
		if err != nil || math.Abs(got-sum/pairs) > 1e-12 {
			t.Fatalf("%v, want %v (%v)", got, sum/pairs, err)
		}
	}
}

// Every mistake has its own code, and no message holds a hidden label.
func TestBadPredictions(t *testing.T) {
	truth := csvOf("label", "hiddenA", "hiddenB", "hiddenC")
	good := csvOf("label", "x", "y", "z")
	for _, c := range []struct{ name, in, code string }{
		{"empty file", "", "predictions_empty"},
		{"header only", "id,label\n", "predictions_empty"},
		{"wrong header", strings.Replace(good, "label", "species", 1), "predictions_wrong_header"},
		{"no header", good[9:], "predictions_wrong_header"},
		{"missing row", strings.Replace(good, "r1,y\n", "", 1), "predictions_missing_rows"},
		{"extra row", good + "r9,y\n", "predictions_extra_rows"},
		{"wrong ids", strings.ReplaceAll(good, "r", "q"), "predictions_extra_rows"},
		{"twice", good + "r1,y\n", "predictions_duplicate_id"},
		{"ragged", good + "r9,y,z\n", "predictions_ragged"},
		{"empty label", strings.Replace(good, "r1,y", "r1,", 1), "predictions_malformed"},
		{"no label", strings.Replace(good, "r1,y", "r1,nan", 1), "predictions_not_a_label"},
		{"not UTF-8", strings.Replace(good, "r1,y", "r1,\xff", 1), "predictions_not_utf8"},
		{"open quote", good + "r9,\"y\n", "predictions_malformed"},
		{"quote without end", "id,label\nr0,x\n\"" + strings.Repeat("y\n", 1<<20), "predictions_malformed"},
		{"line without end", "id,label\nr0,x\n" + strings.Repeat("y", 1<<20), "predictions_malformed"},
		{"quote within", "id,label\nr0\"x,y\n", "predictions_malformed"},
		{"quote first", "\"id", "predictions_malformed"},
		{"semicolons", strings.ReplaceAll(good, ",", ";"), "predictions_wrong_header"},
		{"other column", strings.Replace(good, "label", "value", 1), "predictions_wrong_header"},
		{"overlong", good + "r9," + strings.Repeat("y", 300) + "\n", "predictions_malformed"},
		{"zero bytes", "\x00\x00\x00", "predictions_wrong_header"},
	} {
		_, err := Grade(strings.NewReader(truth), strings.NewReader(c.in), []string{"accuracy"})
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
		if err != nil && strings.Contains(fmt.Sprintf("%v %+v", err, fault.Of(err)), "hidden") {
			t.Errorf("%s: the message gives a label away", c.name)
		}
	}
	for _, v := range []string{"NaN", "inf", "-Inf", "infinity", "one", "0x", "0x1p-2", "1_0", "1e999", "1;5"} {
		_, err := Grade(strings.NewReader(csvOf("value", 1)), strings.NewReader(csvOf("value", v)), []string{"rmse"})
		if fault.CodeOf(err) != "predictions_not_a_number" {
			t.Errorf("%s: %v", v, err)
		}
	}
	if _, err := Grade(strings.NewReader(csvOf("label", 0, 1)), strings.NewReader(csvOf("probability", 0.5, 1.5)), []string{"roc_auc"}); fault.CodeOf(err) != "predictions_not_a_probability" {
		t.Error(err)
	}
}

// What tools of people's daily life write is no mistake.
func TestForgiving(t *testing.T) {
	truth := csvOf("label", "a", "b")
	for name, in := range map[string]string{
		"byte order mark": "\xef\xbb\xbf" + truth,
		"CRLF":            strings.ReplaceAll(truth, "\n", "\r\n"),
		"blank lines":     truth + "\n\n",
		"no last newline": strings.TrimSuffix(truth, "\n"),
		"other order":     "id,label\nr1,b\nr0,a\n",
		"spaces":          "id, label\nr0, a\nr1 ,b\n",
		"quotes":          "\"id\",\"label\"\n\"r0\",\"a\"\n\"r1\",\"b\"\n",
	} {
		g, err := Grade(strings.NewReader(truth), strings.NewReader(in), []string{"accuracy"})
		if err != nil || g.Scores[0].Value != 1 {
			t.Errorf("%s: %v %v", name, g, err)
		}
	}
}

// Messages name lines and public ids, so that the mistake can be found.
func TestMessages(t *testing.T) {
	truth := csvOf("label", 0, 1, 0, 1, 0)
	for _, c := range []struct{ in, want string }{
		{csvOf("label", 0), `The file of predictions lacks 4 of 5 rows, such as "r1", "r2", "r3".`},
		{csvOf("label", 0, 1, 0, 1, 0, 1, 0), "The file of predictions has 2 rows with an id that is not in the test file; the first is in line 7."},
		{"id,label\r\n\r\nr0,0\r\nr0,1\r\n", "The file of predictions repeats an id in line 4."},
		{"id,label\nr0,0\nr1\n", "The file of predictions has 1 field where 2 belong in line 3."},
		{"id,label\nr0,0\n\"r1,0\n", "The file of predictions is no CSV in line 3."},
	} {
		_, err := Grade(strings.NewReader(truth), strings.NewReader(c.in), []string{"accuracy"})
		if f := fault.Of(err); err == nil || f.Detail != c.want || f.Fix == "" {
			t.Errorf("%q (%q), want %q", f.Detail, f.Fix, c.want)
		}
	}
}

// A mistake in the truth is the operator's: CheckTruth tells it, and Grade does
// not tell it to whoever predicts.
func TestBadTruth(t *testing.T) {
	for _, c := range []struct{ metric, truth, code string }{
		{"accuracy", "", "labels_empty"},
		{"accuracy", "id,label\n", "labels_empty"},
		{"accuracy", "id,label\na,1\na,2\n", "labels_duplicate_id"},
		{"rmse", csvOf("label", 1), "labels_wrong_header"},
		{"rmse", csvOf("value", "secret"), "labels_not_a_number"},
		{"accuracy", csvOf("label", "a", "NaN"), "labels_not_a_label"},
		{"roc_auc", csvOf("label", 0, 1, 2), "labels_not_binary"},
		{"log_loss", csvOf("label", 1, 1), "labels_one_class"},
	} {
		if err := CheckTruth(strings.NewReader(c.truth), []string{c.metric}); err == nil || fault.CodeOf(err) != c.code {
			t.Errorf("%v, want %s", err, c.code)
		}
		_, err := Grade(strings.NewReader(c.truth), strings.NewReader("id,label\n"), []string{c.metric})
		if err == nil || fault.KindOf(err) != fault.Internal {
			t.Errorf("Grade says %v", err)
		}
	}
}

// Every scorer equals its definition, computed in the plainest way.
func TestByDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		n := 1 + r.IntN(30)
		truth, pred := make([]cell, n), make([]cell, n)
		for i := range truth {
			a, b := r.IntN(4), r.IntN(5)
			truth[i] = cell{text: fmt.Sprint(a), number: float64(a % 2)}
			pred[i] = cell{text: fmt.Sprint(b), number: float64(b) / 4}
		}
		for _, c := range []struct {
			name string
			fast func(truth, predicted []cell) (float64, error)
			slow func(truth, predicted []cell) float64
		}{
			{"accuracy", accuracy, func(y, p []cell) float64 {
				return mean(y, p, func(y, p cell) float64 { return indicator(y.text == p.text) })
			}},
			{"macro_f1", macroF1, macroF1ByLabel},
			{"rmse", rmse, func(y, p []cell) float64 {
				return math.Sqrt(mean(y, p, func(y, p cell) float64 { return math.Pow(y.number-p.number, 2) }))
			}},
			{"mae", mae, func(y, p []cell) float64 {
				return mean(y, p, func(y, p cell) float64 { return math.Max(y.number-p.number, p.number-y.number) })
			}},
			{"log_loss", logLoss, func(y, p []cell) float64 {
				return mean(y, p, func(y, p cell) float64 {
					q := math.Min(math.Max(p.number, 1e-15), 1-1e-15)
					return -(y.number*math.Log(q) + (1-y.number)*math.Log(1-q))
				})
			}},
		} {
			got, err := c.fast(truth, pred)
			if want := c.slow(truth, pred); err != nil || math.Abs(got-want) > 1e-12 {
				t.Fatalf("%s = %v (%v), want %v", c.name, got, err, want)
			}
		}
	}
}

func mean(truth, pred []cell, f func(y, p cell) float64) float64 {
	sum := 0.0
	for i := range truth {
		sum += f(truth[i], pred[i])
	}
	return sum / float64(len(truth))
}

func indicator(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// macroF1ByLabel is the harmonic mean of precision and recall, label by label.
func macroF1ByLabel(truth, pred []cell) float64 {
	sum, labels := 0.0, 0.0
	for _, label := range []string{"0", "1", "2", "3", "4"} {
		is := func(c cell) float64 { return indicator(c.text == label) }
		count := func(f func(y, p cell) float64) float64 { return mean(truth, pred, f) }
		hit := count(func(y, p cell) float64 { return is(y) * is(p) })
		told, there := count(func(_, p cell) float64 { return is(p) }), count(func(y, _ cell) float64 { return is(y) })
		if told+there == 0 {
			continue
		}
		labels++
		if hit > 0 {
			precision, recall := hit/told, hit/there
			sum += 2 * precision * recall / (precision + recall)
		}
	}
	return sum / labels
}

// The worst probability costs what the bound says, and no infinity.
func TestLogLossIsFinite(t *testing.T) {
	g, err := Grade(strings.NewReader(csvOf("label", 0, 1)), strings.NewReader(csvOf("probability", 1, 0)), []string{"log_loss"})
	if err != nil || math.Abs(g.Scores[0].Value-34.5) > 0.1 {
		t.Error(g, err)
	}
}

// Values beyond measure are a mistake and not an infinite grade.
func TestTooFar(t *testing.T) {
	for _, metric := range []string{"rmse", "mae"} {
		_, err := Grade(strings.NewReader(csvOf("value", -1e308)), strings.NewReader(csvOf("value", 1.7e308)), []string{metric})
		if fault.CodeOf(err) != "predictions_too_far" {
			t.Errorf("%s: %v", metric, err)
		}
	}
}

// However much a participant sends, memory is bounded by the truth.
func TestMemoryIsBounded(t *testing.T) {
	var before, after runtime.MemStats
	rows := &endless{}
	runtime.GC()
	runtime.ReadMemStats(&before)
	_, err := Grade(strings.NewReader(csvOf("label", "a")), io.MultiReader(strings.NewReader("id,label\n"), rows), []string{"accuracy"})
	runtime.ReadMemStats(&after)
	if fault.CodeOf(err) != "predictions_too_large" {
		t.Error(err)
	}
	if grown := int64(after.Sys) - int64(before.Sys); grown > 32<<20 {
		t.Errorf("%d MiB for a file that nobody asked for", grown>>20)
	}
	if rows.given > maxBytes+maxRecord {
		t.Errorf("%d bytes were read", rows.given)
	}
}

// endless gives rows with ids of their own for ever.
type endless struct{ row, given int }

func (e *endless) Read(p []byte) (int, error) {
	b := fmt.Appendf(p[:0], "q%06d,%s\n", e.row, strings.Repeat("x", 80))
	e.row++
	n := min(len(b), len(p))
	e.given += n
	return copy(p, b[:n]), nil
}

func TestTooManyRows(t *testing.T) {
	f, err := open(strings.NewReader("id,label\nq,a\nq,a\n"), "label", "predictions")
	if err != nil {
		t.Fatal(err)
	}
	f.rows = maxRows - 1
	if _, _, err := f.next(); err != nil {
		t.Error(err)
	}
	if _, _, err := f.next(); fault.CodeOf(err) != "predictions_too_large" {
		t.Error(err)
	}
}

func TestMetricsMustAgree(t *testing.T) {
	for _, names := range [][]string{{"accuracy", "rmse"}, {"speed"}, nil} {
		if err := CheckTruth(strings.NewReader(csvOf("label", "a")), names); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%v: %v", names, err)
		}
	}
}

// The law of the reader: a prediction equal to the truth scores perfectly,
// truth and predictions are read alike, and a mistake is one of the file.
func FuzzPredictions(f *testing.F) {
	f.Add("id,label\nr0,a\n")
	f.Add("\xef\xbb\xbfid,label\r\nr0,a\r\n")
	f.Add("id,label\n\"r0\",\"a,b\"\n")
	f.Fuzz(func(t *testing.T, in string) {
		names := []string{"accuracy", "macro_f1"}
		g, err := Grade(strings.NewReader(in), strings.NewReader(in), names)
		if err == nil && (g.Scores[0].Value != 1 || g.Scores[1].Value != 1) {
			t.Fatalf("truth against itself: %v", g)
		}
		if checked := CheckTruth(strings.NewReader(in), names); (checked == nil) != (err == nil) || checked != nil && fault.KindOf(checked) != fault.Invalid {
			t.Fatalf("as truth %v, as both %v", checked, err)
		}
		g, err = Grade(strings.NewReader("id,label\nr0,a\n"), strings.NewReader(in), names)
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatalf("%v", err)
		}
		if err == nil && g.Rows != 1 {
			t.Fatal(g)
		}
	})
}
