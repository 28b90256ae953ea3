// Package score compares predictions with the hidden truth.
//
// The scorers are built in so that a competition needs no program of its own.
// Predictions are hostile input: every mistake is told with its line and a way
// to mend it, and nothing that is told ever gives a hidden label away.
package score

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"gradegate/internal/fault"
)

// Direction says which of two values is better.
type Direction string

// The directions.
const (
	Higher Direction = "higher"
	Lower  Direction = "lower"
)

// Metric is one way of scoring. Accuracy, macro_f1 and roc_auc lie between 0
// and 1; log_loss, rmse and mae are not negative.
type Metric struct {
	Name   string
	Better Direction
	// Wants is what a row of predictions holds: "label", "value", or
	// "probability" (of the class "1", for two classes named 0 and 1).
	Wants string
	score func(truth, predicted []cell) (float64, error)
}

// cell is one value of a table: its text, and its number if it is one.
type cell struct {
	text   string
	number float64
}

// metrics is the table of scorers. Definitions: scikit-learn's user guide,
// "Metrics and scoring", whose values the tests reproduce.
var metrics = []Metric{
	{"accuracy", Higher, "label", accuracy},
	{"macro_f1", Higher, "label", macroF1},
	{"log_loss", Lower, "probability", logLoss},
	{"roc_auc", Higher, "probability", rocAUC},
	{"rmse", Lower, "value", rmse},
	{"mae", Lower, "value", mae},
}

// Metrics lists the built-in metrics. The list is the caller's.
func Metrics() []Metric { return slices.Clone(metrics) }

// Find gives a metric by name, or a fault that names them all.
func Find(name string) (Metric, error) {
	names := make([]string, len(metrics))
	for i, m := range metrics {
		if m.Name == name {
			return m, nil
		}
		names[i] = m.Name
	}
	return Metric{}, fault.New(fault.Invalid, "metric_unknown", "There is no metric %q.", name).
		WithFix("Use one of: %s", strings.Join(names, ", "))
}

// Score is one value of a grade.
type Score struct {
	Metric string
	Value  float64
}

// Result is the grade of one set of predictions.
type Result struct {
	Scores []Score // in the order of the metrics asked for
	Rows   int
}

// Grade scores predictions against the truth. Both are CSV with the header
// id,label or id,value or id,probability, of at most 64 MiB and five million
// rows; rows may come in any order. A label that the truth does not know is
// wrong like any other: to refuse it would tell which labels there are. Only
// NaN is no label anywhere.
//
// An error about the predictions is a fault of kind Invalid; one about the
// truth is not a fault, since it is no business of whoever predicts: CheckTruth
// tells it to the operator, before anybody predicts. Memory is bounded by the
// truth, whatever the predictions hold. Grade may be called concurrently.
func Grade(truth, predictions io.Reader, names []string) (Result, error) {
	chosen, err := choose(names)
	if err != nil {
		return Result{}, err
	}
	want, err := readTruth(truth, chosen)
	if err != nil {
		return Result{}, fmt.Errorf("the hidden labels: %s", err.Error()) // as text: it must not reach who predicts
	}
	predicted, err := readPredictions(predictions, want, chosen[0].Wants)
	if err != nil {
		return Result{}, err
	}
	r := Result{Rows: len(want.cells)}
	for _, m := range chosen {
		v, err := m.score(want.cells, predicted)
		if err != nil {
			return Result{}, err
		}
		r.Scores = append(r.Scores, Score{Metric: m.Name, Value: v})
	}
	return r, nil
}

// CheckTruth checks that a file of hidden labels fits the metrics, which must
// all want the same kind of prediction. The truth has the header id,label, or
// id,value for rmse and mae; for log_loss and roc_auc the labels are 0 and 1,
// both of which must occur. Errors are faults of kind Invalid.
func CheckTruth(truth io.Reader, names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	_, err = readTruth(truth, chosen)
	return err
}

// choose looks the metrics up; all must want the same kind of prediction.
func choose(names []string) ([]Metric, error) {
	var out []Metric
	for _, n := range names {
		m, err := Find(n)
		if err != nil {
			return nil, err
		}
		if len(out) > 0 && m.Wants != out[0].Wants {
			return nil, fault.New(fault.Invalid, "metrics_mixed", "The metrics %s and %s want different predictions.", out[0].Name, m.Name).
				WithFix("Use metrics of one kind: accuracy and macro_f1, log_loss and roc_auc, or rmse and mae.")
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Invalid, "metrics_missing", "No metric was named.").WithFix("metrics: [accuracy]")
	}
	return out, nil
}

// accuracy is the share of rows whose label is the true one.
func accuracy(truth, predicted []cell) (float64, error) {
	right := 0
	for i := range truth {
		if truth[i].text == predicted[i].text {
			right++
		}
	}
	return float64(right) / float64(len(truth)), nil
}

// macroF1 is the unweighted mean of F1 over all labels that occur in the truth
// or in the predictions; a label that was never hit counts as 0.
func macroF1(truth, predicted []cell) (float64, error) {
	type counts struct{ tp, fp, fn int }
	by := map[string]*counts{}
	of := func(label string) *counts {
		c := by[label]
		if c == nil {
			c = new(counts)
			by[label] = c
		}
		return c
	}
	for i := range truth {
		if truth[i].text == predicted[i].text {
			of(truth[i].text).tp++
			continue
		}
		of(truth[i].text).fn++
		of(predicted[i].text).fp++
	}
	sum := 0.0
	for _, label := range slices.Sorted(maps.Keys(by)) { // in order: the same rows give the same last bit
		c := by[label]
		sum += 2 * float64(c.tp) / float64(2*c.tp+c.fp+c.fn) // no label is without a row
	}
	return sum / float64(len(by)), nil
}

// clip keeps a probability away from 0 and 1, where one wrong row would make
// the loss infinite: the most that a row can cost is -ln(1e-15), or 34.5. It is
// what scikit-learn used up to version 1.2.
const clip = 1e-15

// logLoss is the mean negative log-likelihood of two classes, in nats.
func logLoss(truth, predicted []cell) (float64, error) {
	sum := 0.0
	for i := range truth {
		p := min(max(predicted[i].number, clip), 1-clip)
		if truth[i].number == 0 {
			p = 1 - p
		}
		sum -= math.Log(p)
	}
	return sum / float64(len(truth)), nil
}

// rmse is the root of the mean squared error.
func rmse(truth, predicted []cell) (float64, error) {
	sum := 0.0
	for i := range truth {
		d := truth[i].number - predicted[i].number
		sum += d * d
	}
	return finite(math.Sqrt(sum / float64(len(truth))))
}

// mae is the mean absolute error.
func mae(truth, predicted []cell) (float64, error) {
	sum := 0.0
	for i := range truth {
		sum += math.Abs(truth[i].number - predicted[i].number)
	}
	return finite(sum / float64(len(truth)))
}

func finite(v float64) (float64, error) {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return 0, fault.New(fault.Invalid, "predictions_too_far", "The values are so large that the error has no number.").
			WithFix("Check the unit of the predicted values.")
	}
	return v, nil
}
