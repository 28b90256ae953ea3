package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
)

func (a *app) consentCmd() *cobra.Command {
	c := &cobra.Command{Use: "consent", Short: "Who may hand in jobs that are yours", Long: `With your consent somebody else, or a service, hands in jobs that are yours: they count
against your quota, you see and cancel them, and it is on record who handed them in. It
ends by itself, when you withdraw it, and when one of the two is off-boarded.`}
	c.AddCommand(a.consentGive(), a.consentList(), a.consentWithdraw())
	return c
}

func (a *app) consentGive() *cobra.Command {
	var r api.GiveConsent
	c := &cobra.Command{
		Use: "give NAME|ID", Short: "Let somebody hand in jobs that are yours", Args: cobra.ExactArgs(1),
		Long: `Lets a person or a service hand in jobs that are yours, for a while. It takes the place
of an earlier consent to the same one.`,
		Example: "  gradegate consent give bob --for 30d\n  gradegate consent give bob --for 7d --competition iris",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := userName(args[0]); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			r.To = args[0]
			given, err := client.GiveConsent(cmd.Context(), r)
			if err != nil {
				return err
			}
			a.hint("They hand in for you with: gradegate submit COMPETITION PATH --on-behalf-of %s\nYou end it at once with: gradegate consent withdraw %s", clean(given.From.Name), clean(given.To.Name))
			return a.printConsent(given)
		},
	}
	c.Flags().StringVar(&r.ExpiresIn, "for", "", "how long, such as 7d: 30d if nothing is said, 90d at most")
	c.Flags().StringArrayVar(&r.Competitions, "competition", nil, "only for a competition, or project:NAME (again for more)")
	return c
}

func (a *app) printConsent(c api.Consent) error {
	return a.print(result{json: c, name: c.ID, table: func(w io.Writer) {
		facts(w, "consent", c.ID, "jobs of", c.From.Name, "handed in by", partyWord(c.To), "competitions", strings.Join(c.Competitions, " "),
			"state", c.State, "given", when(&c.CreatedAt), "until", when(&c.ExpiresAt), "withdrawn", when(c.WithdrawnAt))
	}})
}

func partyWord(p api.Party) string {
	if p.Kind == "service" {
		return p.Name + " (service)"
	}
	return p.Name
}

func (a *app) consentList() *cobra.Command {
	var user string
	var ended bool
	c := &cobra.Command{
		Use: "list", Short: "The consents that you gave and were given, newest first", Args: cobra.NoArgs,
		Long:    "The consents that you gave and were given, newest first. The table leaves out those that\nare over, unless --all shows them too; -o json and -o name always have all of them.",
		Example: "  gradegate consent list\n  gradegate consent list --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Consents(cmd.Context(), user)
			if err != nil {
				return err
			}
			shown := all
			if a.output == "table" && !ended {
				shown = nil
				for _, c := range all {
					if c.State == "active" {
						shown = append(shown, c)
					}
				}
			}
			if n := len(all) - len(shown); n > 0 {
				a.hint("%s not shown: --all", count(n, "ended one is", "ended ones are"))
			}
			return a.print(list(shown, func(c api.Consent) string { return c.ID }, "JOBS OF\tHANDED IN BY\tCOMPETITIONS\tSTATE\tUNTIL\tID", func(c api.Consent) []string {
				return []string{c.From.Name, partyWord(c.To), strings.Join(c.Competitions, " "), c.State, when(&c.ExpiresAt), c.ID}
			}))
		},
	}
	c.Flags().StringVar(&user, "user", "", "somebody else's (administrators and auditors), or those of a service that you answer for")
	c.Flags().BoolVar(&ended, "all", false, "those that are over, too")
	return c
}

func (a *app) consentWithdraw() *cobra.Command {
	return &cobra.Command{
		Use: "withdraw NAME|ID", Short: "End a consent at once", Args: cobra.ExactArgs(1),
		Long: `Ends a consent of yours at once: nothing is handed in by it any more. Jobs that were
handed in before go on; they are yours, and you cancel them as any other.`,
		Example: "  gradegate consent withdraw bob",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			id := args[0]
			if !strings.HasPrefix(id, "cns_") {
				if id, err = a.consentTo(cmd.Context(), client, id); err != nil {
					return err
				}
			}
			c, err := client.WithdrawConsent(cmd.Context(), id)
			if err != nil {
				return err
			}
			return a.printConsent(c)
		},
	}
}

// consentTo finds the caller's own consent to somebody, the one that holds before
// one that is over.
func (a *app) consentTo(ctx context.Context, client *api.Client, name string) (id string, err error) {
	me, err := client.Whoami(ctx)
	if err != nil {
		return "", err
	}
	all, err := client.Consents(ctx, "")
	if err != nil {
		return "", err
	}
	for _, c := range all {
		if me.User == nil || c.From.ID != me.User.ID || !strings.EqualFold(c.To.Name, name) && c.To.ID != name {
			continue
		}
		if c.State == "active" {
			return c.ID, nil
		}
		if id == "" {
			id = c.ID
		}
	}
	if id == "" {
		err = fault.New(fault.NotFound, "consent_not_found", "You gave no consent to %s.", name).WithFix("gradegate consent list")
	}
	return id, err
}
