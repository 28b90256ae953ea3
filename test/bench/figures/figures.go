// Package figures is what the benchmarks of growth leave for the plot.
package figures

// Growth is what one thing costs beside more and more tokens.
type Growth struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// Point is one number of tokens. The ratios are to the first point, within one
// round: their median, least and most.
type Point struct {
	Tokens int     `json:"tokens"`
	Micros float64 `json:"micros"`
	Ratio  float64 `json:"ratio"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}
