package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gradegate/api"
)

func (a *app) quotaCmd() *cobra.Command {
	c := &cobra.Command{Use: "quota", Short: "What you may still use, and what was charged"}
	show := a.quotaShow()
	// The noun alone shows it: that is what people type.
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return show.RunE(cmd, nil)
	}
	c.AddCommand(show, a.quotaEntries(), a.quotaGrant(), a.quotaEnd())
	return c
}

func (a *app) quotaShow() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use: "show [COMPETITION]", Short: "What is used, reserved and left, and when it is free again", Args: cobra.MaximumNArgs(1),
		Long: `Shows what is used, reserved and left of your budgets and of the competitions' quotas.
A job reserves its GPUs for as long as it may run; when it is over, what it did not
use is given back. All is given back if it never started, or if the service failed.
A job that was cancelled after it had started costs what it ran for, and its place
among the day's submissions. GPU time counts from the end of its job on, for as long
as the budget says; the day of a competition is that of UTC.`,
		Example: "  gradegate quota show\n  gradegate quota show iris",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			add(q, "user", user)
			add(q, "competition", first(args, ""))
			out, err := client.Quota(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(result{json: out, name: out.UserID, table: func(w io.Writer) { quotaTable(w, out) }})
		},
	}
	c.Flags().StringVar(&user, "user", "", "somebody else's (for administrators and auditors)")
	return c
}

func add(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func quotaTable(w io.Writer, q api.Quota) {
	fmt.Fprintln(w, "WHAT\tWHOSE\tUSED\tRESERVED\tLIMIT\tLEFT\tALL FREE AGAIN")
	for _, b := range q.Budgets {
		whose := policyWord(b.Level)
		switch b.Level {
		case "user":
			whose = "user"
		case "token":
			whose = "token " + b.Token
		}
		if g := b.GPUHours; g != nil {
			per := "in " + b.Per
			if b.Per == "1d" {
				per = "a day"
			}
			fmt.Fprintf(w, "GPU hours %s\t%s\t%s\t%s\t%s\t%s\t%s\n", per, clean(whose), hours(g.Used), hours(g.Reserved), hours(g.Limit),
				strconv.FormatFloat(math.Floor(g.Left*100+1e-6)/100, 'f', -1, 64), orDash(when(b.FreeAt)))
		}
		if n := b.Concurrent; n != nil {
			fmt.Fprintf(w, "jobs at once\t%s\t%d\t-\t%d\t%d\t-\n", clean(whose), n.Used, n.Limit, max(0, n.Limit-n.Used))
		}
	}
	for _, c := range q.Competitions {
		name := clean(c.Competition)
		fmt.Fprintf(w, "submissions a day\t%s\t%d\t-\t%s\t%s\t%s\n", name, c.Submissions.Used, limit(c.Submissions.Limit), left(c.Submissions), when(&c.ResetsAt))
		if c.Concurrent.Limit > 0 {
			fmt.Fprintf(w, "jobs at once\t%s\t%d\t-\t%d\t%s\t-\n", name, c.Concurrent.Used, c.Concurrent.Limit, left(c.Concurrent))
		}
	}
	if len(q.Grants) > 0 {
		fmt.Fprintln(w, "\nGRANT\tGIVES\tUNTIL\tREASON")
	}
	for _, g := range q.Grants {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", g.ID, clean(gives(g)), when(&g.Until), clean(g.Reason))
	}
}

// left is what of a count may still be taken.
func left(u api.Used) string {
	if u.Limit == 0 {
		return "-"
	}
	return strconv.Itoa(max(0, u.Limit-u.Used))
}

// hours are GPU hours, rounded up: what was used never looks like nothing.
func hours(h float64) string {
	return strconv.FormatFloat(math.Ceil(max(0, h*100-1e-6))/100, 'f', -1, 64)
}

// gives says what a grant adds.
func gives(g api.Grant) string {
	out := ""
	if g.GPUHours > 0 {
		out = hours(g.GPUHours) + " GPU hours"
	}
	if g.Concurrent > 0 {
		if out != "" {
			out += ", "
		}
		out += count(g.Concurrent, "job") + " at once"
	}
	return out + " more"
}

func (a *app) quotaEntries() *cobra.Command {
	var user, tok, competition, jobID, cursor string
	var limit int
	c := &cobra.Command{
		Use: "entries", Short: "The lines of the quota ledger: what was charged and given back, and why", Args: cobra.NoArgs,
		Long: `Lists what was charged and given back, newest first. Lines are only ever added, and
their sum is what was taken. A job has two: what it reserved when it was handed in,
and the difference to what it came to when it was over.`,
		Example: "  gradegate quota entries\n  gradegate quota entries --token laptop --limit 20 -o json\n  gradegate quota entries --job JOB",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, value := range map[string]string{"user": user, "token_id": tok, "competition": competition, "job": jobID, "cursor": cursor} {
				add(q, name, value)
			}
			page, err := client.QuotaEntries(cmd.Context(), q)
			if err != nil {
				return err
			}
			if page.NextCursor != "" {
				a.hint("There are older ones: --cursor %s", page.NextCursor)
			}
			shown := list(page.Items, func(e api.QuotaEntry) string { return e.ID }, "WHEN\tSUBMISSIONS\tGPU SECONDS\tCOMPETITION\tJOB\tWHY", func(e api.QuotaEntry) []string {
				return []string{when(&e.At), fmt.Sprintf("%+d", e.Submissions), fmt.Sprintf("%+d", e.GPUSeconds), e.Competition, e.Job, e.Why}
			})
			shown.json = page
			return a.print(shown)
		},
	}
	f := c.Flags()
	f.StringVar(&user, "user", "", "somebody else's (for administrators and auditors)")
	f.StringVar(&tok, "token", "", "what was charged to a token, its successors and all that was made from it")
	f.StringVar(&competition, "competition", "", "of one competition")
	f.StringVar(&jobID, "job", "", "of one job")
	f.IntVar(&limit, "limit", 100, "lines to show")
	f.StringVar(&cursor, "cursor", "", "go on where the page before ended")
	return c
}

func (a *app) quotaGrant() *cobra.Command {
	var r api.GrantQuota
	c := &cobra.Command{
		Use: "grant USER", Short: "Raise what bounds a user for a while (for administrators)", Args: cobra.ExactArgs(1),
		Long: `Raises what a user may take by so much, until the grant ends: their own budget and what
policies allow them, in each stretch of time that these are for. It makes no budget
where there is none, and does not raise that of a token. The clock ends it; the audit
trail keeps who granted what, and why.`,
		Example: "  gradegate quota grant ann --gpu-hours 20 --for 7d --reason deadline\n  gradegate quota grant ann --concurrent 2 --for 12h --reason demo",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := userName(args[0]); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			g, err := client.GrantQuota(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return a.printGrant(cmd.Context(), client, args[0], g)
		},
	}
	f := c.Flags()
	f.Float64Var(&r.GPUHours, "gpu-hours", 0, "GPU hours more")
	f.IntVar(&r.Concurrent, "concurrent", 0, "jobs at once more")
	f.StringVar(&r.For, "for", "", "how long, such as 7d")
	f.StringVar(&r.Reason, "reason", "", "why, for the record")
	return c
}

func (a *app) quotaEnd() *cobra.Command {
	return &cobra.Command{
		Use: "end USER GRANT", Short: "End a grant before its time (for administrators)", Args: cobra.ExactArgs(2),
		Example: "  gradegate quota end ann GRANT",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := userName(args[0]); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			g, err := client.EndGrant(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return a.printGrant(cmd.Context(), client, args[0], g)
		},
	}
}

// printGrant shows a grant, and says so if there is nothing that it raises.
func (a *app) printGrant(ctx context.Context, client *api.Client, user string, g api.Grant) error {
	if q, err := client.Quota(ctx, url.Values{"user": {user}}); err == nil && len(q.Budgets) == 0 && g.Until.After(time.Now()) {
		a.hint("The grant is made, and counts as soon as there is a budget that it raises: nothing bounds %s yet. A budget: gradegate user set %s --gpu-hours 8", user, user)
	}
	return a.print(result{json: g, name: g.ID, table: func(w io.Writer) {
		facts(w, "grant", g.ID, "for", user, "gives", gives(g), "until", when(&g.Until), "reason", g.Reason, "by", g.By)
	}})
}

// budgetFlags are the flags that say a budget.
type budgetFlags api.Budget

func (b *budgetFlags) add(f *pflag.FlagSet, whose string) {
	f.Float64Var(&b.GPUHours, "gpu-hours", 0, "GPU hours that "+whose+" may use at most, in any stretch of --per")
	f.StringVar(&b.Per, "per", "", "the stretch of time for --gpu-hours, in days: 1d (default) to 31d")
	f.IntVar(&b.Concurrent, "concurrent", 0, "jobs of "+whose+" that may be under way at once")
}

// over is the old budget with what flags were given; nil if none was.
func (b *budgetFlags) over(old *api.Budget, f *pflag.FlagSet) *api.Budget {
	if !f.Changed("gpu-hours") && !f.Changed("per") && !f.Changed("concurrent") {
		return nil
	}
	var out api.Budget
	if old != nil {
		out = *old
	}
	if f.Changed("gpu-hours") {
		if out.GPUHours = b.GPUHours; out.GPUHours == 0 {
			out.Per = ""
		}
	}
	if f.Changed("per") {
		out.Per = b.Per
	}
	if f.Changed("concurrent") {
		out.Concurrent = b.Concurrent
	}
	return &out
}

// budgetLine is a budget in the words of its flags.
func budgetLine(b *api.Budget) string {
	if b == nil {
		return ""
	}
	out := ""
	if b.GPUHours > 0 {
		out = "gpu-hours " + hours(b.GPUHours) + " per " + b.Per
	}
	if b.Concurrent > 0 {
		if out != "" {
			out += ", "
		}
		out += "concurrent " + strconv.Itoa(b.Concurrent)
	}
	return out
}
