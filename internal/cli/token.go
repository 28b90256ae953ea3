package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/token"
)

func (a *app) tokenCmd() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Your tokens: make, see, narrow, rotate, revoke"}
	c.AddCommand(a.tokenCreate(), a.tokenEnsure(), a.tokenList(), a.tokenShow(), a.tokenPrint(), a.tokenAdvise(), a.tokenImport(), a.tokenNarrow(), a.tokenRotate(), a.tokenRenew(),
		a.tokenRevoke(), a.tokenRevokeAll(), a.tokenSuspend(), a.tokenResume())
	return c
}

func (a *app) tokenCreate() *cobra.Command {
	var r api.CreateToken
	var until, service string
	var save bool
	var spend budgetFlags
	c := &cobra.Command{
		Use: "create", Short: "Make a personal token, or one of a service; its secret is shown once", Args: cobra.NoArgs,
		Long: `Makes a personal token. Its secret is shown this once, or stored with --save, which
also ends the session that was stored before: there is a session again only with another
code (gradegate login --invite CODE), which ends what you hold. If --replace names the token that
this machine has stored, the new one takes its place there without being asked.
-o name prints the id, and the secret beside it, on stderr. With --service it is one of
a service that you answer for; all others who do may rotate and revoke it by its id.

A budget (--gpu-hours, --concurrent) bounds what the token can take of the cluster
together with its successors and all that is made from it, so that what a thief could
take is a number. It is never raised; rotating the token does not fill it again.`,
		Example: `  gradegate token create --name laptop
  gradegate token create --name laptop --save -o name
  gradegate token create --name ci --gpu-hours 8 --concurrent 2
  gradegate token create --service ci --name runner --competition iris -o secret
  gradegate token create --name ci --scope jobs:submit --scope jobs:read --expires 30d --replace laptop -o secret`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if r.ExpiresAt, err = instant(until, cmd); err != nil {
				return err
			}
			if service != "" {
				return a.createServiceToken(cmd, client, service, r, save)
			}
			var old target
			if r.Replace != "" {
				if old, err = a.aim(cmd.Context(), client, r.Replace); err != nil {
					return err
				}
				r.Replace = old.id // also of one that was named as self
			}
			keep := save || old.stored
			r.Budget = spend.over(nil, cmd.Flags())
			made, err := client.CreateToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			if old.inUse && !keep {
				a.warn("the token that you were using came from %s and is dead: put the new one there", a.credential.from)
			}
			a.hintIdle(r.ExpiresIn, made.Token)
			return a.printIssued(cmd.Context(), client, made, keep, old.id)
		},
	}
	f := c.Flags()
	f.StringVar(&r.Name, "name", hostname(), "what it is for, such as the machine's name")
	f.StringArrayVar(&r.Scopes, "scope", nil, "what it may do (again for more); default: all that the token you use has")
	f.StringArrayVar(&r.Competitions, "competition", nil, "limit it to a competition, or to project:NAME, all that it holds when it is used (again for more)")
	f.StringVar(&r.ExpiresIn, "expires", "", "lifetime after its last use, such as 90d; policy may end it earlier while it is not used")
	f.StringVar(&until, "until", "", "a fixed end instead, such as 2027-01-31T18:00:00Z")
	f.StringArrayVar(&r.AllowedCIDRs, "cidr", nil, "network it may be used from (again for more)")
	f.BoolVar(&r.Observe, "observe", false, "mark a use from elsewhere and do not refuse it")
	spend.add(f, "it")
	f.StringVar(&r.Note, "note", "", "free text")
	f.StringVar(&r.Replace, "replace", "", "revoke this token of yours in the same step")
	f.StringVar(&service, "service", "", "make it for this service, which you answer for")
	f.BoolVar(&save, "save", false, "use it on this machine from now on, instead of showing it")
	return c
}

// createServiceToken makes a token that is not the caller's own: this machine
// goes on with the one that it has, unless it is to be the service.
func (a *app) createServiceToken(cmd *cobra.Command, client *api.Client, service string, r api.CreateToken, save bool) error {
	made, err := client.CreateServiceToken(cmd.Context(), service, r)
	if err != nil {
		return err
	}
	a.hintIdle(r.ExpiresIn, made.Token)
	return a.printIssued(cmd.Context(), client, made, save, "")
}

// instant reads the value of --until.
func instant(text string, cmd *cobra.Command) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		f := fault.New(fault.Invalid, "usage", "--until wants an instant, and %q is none.", text).
			WithFix("Write it as 2027-01-31T18:00:00Z; for a lifetime use --expires 90d")
		return nil, usage{f, cmd.CommandPath()}
	}
	return &at, nil
}

// printIssued shows a new secret once, or stores it. gone is the token whose
// place it takes, if any.
func (a *app) printIssued(ctx context.Context, client *api.Client, made api.Issued, save bool, gone string) error {
	if made.Replayed {
		a.hint("This was made before, by the same request.")
	}
	if save {
		if err := a.putInPlace(ctx, client, made, gone); err != nil {
			return err
		}
	} else if a.output == "table" {
		a.hint("The secret is shown this once. Keep it where others cannot read it.")
	} else if a.output == "name" {
		a.hint("The secret, shown this once: %s", made.Secret)
	}
	shown := any(made)
	if save {
		shown = made.Token // what is stored need not be seen
	}
	return a.print(result{json: shown, name: made.Token.ID, secret: made.Secret, table: func(w io.Writer) {
		if !save {
			fmt.Fprintf(w, "secret\t%s\n", clean(made.Secret))
		}
		tokenFacts(w, made.Token)
		if p := made.Predecessor; p != nil {
			facts(w, "predecessor", p.ID+", "+p.Ends)
		}
	}})
}

// putInPlace makes a new secret this machine's credential, and sees to what it
// had before.
func (a *app) putInPlace(ctx context.Context, client *api.Client, made api.Issued, gone string) error {
	before, _ := a.loadHosts() // a file that cannot be read is told by what follows
	if err := a.remember(client.BaseURL, made.Secret); err != nil {
		fmt.Fprintln(a.stdout, made.Secret)
		return notStored(err)
	}
	a.hint("Stored in %s; this machine uses it from now on.", a.hostsFile())
	a.putAside(ctx, client.BaseURL, before.Tokens[client.BaseURL], gone, made.Token.ID)
	a.warnShadowed(client.BaseURL)
	return nil
}

// putAside sees to a token that the file does not hold any more, unless it is
// one of those that are known to be over, or the new one itself.
func (a *app) putAside(ctx context.Context, u, old string, known ...string) {
	id := idOfSecret(old)
	switch {
	case id == "" || slices.Contains(known, id):
	case isSession(old):
		a.endSession(ctx, u, old)
	default:
		a.hint("The token %s, which was stored here before, may still be active. If nothing else uses it: gradegate token revoke %s", id, id)
	}
}

// idOfSecret is the id of a token, or "" of one that does not tell it.
func idOfSecret(secret string) string {
	p, err := token.Parse(secret)
	if err != nil {
		return ""
	}
	return string(p.Public.ID())
}

func tokenResult(t api.Token) result {
	return result{json: t, name: t.ID, table: func(w io.Writer) { tokenFacts(w, t) }}
}

func tokenFacts(w io.Writer, t api.Token) {
	facts(w, "id", t.ID, "name", t.Name, "kind", kindWord(t.Kind), "state", stateWord(t), "reason", t.Reason, "validity", t.Ends,
		"nearest end", nearestEnd(t),
		"scopes", strings.Join(t.Scopes, " "), "competitions", strings.Join(t.Competitions, " "), "networks", networksWord(t), "can take", t.AtMost, "budget", budgetUse(t.Budget),
		"created", when(&t.CreatedAt), "rotate by", when(t.RotateBy), "at the latest", when(t.MaxExpiresAt), "successor", t.Family.Successor, "note", t.Note)
	for _, x := range t.Warnings {
		facts(w, "warning", x.Detail)
	}
	if u := t.LastUsed; u != nil {
		facts(w, "last used", ago(u.At)+" from "+orDash(u.IP)+" by "+orDash(u.Agent))
	}
	if g := t.Guesses; g != nil {
		facts(w, "guessed at", guessLine(*g))
	}
}

// networksWord is where a token may be used from.
func networksWord(t api.Token) string {
	list := strings.Join(t.AllowedCIDRs, " ")
	if t.Observe {
		list += " (a use from elsewhere is only marked)"
	}
	return list
}

// guessLine is what is known of wrong secrets tried with a token's id.
func guessLine(g api.Guesses) string {
	return fmt.Sprintf("%s from about %s, the last %s", count(int(g.Count), "wrong secret"), count(g.Sources, "address", "addresses"), ago(g.Last))
}

// budgetUse is what is taken of a token's own budget.
func budgetUse(b *api.Spending) string {
	if b == nil {
		return ""
	}
	return b.Why
}

// nearestEnd is the clock that ends a token first, and who set it.
func nearestEnd(t api.Token) string {
	if t.EffectiveExpiresAt == nil || t.EffectivePolicy == "" || hasEnded(t) {
		return ""
	}
	return when(t.EffectiveExpiresAt) + ", " + policyWord(t.EffectivePolicy)
}

// hintIdle says so if a lifetime that was asked for is not what ends a token.
func (a *app) hintIdle(asked string, t api.Token) {
	if asked == "" || t.EffectiveReason != string(token.ClockIdle) || t.EffectiveExpiresAt == nil {
		return
	}
	left := t.EffectiveExpiresAt.Sub(t.CreatedAt).Round(time.Minute)
	a.hint("Unused for %s it ends earlier than after %s: %s.", config.FormatDuration(left), asked, policyWord(t.EffectivePolicy))
}

func (a *app) tokenList() *cobra.Command {
	var ended bool
	var service string
	c := &cobra.Command{
		Use: "list", Short: "Your tokens, newest first", Args: cobra.NoArgs, Example: "  gradegate token list\n  gradegate token list --all\n  gradegate token list --service ci",
		Long: "Your tokens, newest first. The table leaves out those that have ended, unless --all\nshows them too; -o json and -o name always have all of them.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			var all []api.Token
			if service != "" {
				all, err = client.ServiceTokens(cmd.Context(), service)
			} else {
				all, err = client.Tokens(cmd.Context())
			}
			if err != nil {
				return err
			}
			return a.printTokens(all, ended)
		},
	}
	c.Flags().StringVar(&service, "service", "", "those of this service, which you answer for")
	c.Flags().BoolVar(&ended, "all", false, "those that have ended, too")
	return c
}

// hasEnded reports whether a token is over, so that most people have no use for
// its line any more.
func hasEnded(t api.Token) bool {
	switch token.State(t.State) {
	case token.StateExpired, token.StateIdleExpired, token.StateRotated, token.StateRevoked:
		return true
	}
	return false
}

// printTokens prints a list of tokens; people see those that have ended if they
// ask for them.
func (a *app) printTokens(all []api.Token, ended bool) error {
	shown := all
	if a.output == "table" && !ended {
		shown = slices.DeleteFunc(slices.Clone(all), hasEnded)
	}
	if n := len(all) - len(shown); n > 0 {
		a.hint("%s not shown: --all", count(n, "ended one is", "ended ones are"))
	}
	a.guesses.Store(0) // it is told here
	for _, t := range shown {
		if t.Guesses != nil && !hasEnded(t) {
			a.hint("note: somebody guesses at the secret of %s (%s): %s. Whoever guesses is slowed down, and you are not.", t.Name, t.ID, guessLine(*t.Guesses))
		}
	}
	return a.print(list(shown, func(t api.Token) string { return t.ID }, "NAME\tKIND\tSTATE\tLAST USED\tID\tVALIDITY", func(t api.Token) []string {
		used := "never"
		if t.LastUsed != nil {
			used = ago(t.LastUsed.At)
		}
		return []string{t.Name, kindWord(t.Kind), stateWord(t), used, t.ID, t.Ends}
	}))
}

// stateWord is a token's state in words; -o json has the API's.
func stateWord(t api.Token) string {
	if token.State(t.State) == token.StateRevoked && token.Reason(t.Reason) == token.Redeemed {
		return "used"
	}
	return strings.ReplaceAll(t.State, "_", " ")
}

func (a *app) tokenShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME|ID|self]", Short: "Everything about one token", Args: cobra.MaximumNArgs(1), Example: "  gradegate token show laptop\n  gradegate token show self -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			t, err := client.TokenByID(cmd.Context(), first(args, "self"))
			if err != nil {
				return err
			}
			a.guesses.Store(0) // it is told here
			return a.print(tokenResult(t))
		},
	}
}

// kindWord is a kind of tokens in words; -o json has the API's.
func kindWord(kind string) string {
	for short, word := range map[string]string{"pat": "personal", "ses": "session", "svc": "service", "inv": "invite", "ref": "refresh", "legacy": "imported"} {
		if kind == short {
			return word
		}
	}
	return kind
}

func first(args []string, otherwise string) string {
	if len(args) > 0 {
		return args[0]
	}
	return otherwise
}

func (a *app) tokenPrint() *cobra.Command {
	return &cobra.Command{
		Use: "print", Short: "Print the token that this machine uses", Args: cobra.NoArgs, Example: "  gradegate token print\n  gradegate token print -o json",
		RunE: func(*cobra.Command, []string) error {
			if _, err := a.client(); err != nil {
				return err
			}
			if a.credential.secret == "" {
				return &api.Error{Problem: api.Problem{Status: 401, Code: "credential_missing", Detail: "Nobody is signed in here.", Fix: "gradegate login --invite CODE"}}
			}
			a.hint("From %s. Whoever has it can do what you can.", a.credential.from)
			c := a.credential
			return a.print(result{
				json: map[string]string{"secret": c.secret, "id": idOfSecret(c.secret), "from": c.from}, name: idOfSecret(c.secret), secret: c.secret,
				table: func(w io.Writer) { fmt.Fprintln(w, c.secret) },
			})
		},
	}
}

func (a *app) tokenRotate() *cobra.Command {
	var r api.RotateToken
	var save bool
	c := &cobra.Command{
		Use: "rotate [NAME|ID|self]", Short: "Give a token a successor; the old one lives on for a grace period", Args: cobra.MaximumNArgs(1),
		Long: `Gives a token a successor with the same name, scopes and limits and a new
secret. The old one goes on for a grace period (24h), so that what still uses it
can be changed over. Jobs are not touched: they are yours, not the token's. If it is
the one that this machine has stored, its successor takes its place there, and is
not shown (gradegate token print shows it). One that came from the environment or
from a file of yours must be replaced there by you: its successor is shown.`,
		Example: `  gradegate token rotate laptop
  gradegate token rotate self --grace 10m --save`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			made, err := client.RotateToken(cmd.Context(), first(args, "self"), r)
			if err != nil {
				return err
			}
			gone := ""
			if p := made.Predecessor; p != nil {
				gone = p.ID
				// Whoever rotates what this machine uses wants to go on using this machine.
				save = save || a.stored(client.BaseURL, p.ID)
				if !save && p.ID == idOfSecret(a.credential.secret) {
					a.warn("the token that you are using comes from %s: put the new one there. The old one %s", a.credential.from, p.Ends)
				}
			}
			return a.printIssued(cmd.Context(), client, made, save, gone)
		},
	}
	c.Flags().StringVar(&r.Grace, "grace", "", "how long the old one lives on: 0 to 7d (default 24h)")
	c.Flags().BoolVar(&r.Compromised, "compromised", false, "somebody else may have it: end the old one at once")
	c.Flags().BoolVar(&r.ReplaceUnused, "replace-unused", false, "its successor's secret was lost before it was used: make another")
	c.Flags().BoolVar(&save, "save", false, "use the successor on this machine from now on, instead of showing it")
	return c
}
