package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/principal"
)

func (a *app) userCmd() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "People and services (for administrators)"}
	var role, email, jobs string
	var yes bool
	act := func(verb, short, example string, do func(context.Context, *api.Client, string) (api.User, error)) *cobra.Command {
		return &cobra.Command{Use: verb + " NAME|ID", Short: short, Example: "  " + example, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			if err := userName(args[0]); err != nil {
				return err
			}
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
		u, err := c.CreateUser(ctx, api.CreateUser{Name: name, Role: role, Email: email})
		if err == nil {
			a.hint("They hold nothing yet. A code with which they sign in: gradegate user invite %s", clean(u.Name))
		}
		return u, err
	})
	create.Use = "create NAME" // its id is what it gets
	create.Flags().StringVar(&role, "role", "", "user (default), auditor or admin")
	create.Flags().StringVar(&email, "email", "", "where to reach them")
	offboard := act("offboard", "End everything of a leaver, at once and for ever", "gradegate user offboard ann --jobs cancel", func(ctx context.Context, c *api.Client, name string) (api.User, error) {
		// A slip in the name is told before anything is asked. Where nothing can be
		// read, a leaver is cut off all the same.
		if _, err := c.UserByID(ctx, name); statusOf(err) == http.StatusNotFound {
			return api.User{}, err
		}
		running := "running ones go on"
		if jobs == "cancel" {
			running = "so are those that run"
		}
		if err := a.confirm(yes, fmt.Sprintf("This ends every token and session of %s for ever; their queued jobs are cancelled, and %s.", name, running)); err != nil {
			return api.User{}, err
		}
		return c.OffboardUser(ctx, name, api.Offboard{Jobs: jobs})
	})
	offboard.Long = `Ends every token and session of a leaver, at once and for ever. Somebody who comes back
gets an invite and begins with nothing. Services that are left with fewer than two owners are named. At a terminal it is asked first (--yes: without).`
	offboard.Flags().StringVar(&jobs, "jobs", "", "their jobs: cancel-queued (default) or cancel for running ones too")
	offboard.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.AddCommand(a.userList(), a.userInvite(), create, a.userSet(), offboard,
		act("show", "One user", "gradegate user show ann", func(ctx context.Context, c *api.Client, n string) (api.User, error) { return c.UserByID(ctx, n) }),
		act("suspend", "Stop everything of a user until resumed", "gradegate user suspend ann", func(ctx context.Context, c *api.Client, n string) (api.User, error) { return c.SuspendUser(ctx, n) }),
		act("resume", "Let a suspended user go on", "gradegate user resume ann", func(ctx context.Context, c *api.Client, n string) (api.User, error) { return c.ResumeUser(ctx, n) }),
		a.userTokens())
	return c
}

func (a *app) userSet() *cobra.Command {
	var role, email string
	var groups []string
	var spend budgetFlags
	c := &cobra.Command{
		Use: "set NAME|ID", Short: "Change a user's role, address, groups or budget", Args: cobra.ExactArgs(1),
		Long: `Changes a user's role, address, groups or budget; what no flag names stays as it is. Policies
follow at the next request, and so does the loss of a role. What a new role allows takes a new
sign-in, since what somebody holds has the rights that it was made with: gradegate user invite
NAME --re-enrol. "--group none" takes somebody out of all groups, and "--gpu-hours 0" a bound
away. Of a budget and those of policies the strictest holds.`,
		Example: "  gradegate user set ann --group interns --email ann@example.org\n  gradegate user set ann --gpu-hours 8 --concurrent 2\n  gradegate user set ann --group none",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := userName(args[0]); err != nil {
				return err
			}
			var r api.UpdateUser
			f := cmd.Flags()
			if f.Changed("role") {
				r.Role = &role
			}
			if f.Changed("email") {
				r.Email = &email
			}
			if f.Changed("group") {
				if len(groups) == 1 && groups[0] == "none" {
					groups = []string{}
				}
				r.Groups = &groups
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			var before api.User
			if r.Role != nil || spend.over(nil, f) != nil {
				if before, err = client.UserByID(cmd.Context(), args[0]); err != nil {
					return err
				}
				r.Budget = spend.over(before.Budget, f)
			}
			u, err := client.UpdateUser(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			a.hintRole(before, u)
			return a.printUser(u)
		},
	}
	c.Flags().StringVar(&role, "role", "", "user, auditor or admin")
	c.Flags().StringVar(&email, "email", "", "where to reach them")
	spend.add(c.Flags(), "the user")
	c.Flags().StringArrayVar(&groups, "group", nil, "group that they are in (again for more): all others are left")
	return c
}

// hintRole says what a new role is still waiting for: what somebody holds carries
// the rights that they had when it was made.
func (a *app) hintRole(before, now api.User) {
	if before.Role == "" || now.Role == before.Role || now.Role == "user" || now.EnrolledAt == nil || before.Role == "admin" {
		return
	}
	a.hint("What %s holds was made before, and has no right of an %s. It takes a new sign-in, which ends what they hold now: gradegate user invite %s --re-enrol",
		clean(now.Name), roleWord(now.Role), clean(now.Name))
}

func roleWord(role string) string {
	if role == "admin" {
		return "administrator"
	}
	return role
}

func (a *app) printUser(u api.User) error {
	for _, v := range u.Strands {
		a.warnOwners(v)
	}
	return a.print(result{json: u, name: u.ID, table: func(w io.Writer) {
		facts(w, "name", u.Name, "id", u.ID, "role", u.Role, "status", statusWord(u.Status), "email", u.Email, "groups", strings.Join(u.Groups, " "), "budget", budgetLine(u.Budget), "first signed in", when(u.EnrolledAt), "created", when(&u.CreatedAt))
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
			return a.print(list(all, func(u api.User) string { return u.ID }, "NAME\tKIND\tROLE\tSTATUS\tFIRST SIGNED IN\tID", func(u api.User) []string {
				return []string{u.Name, u.Kind, u.Role, statusWord(u.Status), orNever(when(u.EnrolledAt)), u.ID}
			}))
		},
	}
}

// statusWord is a status in the word of the command that made it so; -o json has
// the API's.
func statusWord(status string) string {
	if status == "deprovisioned" {
		return "off-boarded"
	}
	return status
}

func orNever(s string) string {
	if s == "" {
		return "never"
	}
	return s
}

// userName refuses what can be nobody's name before it becomes a path.
func userName(name string) error {
	if strings.HasPrefix(name, "usr_") {
		return nil // an id
	}
	_, err := principal.CanonicalName(name)
	return err
}

func (a *app) userTokens() *cobra.Command {
	var ended bool
	c := &cobra.Command{
		Use: "tokens NAME|ID", Short: "The tokens of a user", Args: cobra.ExactArgs(1), Example: "  gradegate user tokens ann\n  gradegate user tokens ann --all",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.UserTokens(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printTokens(all, ended)
		},
	}
	c.Flags().BoolVar(&ended, "all", false, "those that have ended, too")
	return c
}
