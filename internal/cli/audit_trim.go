package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/server"
	"gradegate/internal/trail"
)

func (a *app) auditTrim() *cobra.Command {
	var dry, listed bool
	var dir string
	c := &cobra.Command{
		Use: "trim", Short: "Drop from the trail what is older than it is kept", Args: cobra.NoArgs,
		Long: `Drops the oldest segments whose lines are all older than retention.uses and
retention.acts say; the server does it by itself once a day. Only whole segments go,
signed ones that stand in every sink, and none with a line under a legal hold. Each
line is compared with what was signed before it goes, and a signed record of it is
kept: --list prints these certificates, and audit verify proves the lines that are
left from them.`,
		Example: "  gradegate audit trim --dry-run\n  gradegate audit trim --list\n  gradegate audit trim",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dry && listed {
				return usage{fault.New(fault.Invalid, "usage", "--dry-run and --list are two different questions.").WithFix("%s --list", cmd.CommandPath()), cmd.CommandPath()}
			}
			if listed {
				all, err := a.trimRecords(cmd.Context(), a.trailSource(cmd.Context(), dir))
				if err != nil {
					return err
				}
				return a.print(certificates(all))
			}
			if dir != "" {
				return usage{fault.New(fault.Invalid, "usage", "--dir is for --list: only the server drops anything.").WithFix("%s --list --dir %s", cmd.CommandPath(), dir), cmd.CommandPath()}
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			do := client.TrimAudit
			if dry {
				do = client.AuditTrimPreview
			}
			page, err := do(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(trimTable(page.Items, dry))
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "say what would go now, and drop nothing")
	c.Flags().BoolVar(&listed, "list", false, "print the signed records of what was dropped")
	c.Flags().StringVar(&dir, "dir", "", "with --list: read the files of a trail folder instead of asking the server")
	return c
}

// trimRecords are the records of the server, or those in a folder.
func (a *app) trimRecords(ctx context.Context, dir string) ([]api.Trim, error) {
	if dir == "" {
		client, err := a.client()
		if err != nil {
			return nil, err
		}
		page, err := client.AuditTrims(ctx)
		return page.Items, err
	}
	if err := trail.IsTrail(dir); err != nil {
		return nil, err
	}
	all, err := trail.Trims(dir)
	return server.WireTrims(all), err
}

// trimTable says what went of each stream in each sink, or would.
func trimTable(all []api.Trim, dry bool) result {
	r := list(all, func(t api.Trim) string { return t.Stream }, "", nil)
	r.table = func(w io.Writer) {
		done := "DROPPED"
		if dry {
			done = "WOULD GO"
		}
		fmt.Fprintf(w, "STREAM\tKEPT\t%s\tOF\tTHE NEXT SEGMENT STAYS:\tIN\n", done)
		for _, t := range all {
			lines, of := "nothing", "-"
			if t.Lines > 0 {
				lines, of = count(int(t.Lines), "line"), t.Earliest.Format("2006-01-02")+" to "+t.Latest.Format("2006-01-02") //nolint:gosec // lines
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Stream, t.Keep, lines, of, clean(t.Stopped), clean(t.Sink))
		}
	}
	return r
}

// certificates prints the signed records, one after the other.
func certificates(all []api.Trim) result {
	r := list(all, func(t api.Trim) string { return t.Stream }, "", nil)
	r.table = func(w io.Writer) {
		if len(all) == 0 {
			fmt.Fprintln(w, "Nothing was dropped so far.")
		}
		for i, t := range all {
			if i > 0 {
				fmt.Fprint(w, betweenNotes)
			}
			for line := range strings.Lines(t.Note) {
				fmt.Fprintln(w, clean(strings.TrimSuffix(line, "\n")))
			}
		}
	}
	return r
}
