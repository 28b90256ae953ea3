#!/bin/sh
# Learns the middle of each species from the training part and gives each test
# flower the species whose middle is nearest, each measure in units of its own
# spread. Plain awk: any machine has it.
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
			spread[k] = square[k] / n - (sum[k] / n) ^ 2
			if (spread[k] <= 0) spread[k] = 1
		}
		print "id,label"
		next
	}
	{
		best = ""
		for (s in count) {
			d = 0
			for (k = 2; k <= 5; k++) d += ($k - middle[s, k] / count[s]) ^ 2 / spread[k]
			if (best == "" || d < least || (d == least && s < best)) {
				best = s
				least = d
			}
		}
		print $1 "," best
	}
' "$GRADEGATE_DATA/train.csv" "$GRADEGATE_DATA/test.csv" >"$GRADEGATE_OUTPUT/predictions.csv"

echo "predicted $(($(wc -l <"$GRADEGATE_OUTPUT/predictions.csv") - 1)) flowers"
