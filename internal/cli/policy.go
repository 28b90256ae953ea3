package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gradegate/api"
)

func (a *app) policyCmd() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "What is demanded of tokens (for administrators; auditors look and test)"}
	c.AddCommand(a.policyList(), a.policyShow(), a.policyTest(), a.policySet())
	return c
}

func (a *app) policyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "All policies, and the defaults", Args: cobra.NoArgs, Example: "  gradegate policy list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Policies(cmd.Context())
			if err != nil {
				return err
			}
			names := []string{}
			for _, p := range all.Items {
				names = append(names, p.Name)
			}
			return a.print(result{json: all, name: strings.Join(names, "\n"), table: func(w io.Writer) {
				fmt.Fprintln(w, "POLICY\tDEMANDS\tFROM")
				fmt.Fprintf(w, "default\t%s\t-\n", rulesLine(all.Defaults))
				for _, p := range all.Items {
					fmt.Fprintf(w, "%s\t%s\t%s\n", clean(p.Name), rulesLine(p.Rules), orDash(when(p.Since)))
					if p.Coming != nil {
						fmt.Fprintf(w, "  then\t%s\t%s\n", rulesLine(*p.Coming), when(p.ComingAt))
					}
				}
			}})
		},
	}
}

func (a *app) policyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show platform|GROUP", Short: "The policy of the platform or of a group", Args: cobra.ExactArgs(1), Example: "  gradegate policy show platform",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			p, err := client.PolicyByName(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(result{json: p, name: p.Name, table: func(w io.Writer) { policyFacts(w, p) }})
		},
	}
}

// spans are the flags of a policy that take a span, and where it goes.
var spans = []struct {
	flag, help string
	of         func(*api.Rules) *string
}{
	{"lifetime", "lifetime of a new token unless another is asked for", func(r *api.Rules) *string { return &r.Lifetime }},
	{"max-lifetime", "the most that a token and its successors live", func(r *api.Rules) *string { return &r.MaxLifetime }},
	{"idle", "ends a token that was not used for so long", func(r *api.Rules) *string { return &r.Idle }},
	{"service-idle", "the same for service tokens", func(r *api.Rules) *string { return &r.ServiceIdle }},
	{"unused", "ends a token that was never used for so long", func(r *api.Rules) *string { return &r.Unused }},
	{"rotate-after", "when rotation is due", func(r *api.Rules) *string { return &r.RotateAfter }},
}

func (a *app) policySet() *cobra.Command {
	var given api.Rules
	var from string
	var preview, force bool
	var spend budgetFlags
	c := &cobra.Command{
		Use: "set platform|GROUP", Short: "Change a policy, or preview whom that affects", Args: cobra.ExactArgs(1),
		Long: `Changes what the platform or a group demands of tokens; what no flag names stays as it
is, and "none" takes a demand away. Of all policies that bear on a person the strictest
wins. A change that ends tokens earlier comes into force after 14 days, unless --from
says when; --preview changes nothing and lists those tokens, and policy test says what the
change would have refused lately. People are put into groups with: gradegate user set
NAME --group GROUP`,
		Example: `  gradegate policy set platform --max-lifetime 180d --preview
  gradegate policy set interns --idle 7d --max-lifetime 90d
  gradegate policy set interns --gpu-hours 20 --per 7d --concurrent 2
  gradegate policy set interns --sessions-only --from 2027-01-31T18:00:00Z`,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := instant(from, cmd)
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			rules, err := proposed(cmd, client, args[0], &given)
			if err != nil {
				return err
			}
			if b := spend.over(rules.Budget, cmd.Flags()); b != nil {
				rules.Budget = b
			}
			out, err := client.SetPolicy(cmd.Context(), args[0], api.SetPolicy{Rules: rules, EffectiveAt: at, Preview: preview, Force: force})
			if err != nil {
				return err
			}
			return a.printPolicySet(out)
		},
	}
	rulesFlags(c.Flags(), &given)
	f := c.Flags()
	spend.add(f, "each person")
	f.StringVar(&from, "from", "", "when it comes into force, such as 2027-01-31T18:00:00Z")
	f.BoolVar(&force, "force", false, "accept networks that lock you out yourself")
	f.BoolVar(&preview, "preview", false, "change nothing, and list the tokens that would end earlier")
	return c
}

// rulesFlags are the flags that name demands.
func rulesFlags(f *pflag.FlagSet, given *api.Rules) {
	for _, s := range spans {
		f.StringVar(s.of(given), s.flag, "", s.help+`, such as 90d; or none`)
	}
	f.StringVar(&given.Rotation, "rotation", "", "what happens when rotation is due: warn or enforce")
	f.BoolVar(&given.SessionsOnly, "sessions-only", false, "people have no tokens but sessions (=false: no more)")
	f.IntVar(&given.MaxPerUser, "max-per-user", 0, "personal tokens that one person may have; 0: no demand")
	f.StringArrayVar(&given.AllowedCIDRs, "cidr", nil, "network that tokens may be used from (again for more); none: from everywhere")
	f.BoolVar(&given.Observe, "observe", false, "mark a use from elsewhere and do not refuse it (=false: refuse it)")
	f.StringVar(&given.Leaks, "leaks", "", "what becomes of a reported token: revoke or quarantine (the platform's only)")
}

// proposed are the rules of a level with what flags change of them.
func proposed(cmd *cobra.Command, client *api.Client, level string, given *api.Rules) (api.Rules, error) {
	now, err := client.PolicyByName(cmd.Context(), level)
	if err != nil {
		return api.Rules{}, err
	}
	rules := now.Rules
	if now.Coming != nil {
		rules = *now.Coming
	}
	if now.ETag == "" && now.Name == "platform" {
		rules = api.Rules{} // the defaults stay defaults
	}
	change(&rules, given, cmd.Flags())
	return rules, nil
}

// change takes over what flags were given.
func change(r, given *api.Rules, f *pflag.FlagSet) {
	for _, s := range spans {
		if f.Changed(s.flag) {
			if *s.of(r) = *s.of(given); *s.of(r) == "none" {
				*s.of(r) = ""
			}
		}
	}
	for flag, take := range map[string]func(){
		"rotation": func() { r.Rotation = given.Rotation }, "sessions-only": func() { r.SessionsOnly = given.SessionsOnly },
		"max-per-user": func() { r.MaxPerUser = given.MaxPerUser }, "cidr": func() { r.AllowedCIDRs = given.AllowedCIDRs },
		"observe": func() { r.Observe = given.Observe }, "leaks": func() { r.Leaks = given.Leaks },
	} {
		if f.Changed(flag) {
			take()
		}
	}
	if len(r.AllowedCIDRs) == 1 && r.AllowedCIDRs[0] == "none" {
		r.AllowedCIDRs = nil
	}
	if r.RotateAfter == "" && !f.Changed("rotation") {
		r.Rotation = "" // nothing is due any more
	}
}

func (a *app) printPolicySet(out api.PolicySet) error {
	for _, x := range out.Warnings {
		a.hint("warning: %s", x.Detail)
	}
	switch {
	case out.Preview:
		a.hint("Nothing was changed.")
	case out.Policy.ComingAt != nil:
		a.hint("It comes into force on %s. To have it at once: --from %s", when(out.Policy.ComingAt), time.Now().UTC().Format(time.RFC3339))
	}
	return a.print(result{json: out, name: out.Policy.Name, table: func(w io.Writer) {
		policyFacts(w, out.Policy)
		fmt.Fprintf(w, "ends earlier\t%s\n", count(out.Total, "token"))
		for _, t := range out.Affected {
			fmt.Fprintf(w, "  %s of %s\t%s, was %s\t%s\n", clean(t.Name), clean(t.User), when(&t.Until), orDash(when(t.Ends)), t.TokenID)
		}
		if more := out.Total - len(out.Affected); more > 0 {
			fmt.Fprintf(w, "  and\t%d more\n", more)
		}
	}})
}

func policyFacts(w io.Writer, p api.Policy) {
	facts(w, "policy", p.Name, "demands", rulesLine(p.Rules), "in force since", when(p.Since))
	if p.Coming != nil {
		facts(w, "from "+when(p.ComingAt), rulesLine(*p.Coming))
	}
}

// rulesLine is what a policy demands, in the words of the flags.
func rulesLine(r api.Rules) string {
	var parts []string
	add := func(flag, value string) {
		if value != "" {
			parts = append(parts, flag+" "+value)
		}
	}
	for _, s := range spans {
		add(s.flag, *s.of(&r))
	}
	if r.Rotation == "enforce" {
		add("rotation", "enforce")
	}
	if r.SessionsOnly {
		parts = append(parts, "sessions-only")
	}
	if r.MaxPerUser > 0 {
		add("max-per-user", strconv.Itoa(r.MaxPerUser))
	}
	add("budget", budgetLine(r.Budget))
	for _, n := range r.AllowedCIDRs {
		add("cidr", n)
	}
	if r.Observe {
		parts = append(parts, "observe")
	}
	add("leaks", r.Leaks)
	if len(parts) == 0 {
		return "nothing"
	}
	return clean(strings.Join(parts, ", "))
}
