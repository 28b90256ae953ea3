package cli

import (
	"context"
	"errors"
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
	var yes bool
	c := &cobra.Command{
		Use:   "login",
		Short: "Sign in on this machine with a one-time invite code",
		Long: `Signs in on this machine. The invite code comes from an administrator
(gradegate user invite NAME), works once, and is worth a session token that is
stored in a file only you can read. The token itself is never shown. Whoever has been signed
in before and wants a session again (since "token create --save" took its place, or it ended)
asks for another code, which ends what they hold: gradegate user invite NAME --re-enrol. A token that
you hold already is taken with --token-file or --token-stdin instead. What was stored
here for the server gives way: a session is ended, and any other token stays active.
At a terminal that is asked first if it is somebody else's (--yes: without).`,
		Example: `  gradegate login --url http://127.0.0.1:8080 --invite CODE
  gradegate login --invite-file code.txt --name laptop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := a.server()
			if err != nil {
				return err
			}
			// Before the code is spent: can its worth be kept?
			undo, err := a.canRemember()
			if err != nil {
				return err
			}
			defer undo()
			if invite == "" && inviteFile == "" && (a.tokenFile != "" || a.tokenStdin) {
				return a.loginWithToken(cmd.Context(), u, yes)
			}
			code, err := a.inviteCode(invite, inviteFile)
			if err != nil {
				return err
			}
			return a.loginWithCode(cmd.Context(), u, code, name, yes)
		},
	}
	c.Flags().StringVar(&invite, "invite", "", "the one-time code")
	c.Flags().StringVar(&inviteFile, "invite-file", "", "file with the code; - reads stdin")
	c.Flags().StringVar(&name, "name", hostname(), "what to call this machine's token")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask before it takes the place of what is stored here")
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

func (a *app) loginWithCode(ctx context.Context, u, code, name string, yes bool) error {
	// Whose code it is shows when it is spent, and then it is too late to ask. An
	// invite ends what its own person held: what lives here is somebody else's.
	old := a.lodger(ctx, u)
	if err := a.makeRoom(old, yes); err != nil {
		return err
	}
	client, err := api.NewClient(u, "")
	if err != nil {
		return err
	}
	made, err := client.Redeem(ctx, api.Redeem{Code: code, Name: name})
	if err != nil {
		return err
	}
	if err := a.settle(u, made.Secret, made.RefreshToken); err != nil {
		// The code is spent: losing the token now would lock its owner out.
		fmt.Fprintln(a.stdout, made.Secret)
		return notStored(err)
	}
	who := "(nobody)"
	if made.User != nil {
		who = made.User.Name + " (" + made.User.Role + ")"
	}
	old.leave(ctx, a, u, made.Token.ID)
	if made.RefreshToken == "" {
		a.hint("Signed in to %s as %s. This machine's session %s.", u, clean(who), made.Token.Ends)
	} else {
		a.hint("Signed in to %s as %s. This machine stays signed in for 30 days after its last use, and 90 days in all.", u, clean(who))
	}
	a.hint("For a token that lasts, and takes the place of the session: gradegate token create --save")
	a.warnShadowed(u)
	return a.print(result{json: made.Token, name: made.Token.ID, secret: made.Secret, table: func(w io.Writer) {
		facts(w, "user", who, "token", made.Token.ID, "validity", made.Token.Ends, "stored in", a.hostsFile())
	}})
}

// loginWithToken keeps a token that its owner holds, after asking whose it is.
func (a *app) loginWithToken(ctx context.Context, u string, yes bool) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	me, err := client.Whoami(ctx)
	if err != nil {
		return err
	}
	if me.Kind == token.JobKind.String() {
		return fault.New(fault.Invalid, "job_handle", "That is the handle of the job %s, and signs nobody in.", me.Job).
			WithFix("Use it for that job: gradegate job show %s --token-file FILE", me.Job)
	}
	old := a.lodger(ctx, u)
	if old.user == nil || me.User == nil || old.user.ID != me.User.ID {
		if err := a.makeRoom(old, yes); err != nil {
			return err
		}
	}
	if err := a.settle(u, a.credential.secret, ""); err != nil {
		return err
	}
	old.leave(ctx, a, u, idOfSecret(a.credential.secret))
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
	case file != "":
		text, err := a.readFileOrStdin(file, "--invite-file")
		if err != nil {
			return "", err
		}
		return checkedCode(text)
	}
	f := fault.New(fault.Invalid, "usage", "Signing in needs the one-time code that an administrator makes for you (gradegate user invite NAME).").
		WithFix("gradegate login --invite CODE; or, with a token of yours: gradegate login --token-file FILE")
	return "", usage{f, "gradegate login"}
}

// checkedCode refuses here what the server would refuse, and never sends a
// token of another kind that was pasted by mistake.
func checkedCode(code string) (string, error) {
	code = strings.TrimSpace(code)
	p, err := token.Parse(code)
	if err == nil && p.Kind == token.Invite {
		return code, nil
	}
	if err == nil && p.Kind == token.JobKind {
		return "", fault.New(fault.Invalid, "invite_malformed", "That is the handle of a job, and no invite code; it signs nobody in.").
			WithFix("Use it for its job: gradegate job show JOB --token-file FILE")
	}
	if err == nil || strings.HasPrefix(code, "gg") && !strings.HasPrefix(code, "gginv_") && len(code) == token.SecretLen {
		return "", fault.New(fault.Invalid, "invite_malformed", "That is a token, and no invite code.").WithFix("gradegate login --token-stdin")
	}
	why := "it has a character that no code has"
	switch {
	case code == "CODE":
		why = "it is the word that stands for one"
	case !strings.HasPrefix(code, "gginv_"):
		why = "a code begins with gginv_"
	case len(code) < token.SecretLen:
		why = fmt.Sprintf("it has %d characters, and a code has %d; it was cut off when it was copied", len(code), token.SecretLen)
	case len(code) > token.SecretLen:
		why = fmt.Sprintf("it has %d characters, and a code has %d; something was copied with it", len(code), token.SecretLen)
	case errors.Is(err, token.WrongChecksum):
		why = "a character of it was changed, or two were swapped"
	}
	return "", fault.New(fault.Invalid, "invite_malformed", "That is no invite code: %s.", why).
		WithFix("Copy the code again, whole, from where you got it; an administrator makes another: gradegate user invite NAME")
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
			for _, x := range me.Warnings {
				if !a.wantsJSON() {
					a.warn("%s", clean(x.Detail))
				}
			}
			a.hintSession(me)
			name, id := "local administrator", ""
			if me.User != nil {
				name, id = me.User.Name+" ("+part(*me.User)+")", me.User.ID
			}
			return a.print(result{json: me, name: id, table: func(w io.Writer) {
				facts(w, "user", name, "id", id, "token", me.TokenID, "kind", kindWord(me.Kind), "job", me.Job, "scopes", strings.Join(me.Scopes, " "),
					"ends", when(me.Until), "mode", me.Mode, "address", me.IP, "credential", a.credential.from)
			}})
		},
	}
}

// hintSession says to who goes by a stored token how there is a session again.
func (a *app) hintSession(me api.Whoami) {
	if me.User != nil && me.Kind == token.Personal.String() && a.credential.from == a.hostsFile() {
		a.hint("note: a token is stored here, and no session. "+sessionAgain, clean(me.User.Name))
	}
}

// sessionAgain is how somebody gets a session who has a token.
const sessionAgain = "If you need one again, an administrator makes a code (gradegate user invite %s --re-enrol), which ends this token: gradegate login --invite CODE"

// part is in which part somebody acts: a service has no other.
func part(u api.User) string {
	if u.Kind == "service" {
		return u.Kind
	}
	return u.Role
}
