package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) policyTest() *cobra.Command {
	var given api.Rules
	r := api.DryRunPolicy{}
	var notices bool
	c := &cobra.Command{
		Use: "test platform|GROUP", Short: "What a change of policy would have refused in the last weeks", Args: cobra.ExactArgs(1),
		Long: `Plays the uses that were allowed in the last 30 days again, as if the policy had had the
given demands since then (what no flag names is as it is), and tells what it would have
refused: by which demand, of whom, with which tokens, which jobs, from where. It changes
nothing. The same code judges as in a live request. People and their groups are those
of today; what cannot be judged is counted, and why. --notices drafts what to tell each
person before you set the policy.`,
		Example: `  gradegate policy test platform --cidr 10.0.0.0/8 --cidr 127.0.0.0/8
  gradegate policy test interns --idle 7d --since 14d --notices`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if r.Rules, err = proposed(cmd, client, args[0], &given); err != nil {
				return err
			}
			a.hint("Reading the trail; that takes half a minute at most.")
			out, err := client.DryRunPolicy(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			a.hintDryRun(out)
			return a.print(result{json: out, name: out.Policy, table: func(w io.Writer) { dryRun(w, out, notices) }})
		},
	}
	rulesFlags(c.Flags(), &given)
	f := c.Flags()
	f.StringVar(&r.Since, "since", "30d", "how far to look back: a span such as 14d, or an instant")
	f.IntVar(&r.Top, "top", 20, "how many tokens, addresses and notices to list")
	f.BoolVar(&notices, "notices", false, "draft what to tell each person")
	return c
}

func (a *app) hintDryRun(out api.DryRun) {
	if !out.Complete {
		a.warn("the time was over before everything was read: this goes up to %s. Look back less far: --since 7d", when(&out.Until))
	}
	if out.Begins != nil {
		a.hint("The trail begins on %s only.", when(out.Begins))
	}
	if len(out.NotClaimed) > 0 {
		a.hint("Of these demands recorded uses tell nothing: %s. They bear on what is made, reported or spent.", strings.Join(out.NotClaimed, ", "))
	}
}

// unjudged says why a decision cannot be judged.
var unjudged = map[string]string{
	"expired_read": "readings within a day after the end of a token", "token_gone": "tokens that are not known any more",
	"history": "tokens of which it is not known when they were used before",
}

func dryRun(w io.Writer, out api.DryRun, notices bool) {
	facts(w, "policy", out.Policy, "demands", rulesLine(out.Rules), "from", when(&out.Since), "to", when(&out.Until),
		"allowed", count(out.Decisions, "use")+", of which "+strconv.Itoa(out.Judged)+" could be judged")
	for _, why := range slices.Sorted(maps.Keys(out.NotJudged)) {
		fmt.Fprintf(w, "not judged\t%d: %s\n", out.NotJudged[why], clean(cmp.Or(unjudged[why], why)))
	}
	fmt.Fprintf(w, "would be refused\t%s of %s of %s\n", count(out.Refused, "use"), count(out.TokensTotal, "token"), count(out.UsersTotal, "person", "people"))
	if out.Marked > 0 {
		fmt.Fprintf(w, "would be marked\t%s (networks that only observe)\n", count(out.Marked, "use"))
	}
	for _, r := range out.ByRule {
		fmt.Fprintf(w, "  by %s\t%s, %s, %s of %s, %s; first %s, last %s\n", clean(strings.ReplaceAll(r.Rule, "_", "-")), count(r.Uses, "use"), count(r.Submits, "submission"),
			count(r.Tokens, "token"), count(r.Users, "person", "people"), policyWord(r.Policy), when(&r.First), when(&r.Last))
	}
	for _, t := range out.Tokens {
		fmt.Fprintf(w, "  %s of %s\t%s, last %s, %s, from %s\t%s\n", clean(t.Name), clean(t.User), count(t.Uses, "use"), when(&t.Last),
			clean(strings.ReplaceAll(strings.Join(t.Rules, " "), "_", "-")), clean(orDash(strings.Join(t.Addresses, " "))), t.TokenID)
		if len(t.Jobs) > 0 {
			fmt.Fprintf(w, "    jobs\t%s\n", clean(strings.Join(t.Jobs, " ")))
		}
	}
	if more := out.TokensTotal - len(out.Tokens); more > 0 {
		fmt.Fprintf(w, "  and\t%d more (--top)\n", more)
	}
	for _, x := range out.Addresses {
		fmt.Fprintf(w, "  from %s\t%s\n", clean(orDash(x.IP)), count(x.Uses, "use"))
	}
	if notices {
		for _, n := range out.Notices {
			fmt.Fprintf(w, "\nTo: %s <%s>\n", clean(n.User), clean(cmp.Or(n.Email, "no address is known")))
			for line := range strings.Lines(n.Text) {
				fmt.Fprintln(w, clean(strings.TrimRight(line, "\n")))
			}
		}
	}
}
