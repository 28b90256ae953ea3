package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"gradegate/api"
	"gradegate/internal/audit"
)

// namesOfPeople are the names behind users' ids, where they can be had: only
// the server has them, and not everybody who may read the trail may see all.
func (a *app) namesOfPeople(ctx context.Context, dir string) (map[string]string, error) {
	names := map[string]string{}
	if dir != "" || a.output != "table" {
		return names, nil
	}
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	users, err := client.Users(ctx)
	if err != nil {
		return names, nil //nolint:nilerr // ids will do
	}
	for _, u := range users {
		names[u.ID] = u.Name
	}
	return names, nil
}

// column is a column of a table that has to fit a width.
type column struct {
	head  string
	least int // it is not cut below that; 0: never
}

// auditColumns fit 120 columns whatever stands in them.
var auditColumns = []column{{"WHEN", 0}, {"WHAT", 30}, {"OUTCOME", 0}, {"WHO", 12}, {"TOKEN", 9}, {"FROM", 15}, {"WHY", 13}}

const (
	tableWidth = 120
	gap        = 2
)

// auditTable shows lines to people. What is cut short there is whole in JSON.
func auditTable(events []api.AuditEvent, names map[string]string) result {
	r := list(events, func(e api.AuditEvent) string { return e.ID }, "", nil)
	r.table = func(w io.Writer) {
		rows := make([][]string, len(events))
		for i, e := range events {
			rows[i] = []string{
				e.At.Local().Format("2006-01-02 15:04:05"), what(e), e.Outcome, who(e.Actor, names), orDash(e.Token), from(e), orDash(e.Reason),
			}
			for j, cell := range rows[i] {
				rows[i][j] = clean(cell)
			}
		}
		heads := make([]string, len(auditColumns))
		for i, c := range auditColumns {
			heads[i] = c.head
		}
		fmt.Fprintln(w, strings.Join(heads, "\t"))
		width := fit(auditColumns, rows, tableWidth)
		for _, row := range rows {
			for i, cell := range row {
				row[i] = shortened(cell, width[i])
			}
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
	}
	return r
}

// what happened: of a request its route, of anything else what was done to what.
func what(e api.AuditEvent) string {
	s := e.Action
	switch {
	case e.Action == string(audit.Request) && e.Route != "":
		s = e.Route
	case e.Target != "":
		s += " " + e.Target
	case e.Route != "":
		s += " " + e.Route
	}
	if e.Count > 0 {
		s += fmt.Sprintf(" ×%d", e.Count)
	}
	return s
}

// from is the address, or the network and how many addresses of it a count is of.
func from(e api.AuditEvent) string {
	if n := e.Detail["addresses"]; n != "" {
		return fmt.Sprintf("%s (%s)", cmp.Or(e.Addr, "many"), n)
	}
	return orDash(e.Addr)
}

func who(actor string, names map[string]string) string {
	if name := names[actor]; name != "" {
		return name
	}
	return orDash(actor)
}

// fit gives each column the width of its longest cell, and then takes from the
// one that has most to spare until all fit.
func fit(columns []column, rows [][]string, total int) []int {
	width := make([]int, len(columns))
	sum := gap * (len(columns) - 1)
	for i, c := range columns {
		width[i] = len(c.head)
		for _, row := range rows {
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
		sum += width[i]
	}
	for ; sum > total; sum-- {
		most := -1
		for i, c := range columns {
			if spare := width[i] - c.least; c.least > 0 && spare > 0 && (most < 0 || spare > width[most]-columns[most].least) {
				most = i
			}
		}
		if most < 0 {
			break
		}
		width[most]--
	}
	return width
}

// shortened cuts a cell to a width, and shows that it did.
func shortened(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return strings.TrimRight(string([]rune(s)[:width-1]), " ") + "…"
}
