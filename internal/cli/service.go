package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) serviceCmd() *cobra.Command {
	c := &cobra.Command{Use: "service", Short: "Services: programs that two people or a group answer for", Long: `A service is what a program signs in as. Two people at least, or the members of a group,
answer for it: they make its tokens and see its jobs, and nobody else does. While fewer than
two of them are active there is a warning; a week after the last one went its tokens do no
more than read and cancel its own jobs, until somebody answers for it again.

An administrator makes one, gives it owners, and stops it: gradegate user suspend NAME`}
	c.AddCommand(a.serviceCreate(), a.serviceList(), a.serviceShow(), a.serviceOwners())
	return c
}

func (a *app) serviceCreate() *cobra.Command {
	var r api.CreateService
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a service (for administrators)", Args: cobra.ExactArgs(1),
		Example: "  gradegate service create ci --owner ann --owner bob\n  gradegate service create nightly --group vision",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := userName(args[0]); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			r.Name = args[0]
			v, err := client.CreateService(cmd.Context(), r)
			if err != nil {
				return err
			}
			a.hint("It holds no token yet. One of its owners makes one: gradegate token create --service %s --name NAME", clean(v.Name))
			return a.printService(v)
		},
	}
	c.Flags().StringArrayVar(&r.Owners, "owner", nil, "somebody who answers for it (again for more: two at least)")
	c.Flags().StringVar(&r.Group, "group", "", "or a group, all of whose members do")
	return c
}

func (a *app) serviceList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The services that you answer for; all, for administrators", Args: cobra.NoArgs, Example: "  gradegate service list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Services(cmd.Context())
			if err != nil {
				return err
			}
			for _, v := range all {
				a.warnOwners(v)
			}
			return a.print(list(all, func(v api.Service) string { return v.ID }, "NAME\tSTATUS\tOWNERS\tACTIVE\tQUARANTINED FROM\tID", func(v api.Service) []string {
				return []string{v.Name, statusWord(v.Status), orDash(owners(v)), fmt.Sprint(v.ActiveOwners), orDash(when(v.QuarantineAt)), v.ID}
			}))
		},
	}
}

// warnOwners tells of a service that too few people answer for. Programs find it
// in the object.
func (a *app) warnOwners(v api.Service) {
	if v.Warning != "" && !a.wantsJSON() {
		a.warn("service %s: %s", clean(v.Name), clean(v.Warning))
	}
}

// owners are those who answer for a service, in one line.
func owners(v api.Service) string {
	var names []string
	for _, o := range v.Owners {
		name := o.Name
		if !o.Active {
			name += " (not active)"
		}
		names = append(names, name)
	}
	text := strings.Join(names, ", ")
	if v.Group != "" {
		text = "group " + v.Group + ": " + orDash(text)
	}
	return text
}

func (a *app) printService(v api.Service) error {
	a.warnOwners(v)
	return a.print(result{json: v, name: v.ID, table: func(w io.Writer) {
		facts(w, "service", v.Name, "id", v.ID, "status", statusWord(v.Status), "owners", owners(v), "active owners", fmt.Sprint(v.ActiveOwners),
			"without owners since", when(v.OwnerlessSince), "quarantined from", when(v.QuarantineAt), "created", when(&v.CreatedAt))
	}})
}

func (a *app) serviceShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME|ID", Short: "A service, and who answers for it", Args: cobra.ExactArgs(1), Example: "  gradegate service show ci",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			v, err := client.ServiceByID(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printService(v)
		},
	}
}

func (a *app) serviceOwners() *cobra.Command {
	var r api.UpdateService
	c := &cobra.Command{
		Use: "owners NAME|ID", Short: "Change who answers for a service", Args: cobra.ExactArgs(1),
		Long: `Changes who answers for a service: its owners do that, and administrators. Two active
people are left at least, or a group with two active members. An administrator may leave it
with fewer (--force): at none its tokens are quarantined after a week.`,
		Example: "  gradegate service owners ci --add carol --remove bob\n  gradegate service owners ci --group vision",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(r.AddOwners)+len(r.RemoveOwners) == 0 && r.Group == "" {
				return misuse(cmd, "Say who: --add NAME, --remove NAME or --group GROUP.")
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			v, err := client.UpdateService(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			return a.printService(v)
		},
	}
	c.Flags().StringArrayVar(&r.AddOwners, "add", nil, "somebody who answers for it from now on (again for more)")
	c.Flags().StringArrayVar(&r.RemoveOwners, "remove", nil, "somebody who does not any more (again for more)")
	c.Flags().StringVar(&r.Group, "group", "", "the group whose members do, in the place of all people")
	c.Flags().BoolVar(&r.Force, "force", false, "leave it with fewer than two active owners (administrators)")
	return c
}
