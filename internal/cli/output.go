package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
)

// result is an answer in all the forms it can be asked for in.
type result struct {
	json   any    // the API's object, unchanged
	name   string // the id, one on each line
	secret string // of what was just made; empty if there is none
	table  func(w io.Writer)
}

func (a *app) checkOutput() error {
	switch a.output {
	case "table", "json", "name", "secret":
		return nil
	}
	f := fault.New(fault.Invalid, "usage", "there is no output %q%s", a.output, didYouMean(a.output, []string{"table", "json", "name", "secret"})).
		WithFix("Use -o table, json, name or secret.")
	return usage{f, "gradegate"}
}

// print writes a result as it was asked for.
func (a *app) print(r result) error {
	switch a.output {
	case "json":
		e := json.NewEncoder(a.stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(r.json)
	case "name":
		if r.name == "" {
			return nil // none is no line
		}
		_, err := fmt.Fprintln(a.stdout, harmless(r.name))
		return err
	case "secret":
		if r.secret == "" {
			return errors.New("the answer holds no secret")
		}
		_, err := fmt.Fprintln(a.stdout, harmless(r.secret))
		return err
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	r.table(w)
	return w.Flush()
}

// items is a list in the API's own form.
type items[T any] struct {
	Items []T `json:"items"`
}

// list is a result of many things.
func list[T any](all []T, name func(T) string, header string, row func(T) []string) result {
	names := make([]string, len(all))
	for i, x := range all {
		names[i] = name(x)
	}
	if all == nil {
		all = []T{} // [] and not null
	}
	return result{json: items[T]{all}, name: strings.Join(names, "\n"), table: func(w io.Writer) {
		fmt.Fprintln(w, header)
		for _, x := range all {
			cells := row(x)
			for i := range cells {
				cells[i] = clean(cells[i])
			}
			fmt.Fprintln(w, strings.Join(cells, "\t"))
		}
	}}
}

// facts writes names and values, one pair on each line.
func facts(w io.Writer, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], clean(pairs[i+1]))
		}
	}
}

// clean makes foreign text safe for a terminal and for one cell of a table: a
// name that somebody else chose must not move the cursor.
func clean(s string) string { return audit.Clean(s, maxCell) }

// maxCell is more than any sentence of ours needs.
const maxCell = 4096

// when writes an instant in the reader's own time, and says which that is.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04 MST")
}

// count writes a number of things: count(1, "token") is "1 token". A plural
// that is more than an s is given.
func count(n int, one string, many ...string) string {
	return fmt.Sprintf("%d %s", n, pick(n, one, first(many, one+"s")))
}

// pick is one for one thing, else many.
func pick(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// ago writes how long something has been, roughly.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", max(0, int(d/time.Second)))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d/time.Hour))
	}
	return fmt.Sprintf("%dd ago", int(d/(24*time.Hour)))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
