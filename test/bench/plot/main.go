// Command plot draws what the benchmarks of growth have found: make plot.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io/fs"
	"log"
	"math"
	"os"
	"path/filepath"
	"strings"

	"gradegate/test/bench/figures"
)

const (
	from = ".cache/growth/figures.json"
	to   = "docs/img/growth.svg"
	// limit is what a thing may cost beside a million tokens, as a ratio.
	limit = 1.5
)

func main() {
	log.SetFlags(0)
	text, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		log.Fatal("There are no figures to draw. Make them first: make growth")
	}
	var all []figures.Growth
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755) //nolint:gosec // the docs are for everybody
	}
	if err == nil {
		err = os.WriteFile(to, []byte(draw(all)), 0o644) //nolint:gosec // as above
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(to)
}

// The chart, in pixels.
const (
	width, top, rowHeight = 800, 84, 30
	left, right           = 280, 660 // of the axis
)

// style follows the reader's choice of light or dark.
const style = `
  text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 } .soft { fill: #57606a; font-size: 12px } .limit-text { fill: #bc4c00; font-size: 12px }
  .grid { stroke: #d0d7de } .limit { stroke: #bc4c00; stroke-dasharray: 4 3 } .range { stroke: #0969da; stroke-width: 2; stroke-opacity: .4 }
  .most { fill: #0969da } .some { fill: #ffffff; stroke: #0969da; stroke-width: 1.5 } .paper { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .soft { fill: #9198a1 } .limit-text { fill: #f0883e } .grid { stroke: #3d444d } .limit { stroke: #f0883e }
    .range { stroke: #58a6ff } .most { fill: #58a6ff } .some { fill: #0d1117; stroke: #58a6ff } .paper { fill: #0d1117 }
  }`

func draw(all []figures.Growth) string {
	most := 2.0
	for _, g := range all {
		most = max(most, math.Ceil(2*last(g).Most)/2)
	}
	x := func(ratio float64) float64 { return left + (right-left)*ratio/most }
	bottom := top + rowHeight*len(all)

	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img" aria-labelledby="t d">`, width, bottom+52)
	p(`<title id="t">Cost beside a million tokens, as a ratio to ten thousand</title>`)
	p(`<desc id="d">%s</desc>`, html.EscapeString(words(all)))
	p("<style>%s\n</style>", style)
	p(`<rect class="paper" width="100%%" height="100%%" rx="6"/>`)
	p(`<text class="title" x="20" y="30">Processor time beside 1 000 000 tokens ÷ beside 10 000</text>`)
	p(`<circle class="most" cx="26" cy="50" r="5"/><text class="soft" x="38" y="54">a million, with the least and the most of the rounds</text>`)
	p(`<circle class="some" cx="%d" cy="50" r="4"/><text class="soft" x="%d" y="54">a hundred thousand</text>`, 366, 377)
	p(`<text class="soft" x="%d" y="%d" text-anchor="end">beside a million</text>`, width-20, top-12)
	for i := range int(2*most) + 1 {
		at := x(float64(i) / 2)
		p(`<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, at, at, top, bottom+4)
		p(`<text class="soft" x="%.1f" y="%d" text-anchor="middle">%.1f</text>`, at, bottom+20, float64(i)/2)
	}
	p(`<line class="limit" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, x(limit), x(limit), top, bottom+4)
	p(`<text class="limit-text" x="%.1f" y="%d" text-anchor="middle">at most %.1f</text>`, x(limit), bottom+38, limit)
	for i, g := range all {
		y, m := top+rowHeight*i+rowHeight/2, last(g)
		p(`<text x="20" y="%d">%s</text>`, y+4, html.EscapeString(g.Name))
		p(`<line class="range" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, x(m.Least), x(m.Most), y, y)
		for _, some := range g.Points[1 : len(g.Points)-1] {
			p(`<circle class="some" cx="%.1f" cy="%d" r="4"/>`, x(some.Ratio), y)
		}
		p(`<circle class="most" cx="%.1f" cy="%d" r="5"/>`, x(m.Ratio), y)
		p(`<text class="soft" x="%d" y="%d" text-anchor="end">%s</text>`, width-20, y+4, micros(m.Micros))
	}
	p("</svg>")
	return b.String()
}

func last(g figures.Growth) figures.Point { return g.Points[len(g.Points)-1] }

func micros(us float64) string {
	if us < 1000 {
		return fmt.Sprintf("%.3g µs", us)
	}
	return fmt.Sprintf("%.1f ms", us/1000)
}

// words are for who cannot see the chart.
func words(all []figures.Growth) string {
	var out []string
	for _, g := range all {
		out = append(out, fmt.Sprintf("%s: %.2f", g.Name, last(g).Ratio))
	}
	return strings.Join(out, "; ")
}
