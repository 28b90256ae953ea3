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
	return usage{fmt.Errorf("there is no output %q: use table, json, name or secret", a.output), "gradegate"}
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
		_, err := fmt.Fprintln(a.stdout, r.name)
		return err
	case "secret":
		if r.secret == "" {
			return errors.New("the answer holds no secret")
		}
		_, err := fmt.Fprintln(a.stdout, r.secret)
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

// when writes an instant in the reader's own time.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04")
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
