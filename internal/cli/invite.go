package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/server"
)

func (a *app) userInvite() *cobra.Command {
	var r api.Invite
	var again bool
	c := &cobra.Command{
		Use: "invite NAME", Short: "Make a one-time code with which somebody signs in", Args: cobra.ExactArgs(1),
		Long: `Makes a one-time code (24 h) for a person, who is created if there is nobody of
that name. Give it to that person alone: whoever redeems it is that person. A
second invite for somebody who has not come in yet replaces the first.

For somebody who has signed in before, or is suspended or off-boarded, it is a
re-enrolment: everything that was issued to them before is dead at once, and they
are active again. At a terminal that is asked first (--re-enrol: without).`,
		Example: `  gradegate user invite ann --data gradegate-data --re-enrol -o secret
  gradegate user invite joe --role auditor`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := userName(args[0]); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirmReenrolment(cmd.Context(), client, args[0], again); err != nil {
				return err
			}
			made, err := client.InviteUser(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			if made.Reenrolled {
				a.warn("%s held credentials before: they are dead now", clean(made.User.Name))
			}
			return a.printInvite(client, made)
		},
	}
	c.Flags().StringVar(&r.Role, "role", "", "role of a new user: user (default), auditor or admin")
	c.Flags().StringVar(&r.Email, "email", "", "e-mail address of a new user")
	c.Flags().BoolVar(&again, "re-enrol", false, "for somebody who has signed in before: end all that they hold, without asking")
	return c
}

// confirmReenrolment asks before an invite that takes something away.
func (a *app) confirmReenrolment(ctx context.Context, client *api.Client, name string, given bool) error {
	u, err := client.UserByID(ctx, name)
	if statusOf(err) == http.StatusNotFound {
		return nil // nobody yet
	}
	if err != nil {
		return err
	}
	what := ""
	switch {
	case u.Status != "active" && u.EnrolledAt == nil:
		what = fmt.Sprintf("%s is %s: an invite makes them active again.", u.Name, statusWord(u.Status))
	case u.Status != "active":
		what = fmt.Sprintf("%s is %s: an invite makes them active again, and what they held before stays dead.", u.Name, statusWord(u.Status))
	case u.EnrolledAt != nil:
		what = fmt.Sprintf("%s has signed in before (%s): an invite re-enrols them, which ends every token and session that they hold now.", u.Name, when(u.EnrolledAt))
	default:
		return nil // invited before, and never came in
	}
	return a.confirm(given, what)
}

func (a *app) printInvite(client *api.Client, made api.Invited) error {
	var u string
	if a.output == "table" { // no other form has a place for it
		u = a.addressFor(client)
	}
	if u == "" {
		u = "URL"
	}
	if a.output == "name" {
		a.hint("The code, shown this once: %s", made.Code)
	}
	err := a.print(result{json: made, name: made.User.ID, secret: made.Code, table: func(w io.Writer) {
		fmt.Fprintf(w, "code\t%s\n", made.Code)
		facts(w, "user", made.User.Name+" ("+made.User.Role+")", "works until", when(&made.ExpiresAt))
		fmt.Fprintf(w, "they type\tgradegate login --url %s --invite %s\n", clean(u), made.Code)
	}})
	if u == "URL" && a.output == "table" {
		a.hint("Put the server's address in the place of URL: gradegate serve prints it, and public_url in its configuration sets it.")
	}
	return err
}

// addressFor is how others reach the server: what the server wrote down, or the
// address by which it is spoken to. It is "" if nobody knows.
func (a *app) addressFor(client *api.Client) string {
	if a.data == "" {
		return client.BaseURL
	}
	text, err := os.ReadFile(filepath.Join(a.data, server.AddressName))
	if err != nil {
		return ""
	}
	return canonical(strings.TrimSpace(string(text)))
}
