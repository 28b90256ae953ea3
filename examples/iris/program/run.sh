#!/bin/sh
# Learns the middle of each species from the training part and gives each test
# flower the species whose middle is nearest, each measure in units of its own
# spread. Plain awk, which any machine has; no powers, which the awk of some
# small containers lacks.
set -eu

awk -F, '
	# First file: the training part. The header names the columns.
	FNR == NR {
		if (FNR == 1) next
		n++
		count[$6]++
		for (k = 2; k <= 5; k++) {
			sum[k] += $k
			square[k] += $k * $k
			middle[$6, k] += $k
		}
		next
	}
	# Second file: the test part.
	FNR == 1 {
		for (k = 2; k <= 5; k++) {
			mean = sum[k] / n
			spread[k] = square[k] / n - mean * mean
			if (spread[k] <= 0) spread[k] = 1
		}
		print "id,label"
		next
	}
	{
		best = ""
		for (s in count) {
			d = 0
			for (k = 2; k <= 5; k++) {
				off = $k - middle[s, k] / count[s]
				d += off * off / spread[k]
			}
			if (best == "" || d < least || (d == least && s < best)) {
				best = s
				least = d
			}
		}
		print $1 "," best
	}
' "$GRADEGATE_DATA/train.csv" "$GRADEGATE_DATA/test.csv" >"$GRADEGATE_OUTPUT/predictions.csv"

echo "predicted $(($(wc -l <"$GRADEGATE_OUTPUT/predictions.csv") - 1)) flowers"
