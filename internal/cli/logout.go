package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) logout() *cobra.Command {
	var revoke bool
	c := &cobra.Command{
		Use: "logout", Short: "Forget this machine's token; a session is ended", Args: cobra.NoArgs,
		Long: `Forgets the token that this machine has stored. A session is ended on the server as
well; any other token may be in use on other machines and stays active, unless
--revoke ends it too. If the server cannot be told, the token is forgotten all the
same; a warning says how to revoke it later.`,
		Example: "  gradegate logout\n  gradegate logout --revoke",
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := a.server()
			if err != nil {
				return err
			}
			h, err := a.loadHosts()
			if err != nil {
				return err
			}
			switch secret := h.Tokens[u]; {
			case secret == "":
				a.hint("Nobody is signed in to %s here.", u)
				return nil
			case revoke || isSession(secret):
				return a.signOut(cmd.Context(), u, secret)
			default:
				if err := a.forget(u); err != nil {
					return err
				}
				a.hint("Signed out of %s: this machine has forgotten the token %s, which stays active. %s", u, orDash(idOfSecret(secret)), howToEnd(secret))
				return nil
			}
		},
	}
	c.Flags().BoolVar(&revoke, "revoke", false, "revoke the token, whatever it is: it ends wherever it is used")
	return c
}

// signOut ends the stored token and forgets it.
func (a *app) signOut(ctx context.Context, u, secret string) error {
	client, err := api.NewClient(u, secret)
	if err != nil {
		return err
	}
	client.Retries = 1
	err = client.RevokeSecret(ctx, secret)
	if err != nil && !dead(err) && !passing(err) {
		return err
	}
	if e := a.forget(u); e != nil {
		return e
	}
	if err != nil && !dead(err) {
		// Whoever leaves a machine wants its token gone from there above all.
		a.warn("this machine has forgotten its token, but %s could not be told, and there the token lives on. Later, where you are signed in, "+
			"or as an administrator: gradegate token revoke %s", u, orDash(idOfSecret(secret)))
		return nil
	}
	a.hint("Signed out of %s; the token is revoked.", u)
	return nil
}

// dead reports whether an error says that the token was no good any more.
func dead(err error) bool {
	e, ok := err.(*api.Error) //nolint:errorlint // calls return it bare
	return ok && e.Status == 401
}

func isSession(secret string) bool { return strings.HasPrefix(secret, "ggses_") }

// howToEnd is the way to end a token that nobody has stored any more.
func howToEnd(secret string) string {
	if id := idOfSecret(secret); id != "" {
		return "To end it, where its owner is signed in, or as an administrator: gradegate token revoke " + id
	}
	return "To end it, where its owner is signed in: gradegate token list --all, and token revoke ID"
}

// lodger is the credential that is stored for a server before another takes its
// place, and whose it is.
type lodger struct {
	secret string
	user   *api.User // nil: the server does not say
	over   bool      // it is no good any more
}

func (a *app) lodger(ctx context.Context, u string) lodger {
	h, _ := a.loadHosts() // one that cannot be read was told before
	secret := h.Tokens[u]
	client, err := api.NewClient(u, secret)
	if secret == "" || err != nil {
		return lodger{}
	}
	client.Retries = 1
	me, err := client.Whoami(ctx)
	return lodger{secret, me.User, dead(err)}
}

func (l lodger) String() string {
	kind, owner := "the token", "somebody's"
	if isSession(l.secret) {
		kind = "the session"
	}
	if l.user != nil {
		owner = clean(l.user.Name) + "'s"
	}
	return fmt.Sprintf("%s %s, %s,", kind, orDash(idOfSecret(l.secret)), owner)
}

// makeRoom asks before somebody's credential loses its place to another's.
func (a *app) makeRoom(l lodger, yes bool) error {
	if l.secret == "" || l.over || !a.attended {
		return nil // what becomes of it is told when it is done
	}
	becomes := "stays active, and this machine forgets it"
	if isSession(l.secret) {
		becomes = "is ended"
	}
	return a.confirm(yes, fmt.Sprintf("This machine has stored %s which gives way to the new one: it %s.", l, becomes))
}

// leave says what becomes of the credential whose place was taken, and ends it
// if it is a session: nobody has its secret any more.
func (l lodger) leave(ctx context.Context, a *app, u, taker string) {
	id := idOfSecret(l.secret)
	switch {
	case l.secret == "" || id != "" && id == taker:
	case l.over && isSession(l.secret): // sessions end all the time
	case l.over:
		a.hint("This machine had stored the token %s, which has ended, by the invite or before: the session takes its place.", orDash(id))
	case isSession(l.secret):
		if err := endStored(ctx, u, l.secret); err != nil {
			a.warn("%s which was stored here, could not be ended and lives on for some hours. %s", l, howToEnd(l.secret))
			return
		}
		a.hint("Ended %s which was stored here.", l)
	default:
		a.hint("This machine has forgotten %s which stays active. %s", l, howToEnd(l.secret))
	}
}

// endStored revokes a session by its own secret, and with it the sign-in that it
// belongs to. One that is dead is as dead as it was to be.
func endStored(ctx context.Context, u, secret string) error {
	client, err := api.NewClient(u, secret)
	if err != nil {
		return err
	}
	client.Retries = 1
	return client.RevokeSecret(ctx, secret)
}
