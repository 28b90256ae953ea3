package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

const yesMeans = "do not ask before ending or stopping the token in use"

func (a *app) tokenRevoke() *cobra.Command {
	var r api.RevokeToken
	var yes bool
	c := &cobra.Command{
		Use: "revoke NAME|ID|self", Short: "End a token for good, at once", Args: cobra.ExactArgs(1),
		Long: `Ends a token for good, at once. Its jobs go on unless --jobs says otherwise. The
token that you are using is revoked, at a terminal, only after a question (--yes: without).`,
		Example: `  gradegate token revoke laptop --jobs cancel-queued --yes
  gradegate token revoke self --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := a.aim(cmd.Context(), client, args[0])
			if e, ok := errors.AsType[*api.Error](err); ok && e.Status == 403 {
				// A token that may see no tokens may still end itself, also by its name.
				t.inUse, err = true, nil
			}
			if err != nil {
				return err
			}
			if t.inUse {
				if err := a.confirm(yes, "This is the token that you are using. Once it is revoked, "+a.here()+" is signed out; "+
					"you come in again with another token of yours or a new invite code."); err != nil {
					return err
				}
			}
			out, err := client.RevokeToken(cmd.Context(), args[0], r)
			if t.inUse && revoked(err) {
				// The answer to an earlier try was lost, and the token is as dead as it was
				// to be.
				out, err = api.Revoked{Token: api.Token{ID: t.id, State: "revoked"}, Already: true}, nil
			}
			if err != nil {
				return err
			}
			if t.stored || a.data == "" && a.stored(client.BaseURL, out.Token.ID) {
				if err := a.forget(client.BaseURL); err != nil {
					return err
				}
				a.hint("This machine has forgotten it.")
			}
			if out.Already {
				a.hint("It was revoked before.")
			}
			return a.print(result{json: out, name: out.Token.ID, table: func(w io.Writer) { tokenFacts(w, out.Token) }})
		},
	}
	c.Flags().StringVar(&r.Jobs, "jobs", "", "its jobs: keep (default), cancel-queued or cancel")
	c.Flags().StringVar(&r.Reason, "reason", "", "why, for the audit trail")
	c.Flags().BoolVar(&yes, "yes", false, yesMeans)
	return c
}

// revoked reports whether an error says that the token in use is revoked.
func revoked(err error) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Status == 401 && e.Code == "token_revoked"
}

// here is what is signed out when the token in use ends.
func (a *app) here() string {
	if a.credential.from == a.hostsFile() {
		return "this machine"
	}
	return "whatever uses " + a.credential.from
}

func (a *app) tokenRevokeAll() *cobra.Command {
	var keep, yes bool
	var user string
	c := &cobra.Command{
		Use: "revoke-all", Short: "End all of your tokens in one step", Args: cobra.NoArgs,
		Example: "  gradegate token revoke-all --keep-this\n  gradegate token revoke-all --yes\n  gradegate token revoke-all --user ann",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if user != "" {
				u, err := client.RevokeAllOfUser(cmd.Context(), user)
				if err != nil {
					return err
				}
				return a.printUser(u)
			}
			r := api.RevokeAll{}
			if keep {
				r.Keep = "self"
			} else if err := a.confirm(yes, "This ends every token of yours, and the one that you are using with them (--keep-this spares it). "+
				"You come in again with a new invite code."); err != nil {
				return err
			}
			u, err := client.RevokeAllTokens(cmd.Context(), r)
			if err != nil {
				return err
			}
			if !keep && a.data == "" && a.credential.from == a.hostsFile() {
				if err := a.forget(client.BaseURL); err != nil {
					return err
				}
				a.hint("This machine has forgotten its token. An administrator makes a new code: gradegate user invite %s --re-enrol", u.Name)
			}
			return a.printUser(u)
		},
	}
	c.Flags().BoolVar(&keep, "keep-this", false, "keep the token that is used for this command")
	c.Flags().BoolVar(&yes, "yes", false, yesMeans)
	c.Flags().StringVar(&user, "user", "", "those of somebody else (for administrators)")
	c.MarkFlagsMutuallyExclusive("keep-this", "user")
	return c
}

func (a *app) tokenSuspend() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "suspend NAME|ID|self", Short: "Stop a token until it is resumed", Args: cobra.ExactArgs(1),
		Long: `Stops a token until it is resumed; its jobs go on. A suspended token cannot resume
itself: at a terminal the one that you are using is suspended only after a question
(--yes: without).`,
		Example: "  gradegate token suspend laptop --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := a.aim(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			if t.inUse {
				if err := a.confirm(yes, "This is the token that you are using. Suspended, it can do nothing, and cannot resume itself: "+
					"you need another machine where you are signed in, or an administrator."); err != nil {
					return err
				}
			}
			out, err := client.SuspendToken(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if t.inUse {
				a.warn("the token in use is suspended. To let it go on, on a machine where you are signed in with another token: "+
					"gradegate token resume %s; else an administrator types: gradegate token resume %s", quoted(out.Name), out.ID)
			} else {
				a.hint("To let it go on: gradegate token resume %s", out.ID)
			}
			return a.printToken(out)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, yesMeans)
	return c
}

func (a *app) tokenResume() *cobra.Command {
	return &cobra.Command{
		Use: "resume NAME|ID", Short: "Let a suspended token go on", Args: cobra.ExactArgs(1),
		Long: `Lets a suspended token go on. Its owner does it with another token or a session;
an administrator does it by the token's id (gradegate user tokens NAME).`,
		Example: "  gradegate token resume laptop",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := client.ResumeToken(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printToken(t)
		},
	}
}

func (a *app) printToken(t api.Token) error {
	return a.print(tokenResult(t))
}

// endSession ends the session whose place in the file a lasting token has
// taken. Nobody has its secret any more, so that nobody could end it or would
// notice what is done with it, if a copy exists somewhere: it is of no use to
// its owner, and it would live for hours.
func (a *app) endSession(ctx context.Context, u, secret string) {
	id := idOfSecret(secret)
	if err := endStored(ctx, u, secret); err != nil {
		a.warn("the session of the login (%s) could not be ended and lives on for some hours. End it: gradegate token revoke %s", id, id)
		return
	}
	a.hint("The session of the login (%s) was ended: the token takes its place.", id)
}

func (a *app) tokenRenew() *cobra.Command {
	return &cobra.Command{
		Use: "renew [NAME|ID|self]", Short: "Put the end of a token off, as far as policy lets it", Args: cobra.MaximumNArgs(1),
		Long: `Puts the end of a token off, and says why not further. A token is renewed by each use of
its own; a session lives 24 h at most, and a token whose end was asked for is not
renewed: create another.`,
		Example: "  gradegate token renew\n  gradegate token renew laptop",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			r, err := client.RenewToken(cmd.Context(), first(args, "self"))
			if err != nil {
				return err
			}
			if why := limits[r.LimitedBy]; why != "" {
				a.hint("It ends no later, because %s (%s).", why, policyWord(r.Policy))
			}
			return a.print(result{json: r, name: r.Token.ID, table: func(w io.Writer) {
				facts(w, "would have ended", when(r.EndedBefore), "ends", when(r.EffectiveEnd))
				tokenFacts(w, r.Token)
			}})
		},
	}
}

// limits are the reasons for which a renewal goes no further.
var limits = map[string]string{
	"max_lifetime": "that is the most that a token and its successors live", "fixed": "its end was asked for when it was made",
	"grace": "it was rotated: use its successor", "rotation": "it must be rotated by then", "policy": "policy then allows sessions only",
}

// policyWord is a level of policy in words.
func policyWord(level string) string {
	switch {
	case level == "platform":
		return "policy of the platform"
	case strings.HasPrefix(level, "group:"):
		return "policy of the group " + strings.TrimPrefix(level, "group:")
	}
	return "set when the token was made"
}
