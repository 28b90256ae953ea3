package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) explainCmd() *cobra.Command {
	return &cobra.Command{
		Use: "explain REQUEST", Short: "Why a request was allowed or refused", Args: cobra.ExactArgs(1),
		Long: `Tells why a request was allowed or refused: which token, each check in order, the one
that failed, and a way on. REQUEST is the id that every error ends with (request:
req_...). The token that the request was made with may ask, also once it has ended; so
may its owner, signed in, and who reads the audit trail.`,
		Example: "  gradegate explain REQUEST\n  gradegate explain REQUEST -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			x, err := client.Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(result{json: x, name: x.RequestID, table: func(w io.Writer) { explanation(w, x) }})
		},
	}
}

// marks are the results of a check in a column.
var marks = map[string]string{"passed": "ok", "failed": "FAILED", "not_reached": "-"}

func explanation(w io.Writer, x api.Explanation) {
	fmt.Fprintln(w, clean(x.Summary))
	facts(w, "request", x.RequestID+", "+x.Route, "at", when(&x.At), "decision", decisionWord(x),
		"token", strings.TrimSpace(x.TokenID+" "+parenthesis(x.TokenName)), "kind", kindWord(x.Kind), "user", x.Username, "job", x.Job, "mode", x.Mode,
		"address", addressWord(x), "agent", x.Agent)
	for _, c := range x.Checks {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", clean(c.Name), marks[c.Result], clean(c.Detail))
	}
	facts(w, "fix", x.Fix)
}

func decisionWord(x api.Explanation) string {
	if x.Decision == "allow" {
		return "allowed"
	}
	if x.Status == 0 {
		return "refused: " + x.Reason
	}
	return fmt.Sprintf("refused: %s (%d)", x.Reason, x.Status)
}

func addressWord(x api.Explanation) string {
	switch {
	case x.ProxyHeader != "":
		return x.IP + ", which the proxy " + x.Proxy + " named in " + x.ProxyHeader
	case x.IgnoredHeader != "":
		return x.IP + "; its " + x.IgnoredHeader + " was ignored"
	}
	return x.IP
}

func parenthesis(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}
