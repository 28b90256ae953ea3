package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/config"
)

func (a *app) sweepCmd() *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use: "sweep", Short: "Archive what ended long ago, now (for administrators)", Args: cobra.NoArgs,
		Long: `Moves tokens that ended more than 30 days ago to the archive, and reduces what has
been there for as long as retention.tokens says to a signed segment on disk and a
tombstone. The server does so by itself every day. What stays, and why: a token of its
family has not ended (family), nor one that was made from it (child), a job or a job's
handle depends on it (job), a legal hold is on it (on_hold), it ended lately (recent).`,
		Example: "  gradegate sweep --dry-run\n  gradegate sweep",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			total, err := client.Sweep(cmd.Context(), api.Sweep{DryRun: dry})
			for err == nil && total.More && !dry {
				a.hint("%s so far.", count(total.Archived, "token archived", "tokens archived"))
				var next api.Swept
				next, err = client.Sweep(cmd.Context(), api.Sweep{})
				total = added(total, next)
			}
			if err != nil {
				return err
			}
			if total.More {
				a.hint("There is more than a dry run looks at; the counts are a beginning.")
			}
			return a.print(result{json: total, name: strconv.Itoa(total.Archived), table: func(w io.Writer) { sweepTable(w, total) }})
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "change nothing, and show what would be done")
	return c
}

// added is what two runs in a row did.
func added(a, b api.Swept) api.Swept {
	b.StartedAt, b.Looked = a.StartedAt, a.Looked+b.Looked
	b.Archived, b.Reduced, b.Segments = a.Archived+b.Archived, a.Reduced+b.Reduced, append(a.Segments, b.Segments...)
	for _, c := range a.Classes {
		found := false
		for i := range b.Classes {
			if b.Classes[i].Name == c.Name {
				b.Classes[i].Count, found = b.Classes[i].Count+c.Count, true
			}
		}
		if !found {
			b.Classes = append(b.Classes, c)
		}
	}
	return b
}

func sweepTable(w io.Writer, r api.Swept) {
	switch {
	case r.Skipped != "":
		fmt.Fprintf(w, "Nothing was swept: %s.\n", r.Skipped)
		return
	case r.DryRun:
		fmt.Fprintf(w, "%s would be archived, and %s of the archive reduced to tombstones. Nothing was changed.\n", count(r.Archived, "token"), count(r.Reduced, "row"))
	default:
		fmt.Fprintf(w, "%s archived, and %s of the archive reduced to tombstones.\n", count(r.Archived, "token was", "tokens were"), count(r.Reduced, "row"))
	}
	if len(r.Classes)+len(r.Kept) > 0 {
		fmt.Fprintln(w, "WHAT\tTOKENS\tSUCH AS")
	}
	for _, c := range r.Classes {
		fmt.Fprintf(w, "goes: %s\t%d\t%s\n", clean(c.Name), c.Count, strings.Join(c.Examples, " "))
	}
	for _, c := range r.Kept {
		fmt.Fprintf(w, "stays: %s\t%d\t%s\n", clean(c.Name), c.Count, strings.Join(c.Examples, " "))
	}
	for _, s := range r.Segments {
		fmt.Fprintf(w, "segment\t%s\n", clean(s))
	}
}

func (a *app) growthCmd() *cobra.Command {
	return &cobra.Command{
		Use: "growth", Short: "How much there is of everything, and when the disk is full", Args: cobra.NoArgs,
		Long: `Rows of the tables against what the service is built for, bytes of each part, how full
the disks are and, once there are samples of a day, how fast that grows and when it is
full. It alerts at 70, 85 and 95 %, and names users who make far more tokens than others.`,
		Example: "  gradegate growth",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			g, err := client.Growth(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(result{json: g, name: strconv.Itoa(g.Level), table: func(w io.Writer) { growthTable(w, g) }})
		},
	}
}

func growthTable(w io.Writer, g api.Growth) {
	if len(g.Alerts) == 0 {
		fmt.Fprintln(w, "There is room for everything.")
	}
	for _, x := range g.Alerts {
		fmt.Fprintln(w, "alert: "+clean(x))
	}
	fmt.Fprintln(w, "WHAT\tNOW\tOF\tUSED\tA DAY\tFULL IN")
	row := func(m api.Measure, what string, unit func(int64) string) {
		of, used, day, full := "-", "-", "-", "-"
		if m.Limit > 0 {
			of, used = unit(m.Limit), fmt.Sprintf("%.1f %%", 100*float64(m.Value)/float64(m.Limit))
		}
		if m.PerDay != nil {
			day = signed(int64(*m.PerDay), unit)
		}
		if m.FullInDays != nil {
			full = count(*m.FullInDays, "day")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", clean(what), unit(m.Value), of, used, day, full)
	}
	for _, m := range g.Disks {
		row(m, "disk of "+m.Name, roundBytes)
	}
	for _, m := range g.Bytes {
		row(m, m.Name, roundBytes)
	}
	for _, m := range g.Rows {
		row(m, "rows of "+m.Name, func(n int64) string { return strconv.FormatInt(n, 10) })
	}
	for _, m := range g.Minters {
		fmt.Fprintf(w, "made by %s\t%d tokens in 7 days\n", clean(orDash(m.User)), m.Tokens)
	}
}

func signed(n int64, unit func(int64) string) string {
	if n < 0 {
		return "-" + unit(-n)
	}
	return "+" + unit(n)
}

// roundBytes writes a size with one digit behind the point at most.
func roundBytes(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return strconv.FormatFloat(float64(n)/float64(u.size), 'f', 1, 64) + " " + u.name
		}
	}
	return config.FormatBytes(n)
}
