package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) userCmd() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "People and services (for administrators)"}
	var role, email, jobs string
	act := func(verb, short, example string, do func(context.Context, *api.Client, string) (api.User, error)) *cobra.Command {
		return &cobra.Command{Use: verb + " NAME|ID", Short: short, Example: "  " + example, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			u, err := do(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			return a.printUser(u)
		}}
	}
	create := act("create", "Make a user who holds no credential yet", "gradegate user create ann", func(ctx context.Context, c *api.Client, name string) (api.User, error) {
		return c.CreateUser(ctx, api.CreateUser{Name: name, Role: role, Email: email})
	})
	create.Flags().StringVar(&role, "role", "", "user (default), auditor or admin")
	create.Flags().StringVar(&email, "email", "", "where to reach them")
	offboard := act("offboard", "End everything of a leaver, at once and for ever", "gradegate user offboard ann --jobs cancel", func(ctx context.Context, c *api.Client, name string) (api.User, error) {
		return c.OffboardUser(ctx, name, api.Offboard{Jobs: jobs})
	})
	offboard.Flags().StringVar(&jobs, "jobs", "", "their jobs: cancel-queued (default) or cancel for running ones too")
	c.AddCommand(a.userList(), a.userInvite(), create, offboard,
		act("show", "One user", "gradegate user show ann", func(ctx context.Context, c *api.Client, n string) (api.User, error) { return c.UserByID(ctx, n) }),
		act("suspend", "Stop everything of a user until resumed", "gradegate user suspend ann", func(ctx context.Context, c *api.Client, n string) (api.User, error) { return c.SuspendUser(ctx, n) }),
		act("resume", "Let a suspended user go on", "gradegate user resume ann", func(ctx context.Context, c *api.Client, n string) (api.User, error) { return c.ResumeUser(ctx, n) }),
		a.userTokens())
	return c
}

func (a *app) printUser(u api.User) error {
	return a.print(result{json: u, name: u.ID, table: func(w io.Writer) {
		facts(w, "name", u.Name, "id", u.ID, "role", u.Role, "status", u.Status, "email", u.Email, "enrolled", when(u.EnrolledAt), "made", when(&u.CreatedAt))
	}})
}

func (a *app) userList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "All users", Args: cobra.NoArgs, Example: "  gradegate user list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Users(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list(all, func(u api.User) string { return u.ID }, "NAME\tROLE\tSTATUS\tENROLLED\tID", func(u api.User) []string {
				return []string{u.Name, u.Role, u.Status, orDash(when(u.EnrolledAt)), u.ID}
			}))
		},
	}
}

func (a *app) userTokens() *cobra.Command {
	return &cobra.Command{
		Use: "tokens NAME|ID", Short: "All tokens of a user", Args: cobra.ExactArgs(1), Example: "  gradegate user tokens ann",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.UserTokens(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(tokenTable(all))
		},
	}
}

func (a *app) userInvite() *cobra.Command {
	var r api.Invite
	c := &cobra.Command{
		Use: "invite NAME", Short: "Make a one-time code with which somebody signs in", Args: cobra.ExactArgs(1),
		Long: `Makes a one-time code (24 h) for a person, who is created if there is nobody of
that name. Give it to that person alone: whoever redeems it is that person.
For somebody who held credentials before, this is a re-enrolment: everything
that was issued to them before is dead.`,
		Example: `  gradegate user invite ann --data gradegate-data -o secret
  gradegate user invite joe --role auditor`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			made, err := client.InviteUser(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			if made.Reenrolled {
				a.hint("%s held credentials before: they are dead now.", made.User.Name)
			}
			// At the server's own socket nobody knows what others call it.
			u := "URL"
			if known, err := a.server(); err == nil && a.data == "" {
				u = known
			}
			return a.print(result{json: made, name: made.User.ID, secret: made.Code, table: func(w io.Writer) {
				fmt.Fprintf(w, "code\t%s\n", made.Code)
				facts(w, "user", made.User.Name+" ("+made.User.Role+")", "works until", when(&made.ExpiresAt), "they type", "gradegate login --url "+u+" --invite CODE")
			}})
		},
	}
	c.Flags().StringVar(&r.Role, "role", "", "role of a new user: user (default), auditor or admin")
	c.Flags().StringVar(&r.Email, "email", "", "e-mail address of a new user")
	return c
}
