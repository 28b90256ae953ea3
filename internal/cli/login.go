package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/token"
)

func (a *app) login() *cobra.Command {
	var invite, inviteFile, name string
	c := &cobra.Command{
		Use:   "login",
		Short: "Sign in on this machine with a one-time invite code",
		Long: `Signs in on this machine. The invite code comes from an administrator
(gradegate user invite NAME), works once, and is worth a session token that is
stored in a file only you can read. The token itself is never shown. A token that
you hold already is taken with --token-file or --token-stdin instead.`,
		Example: `  gradegate login --url http://127.0.0.1:8080 --invite CODE
  gradegate login --invite-file code.txt --name laptop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := a.server()
			if err != nil {
				return err
			}
			// Before the code is spent: can its worth be kept?
			if err := a.change(func(*hosts) {}); err != nil {
				return err
			}
			if invite == "" && inviteFile == "" && (a.tokenFile != "" || a.tokenStdin) {
				return a.loginWithToken(cmd.Context(), u)
			}
			code, err := a.inviteCode(invite, inviteFile)
			if err != nil {
				return err
			}
			return a.loginWithCode(cmd.Context(), u, code, name)
		},
	}
	c.Flags().StringVar(&invite, "invite", "", "the one-time code")
	c.Flags().StringVar(&inviteFile, "invite-file", "", "file with the code; - reads stdin")
	c.Flags().StringVar(&name, "name", hostname(), "what to call this machine's token")
	return c
}

// hostname is what a token of this machine is called unless told otherwise.
func hostname() string {
	host, err := os.Hostname()
	host = strings.TrimSpace(clean(host))
	if err != nil || host == "" || len(host) > 63 {
		return "machine"
	}
	return host
}

func (a *app) loginWithCode(ctx context.Context, u, code, name string) error {
	client, err := api.NewClient(u, "")
	if err != nil {
		return err
	}
	made, err := client.Redeem(ctx, api.Redeem{Code: code, Name: name})
	if err != nil {
		return err
	}
	if err := a.settle(u, made.Secret); err != nil {
		// The code is spent: losing the token now would lock its owner out.
		fmt.Fprintln(a.stdout, made.Secret)
		return fmt.Errorf("the token could not be stored, so here it is, this once: %w", err)
	}
	who := "(nobody)"
	if made.User != nil {
		who = made.User.Name + " (" + made.User.Role + ")"
	}
	a.hint("Signed in to %s as %s. This machine's session %s.", u, clean(who), made.Token.Ends)
	a.hint("For a token that lasts: gradegate token create --save")
	a.warnShadowed(u)
	return a.print(result{json: made.Token, name: made.Token.ID, secret: made.Secret, table: func(w io.Writer) {
		facts(w, "user", who, "token", made.Token.ID, "ends", made.Token.Ends, "stored in", a.hostsFile())
	}})
}

// loginWithToken keeps a token that its owner holds, after asking whose it is.
func (a *app) loginWithToken(ctx context.Context, u string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	me, err := client.Whoami(ctx)
	if err != nil {
		return err
	}
	if err := a.settle(u, a.credential.secret); err != nil {
		return err
	}
	name := ""
	if me.User != nil {
		name = me.User.Name + " (" + me.User.Role + ")"
	}
	a.hint("Signed in to %s as %s.", u, clean(name))
	return a.print(result{json: me, name: me.TokenID, secret: a.credential.secret, table: func(w io.Writer) {
		facts(w, "user", name, "token", me.TokenID, "ends", when(me.Until), "stored in", a.hostsFile())
	}})
}

func (a *app) inviteCode(code, file string) (string, error) {
	switch {
	case code != "":
		return checkedCode(code)
	case file == "-":
		data, err := io.ReadAll(io.LimitReader(a.stdin, 4096))
		if err != nil {
			return "", err
		}
		return checkedCode(string(data))
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		return checkedCode(string(data))
	}
	return "", usage{fmt.Errorf("signing in needs an invite code: --invite CODE; ask an administrator for one (gradegate user invite NAME)"), "gradegate login"}
}

// checkedCode refuses here what the server would refuse, and never sends a
// token of another kind that was pasted by mistake.
func checkedCode(code string) (string, error) {
	code = strings.TrimSpace(code)
	p, err := token.Parse(code)
	switch {
	case err != nil:
		return "", fault.New(fault.Invalid, "invite_malformed", "That is no invite code: %v.", err).WithFix("Copy it again, whole; it begins with gginv_")
	case p.Kind != token.Invite:
		return "", fault.New(fault.Invalid, "invite_malformed", "That is a token, and no invite code.").WithFix("gradegate login --token-stdin")
	}
	return code, nil
}

func (a *app) logout() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Revoke this machine's token and forget it", Args: cobra.NoArgs,
		Example: "  gradegate logout",
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := a.server()
			if err != nil {
				return err
			}
			h, err := a.loadHosts()
			if err != nil {
				return err
			}
			secret := h.Tokens[u]
			if secret == "" {
				a.hint("Nobody is signed in to %s here.", u)
				return nil
			}
			client, err := api.NewClient(u, secret)
			if err != nil {
				return err
			}
			_, err = client.RevokeToken(cmd.Context(), "self", api.RevokeToken{Reason: "logout"})
			if err != nil && !dead(err) {
				return err
			}
			if err := a.forget(u); err != nil {
				return err
			}
			a.hint("Signed out of %s; the token is revoked.", u)
			return nil
		},
	}
}

// dead reports whether an error says that the token was no good any more.
func dead(err error) bool {
	e, ok := err.(*api.Error) //nolint:errorlint // calls return it bare
	return ok && e.Status == 401
}

func (a *app) whoami() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Who you are, with which token, and until when", Args: cobra.NoArgs,
		Example: "  gradegate whoami\n  gradegate whoami -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			me, err := client.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			for _, s := range a.shadowed {
				a.hint("note: a token from %s is not used, because one from %s comes first", s, a.credential.from)
			}
			name, id := "local administrator", ""
			if me.User != nil {
				name, id = me.User.Name+" ("+me.User.Role+")", me.User.ID
			}
			return a.print(result{json: me, name: id, table: func(w io.Writer) {
				facts(w, "user", name, "id", id, "token", me.TokenID, "kind", me.Kind, "scopes", strings.Join(me.Scopes, " "),
					"ends", when(me.Until), "mode", me.Mode, "address", me.IP, "credential", a.credential.from)
			}})
		},
	}
}
