package cli

import (
	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
)

func (a *app) tokenNarrow() *cobra.Command {
	var r api.NarrowToken
	var spend budgetFlags
	var observe bool
	c := &cobra.Command{
		Use: "narrow [NAME|ID|self]", Short: "Take rights away from a token; it does not get them back", Args: cobra.MaximumNArgs(1),
		Long: `Takes rights away from a token of yours, at once. What is not named stays as it is; what
is taken away is gone: a token with more rights is a new token.`,
		Example: `  gradegate token narrow laptop --scope jobs:read --competition iris
  gradegate token narrow laptop --competition project:flowers
  gradegate token narrow laptop --cidr 10.20.0.0/16 --force
  gradegate token narrow laptop --cidr 10.20.0.0/16 --observe
  gradegate token narrow laptop --gpu-hours 8 --concurrent 2
  gradegate token narrow self --here`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Budget = spend.over(nil, cmd.Flags())
			if r.Budget == nil && !cmd.Flags().Changed("scope") && !cmd.Flags().Changed("competition") && !cmd.Flags().Changed("cidr") && !r.LockToLastAddress && !cmd.Flags().Changed("observe") {
				f := fault.New(fault.Invalid, "usage", "Nothing is said of what to take away.").WithFix("For example --here, or --scope jobs:read")
				return usage{f, cmd.CommandPath()}
			}
			if cmd.Flags().Changed("observe") {
				r.Observe = &observe
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := client.NarrowToken(cmd.Context(), first(args, "self"), r)
			if err != nil {
				return err
			}
			return a.print(tokenResult(t))
		},
	}
	f := c.Flags()
	f.StringArrayVar(&r.Scopes, "scope", nil, "what it may still do (again for more)")
	f.StringArrayVar(&r.Competitions, "competition", nil, "the competition that it is still for, or project:NAME for all that it holds (again for more)")
	f.StringArrayVar(&r.AllowedCIDRs, "cidr", nil, "network it may still be used from (again for more)")
	f.BoolVar(&observe, "observe", false, "mark a use from elsewhere and do not refuse it (=false: refuse it)")
	f.BoolVar(&r.LockToLastAddress, "here", false, "only from the address of its last use (of IPv6: its /64)")
	f.BoolVar(&r.Force, "force", false, "also if you are in none of those networks")
	spend.add(f, "it")
	c.MarkFlagsMutuallyExclusive("cidr", "here")
	return c
}

func (a *app) tokenEnsure() *cobra.Command {
	var r api.EnsureToken
	var spend budgetFlags
	c := &cobra.Command{
		Use: "ensure NAME", Short: "Make a personal token unless you have one of that name", Args: cobra.ExactArgs(1),
		Long: `Makes a personal token unless you have one of that name: for scripts that run again and
again. One that is there stays as it is, and its secret is not shown again (-o secret then
exits with 6); -o json says which it was.`,
		Example: "  gradegate token ensure laptop\n  gradegate token ensure laptop --scope jobs:read -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			r.Budget = spend.over(nil, cmd.Flags())
			out, err := client.EnsureToken(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			if out.Created && a.output != "json" {
				return a.printIssued(cmd.Context(), client, api.Issued{Secret: out.Secret, Token: out.Token}, false, "")
			}
			if !out.Created && a.output == "secret" {
				return fault.New(fault.Conflict, "secret_shown_before", "There is a token of that name already, and its secret was shown when it was made.").
					WithFix("For a successor with a secret of its own: gradegate token rotate %s -o secret", fault.Word(out.Token.Name))
			}
			if !out.Created {
				a.hint("It was there already, and stays as it is.")
			}
			shown := tokenResult(out.Token)
			shown.json = out
			return a.print(shown)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&r.Scopes, "scope", nil, "what it may do (again for more); default: all that the token you use has")
	f.StringArrayVar(&r.Competitions, "competition", nil, "limit it to a competition, or to project:NAME, all that it holds when it is used (again for more)")
	f.StringVar(&r.ExpiresIn, "expires", "", "lifetime after its last use, such as 90d")
	f.StringArrayVar(&r.AllowedCIDRs, "cidr", nil, "network it may be used from (again for more)")
	f.BoolVar(&r.Observe, "observe", false, "mark a use from elsewhere and do not refuse it")
	spend.add(f, "it")
	f.StringVar(&r.Note, "note", "", "free text")
	return c
}
