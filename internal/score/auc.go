package score

import (
	"slices"

	"gradegate/internal/fault"
)

// rocAUC is the area under the ROC curve: the chance that a random row of
// class 1 gets a higher probability than a random row of class 0, ties counting
// half. It is computed from mid-ranks (Mann and Whitney 1947).
func rocAUC(truth, predicted []cell) (float64, error) {
	order := make([]int, len(truth))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch x, y := predicted[a].number, predicted[b].number; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	var ranks float64
	var ones int
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && predicted[order[j]].number == predicted[order[i]].number {
			j++
		}
		mid := float64(i+1+j) / 2 // ranks i+1 to j share their mean
		for _, row := range order[i:j] {
			if truth[row].number == 1 {
				ranks += mid
				ones++
			}
		}
		i = j
	}
	zeros := len(truth) - ones
	if ones == 0 || zeros == 0 {
		// readTruth has refused such a file; this keeps a division by zero impossible.
		return 0, fault.New(fault.Internal, "truth_one_class", "The truth has one class only.")
	}
	return (ranks - float64(ones)*float64(ones+1)/2) / (float64(ones) * float64(zeros)), nil
}
