package cli

import (
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) tokenAdvise() *cobra.Command {
	var all, everybody bool
	var since string
	c := &cobra.Command{
		Use: "advise [NAME|ID|self]", Short: "Which rights of a token were not used, and the command that takes them away", Args: cobra.MaximumNArgs(1),
		Long: `Tells which of a token's rights were used in the last 30 days: scopes, competitions and
networks, by itself, its predecessors and what was made from it. What was not used can
be taken away: the command for it is named, with how sure the advice is. Everything that
was used, or may have been, is kept, so that no use of that time would have been
refused. A token that was not used at all had better be revoked. Of one that is known
for less than a week nothing is advised.`,
		Example: `  gradegate token advise laptop
  gradegate token advise --all --since 90d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if !all && !everybody {
				x, err := client.AdviseToken(cmd.Context(), first(args, "self"), since)
				if err != nil {
					return err
				}
				return a.print(result{json: x, name: x.TokenID, table: func(w io.Writer) { adviceFacts(w, x) }})
			}
			found, err := client.AdviseTokens(cmd.Context(), since, everybody)
			if err != nil {
				return err
			}
			return a.print(list(found, func(x api.Advice) string { return x.TokenID }, "NAME\tOWNER\tUSES\tDAYS\tSCOPES USED\tSURE\tADVICE", func(x api.Advice) []string {
				return []string{x.Name, x.User, count(x.Uses, "use"), count(x.Days, "day"), scopesUsed(x), x.Confidence, adviceWord(x)}
			}))
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "all active tokens of yours, those with the most to spare first")
	f.BoolVar(&everybody, "everybody", false, "everybody's (for administrators and auditors)")
	f.StringVar(&since, "since", "30d", "how far to look back: a span such as 90d, or an instant")
	c.MarkFlagsMutuallyExclusive("all", "everybody")
	return c
}

func adviceFacts(w io.Writer, x api.Advice) {
	facts(w, "token", x.TokenID+" "+parenthesis(x.Name), "owner", x.User, "observed since", when(&x.Since), "uses", count(x.Uses, "use")+" in "+count(x.Days, "day"), "last use", when(x.LastUse),
		"scopes used", scopesUsed(x)+": "+orDash(strings.Join(x.UsedScopes, " ")), "not used", strings.Join(x.UnusedScopes, " "),
		"competitions used", orDash(strings.Join(x.UsedCompetitions, " "))+" (it is for "+strings.ReplaceAll(strings.Join(x.Competitions, " "), "*", "all")+")",
		"networks used", orDash(strings.Join(x.UsedNetworks, " ")))
	if x.EnoughAt == nil {
		for _, u := range x.Untold {
			facts(w, "no advice", u)
		}
	}
	facts(w, "sure", x.Confidence, "that is", x.Detail, "advice", adviceWord(x))
}

func scopesUsed(x api.Advice) string {
	return strconv.Itoa(len(x.UsedScopes)) + " of " + strconv.Itoa(len(x.Scopes))
}

func adviceWord(x api.Advice) string {
	switch {
	case x.EnoughAt != nil:
		return "none yet; ask again from " + when(x.EnoughAt) + " on"
	case x.Command == "":
		return "keep it as it is"
	}
	return x.Command
}
