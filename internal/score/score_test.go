package score

import (
	"fmt"
	"math"
	"math/rand/v2"
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
		{"not UTF-8", strings.Replace(good, "r1,y", "r1,\xff", 1), "predictions_not_utf8"},
		{"open quote", good + "r9,\"y\n", "predictions_malformed"},
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
	for _, v := range []string{"NaN", "inf", "-Inf", "one", "0x", "1e999"} {
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

func TestTooLarge(t *testing.T) {
	endless := strings.NewReader("id,label\n" + strings.Repeat("r,x\n", 1) + strings.Repeat(" ", maxBytes))
	if _, err := Grade(strings.NewReader(csvOf("label", "a")), endless, []string{"accuracy"}); fault.CodeOf(err) != "predictions_too_large" {
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

// The law of the reader: a prediction equal to the truth scores perfectly, and
// nothing panics.
func FuzzPredictions(f *testing.F) {
	f.Add("id,label\nr0,a\n")
	f.Add("\xef\xbb\xbfid,label\r\nr0,a\r\n")
	f.Add("id,label\n\"r0\",\"a,b\"\n")
	f.Fuzz(func(t *testing.T, in string) {
		g, err := Grade(strings.NewReader(in), strings.NewReader(in), []string{"accuracy", "macro_f1"})
		if err == nil && (g.Scores[0].Value != 1 || g.Scores[1].Value != 1) {
			t.Fatalf("truth against itself: %v", g)
		}
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatalf("%v", err)
		}
	})
}
