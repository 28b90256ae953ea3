package cli

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/token"
)

func (a *app) tokenCmd() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Your tokens: make, see, rotate, revoke"}
	c.AddCommand(a.tokenCreate(), a.tokenList(), a.tokenShow(), a.tokenPrint(), a.tokenRotate(), a.tokenRevoke(), a.tokenRevokeAll(),
		a.tokenStanding("suspend", "Stop a token until it is resumed"), a.tokenStanding("resume", "Let a suspended token go on"))
	return c
}

func (a *app) tokenCreate() *cobra.Command {
	var r api.CreateToken
	var until string
	var save bool
	c := &cobra.Command{
		Use: "create", Short: "Make a personal token; its secret is shown once", Args: cobra.NoArgs,
		Example: `  gradegate token create --name laptop
  gradegate token create --name ci --scope jobs:submit --scope jobs:read --expires 30d --replace laptop -o secret`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if until != "" {
				at, err := time.Parse(time.RFC3339, until)
				if err != nil {
					return usage{fmt.Errorf("--until wants an instant such as 2027-01-31T18:00:00Z"), cmd.CommandPath()}
				}
				r.ExpiresAt = &at
			}
			made, err := client.CreateToken(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.printIssued(client, made, save)
		},
	}
	f := c.Flags()
	f.StringVar(&r.Name, "name", hostname(), "what it is for, such as the machine's name")
	f.StringArrayVar(&r.Scopes, "scope", nil, "what it may do (again for more); default: all that the token you use has")
	f.StringArrayVar(&r.Competitions, "competition", nil, "limit it to a competition (again for more)")
	f.StringVar(&r.ExpiresIn, "expires", "", "lifetime after its last use, such as 90d")
	f.StringVar(&until, "until", "", "a fixed end instead, such as 2027-01-31T18:00:00Z")
	f.StringArrayVar(&r.AllowedCIDRs, "cidr", nil, "network it may be used from (again for more)")
	f.StringVar(&r.Note, "note", "", "free text")
	f.StringVar(&r.Replace, "replace", "", "revoke this token of yours in the same step")
	f.BoolVar(&save, "save", false, "use it on this machine from now on, instead of showing it")
	return c
}

// printIssued shows a new secret once, or stores it.
func (a *app) printIssued(client *api.Client, made api.Issued, save bool) error {
	if made.Replayed {
		a.hint("This was made before, by the same request.")
	}
	if save {
		if err := a.remember(client.BaseURL, made.Secret); err != nil {
			fmt.Fprintln(a.stdout, made.Secret)
			return fmt.Errorf("the token could not be stored, so here it is, this once: %w", err)
		}
		a.hint("Stored in %s; this machine uses it from now on.", a.hostsFile())
		a.warnShadowed(client.BaseURL)
	} else if a.output == "table" {
		a.hint("The secret is shown this once. Keep it where others cannot read it.")
	}
	shown := any(made)
	if save {
		shown = made.Token // what is stored need not be seen
	}
	return a.print(result{json: shown, name: made.Token.ID, secret: made.Secret, table: func(w io.Writer) {
		if !save {
			fmt.Fprintf(w, "secret\t%s\n", made.Secret)
		}
		tokenFacts(w, made.Token)
		if p := made.Predecessor; p != nil {
			facts(w, "predecessor", p.ID+", "+p.Ends)
		}
	}})
}

func tokenFacts(w io.Writer, t api.Token) {
	facts(w, "id", t.ID, "name", t.Name, "kind", t.Kind, "state", t.State, "reason", t.Reason, "ends", t.Ends,
		"scopes", strings.Join(t.Scopes, " "), "competitions", strings.Join(t.Competitions, " "), "networks", strings.Join(t.AllowedCIDRs, " "),
		"made", when(&t.CreatedAt), "rotate by", when(t.RotateBy), "at the latest", when(t.MaxExpiresAt), "successor", t.Family.Successor, "note", t.Note)
	if u := t.LastUsed; u != nil {
		facts(w, "last used", ago(u.At)+" from "+orDash(u.IP)+" by "+orDash(u.Agent))
	}
}

func (a *app) tokenList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Your tokens, newest first", Args: cobra.NoArgs, Example: "  gradegate token list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(tokenTable(all))
		},
	}
}

func tokenTable(all []api.Token) result {
	return list(all, func(t api.Token) string { return t.ID }, "NAME\tKIND\tSTATE\tENDS\tLAST USED\tID", func(t api.Token) []string {
		used := "never"
		if t.LastUsed != nil {
			used = ago(t.LastUsed.At)
		}
		return []string{t.Name, t.Kind, t.State, t.Ends, used, t.ID}
	})
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
			return a.print(result{json: t, name: t.ID, table: func(w io.Writer) { tokenFacts(w, t) }})
		},
	}
}

func first(args []string, otherwise string) string {
	if len(args) > 0 {
		return args[0]
	}
	return otherwise
}

func (a *app) tokenPrint() *cobra.Command {
	return &cobra.Command{
		Use: "print", Short: "Print the token that this machine uses", Args: cobra.NoArgs, Example: "  gradegate token print",
		RunE: func(*cobra.Command, []string) error {
			if _, err := a.client(); err != nil {
				return err
			}
			if a.credential.secret == "" {
				return &api.Error{Problem: api.Problem{Status: 401, Code: "credential_missing", Detail: "Nobody is signed in here.", Fix: "gradegate login --invite CODE"}}
			}
			a.hint("From %s. Whoever has it can do what you can.", a.credential.from)
			_, err := fmt.Fprintln(a.stdout, a.credential.secret)
			return err
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
can be changed over. Jobs are not touched: they are yours, not the token's. If
it is the one that this machine has stored, its successor takes its place.`,
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
			// Whoever rotates what this machine uses wants to go on using this machine.
			own := made.Predecessor != nil && a.stored(client.BaseURL, made.Predecessor.ID)
			return a.printIssued(client, made, save || own)
		},
	}
	c.Flags().StringVar(&r.Grace, "grace", "", "how long the old one lives on: 0 to 7d (default 24h)")
	c.Flags().BoolVar(&r.Compromised, "compromised", false, "somebody else may have it: end the old one at once")
	c.Flags().BoolVar(&r.ReplaceUnused, "replace-unused", false, "its successor's secret was lost before it was used: make another")
	c.Flags().BoolVar(&save, "save", false, "use the successor on this machine from now on, instead of showing it")
	return c
}

func (a *app) tokenRevoke() *cobra.Command {
	var r api.RevokeToken
	c := &cobra.Command{
		Use: "revoke NAME|ID|self", Short: "End a token for good, at once", Args: cobra.ExactArgs(1),
		Example: "  gradegate token revoke laptop --jobs cancel-queued",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			out, err := client.RevokeToken(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			if u, err := a.server(); err == nil && a.data == "" && a.stored(u, out.Token.ID) {
				if err := a.forget(u); err == nil {
					a.hint("This machine has forgotten it.")
				}
			}
			if out.Already {
				a.hint("It was revoked before.")
			}
			return a.print(result{json: out, name: out.Token.ID, table: func(w io.Writer) { tokenFacts(w, out.Token) }})
		},
	}
	c.Flags().StringVar(&r.Jobs, "jobs", "", "its jobs: keep (default), cancel-queued or cancel")
	c.Flags().StringVar(&r.Reason, "reason", "", "why, for the audit trail")
	return c
}

func (a *app) tokenRevokeAll() *cobra.Command {
	var keep bool
	var user string
	c := &cobra.Command{
		Use: "revoke-all", Short: "End all of your tokens in one step", Args: cobra.NoArgs,
		Example: "  gradegate token revoke-all --keep-this\n  gradegate token revoke-all --user ann",
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
			}
			u, err := client.RevokeAllTokens(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.printUser(u)
		},
	}
	c.Flags().BoolVar(&keep, "keep-this", false, "keep the token that is used for this command")
	c.Flags().StringVar(&user, "user", "", "those of somebody else (for administrators)")
	c.MarkFlagsMutuallyExclusive("keep-this", "user")
	return c
}

func (a *app) tokenStanding(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME|ID", Short: short, Args: cobra.ExactArgs(1), Example: "  gradegate token " + verb + " laptop",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			do := client.SuspendToken
			if verb == "resume" {
				do = client.ResumeToken
			}
			t, err := do(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(result{json: t, name: t.ID, table: func(w io.Writer) { tokenFacts(w, t) }})
		},
	}
}

// leaksMax is how many tokens one report may hold.
const leaksMax = 1000

var tokenRE = regexp.MustCompile(token.Pattern)

// leaked are the tokens in a text, each once: those that have our form wherever
// they stand, or else, since an imported token has none, each line.
func leaked(text string) []string {
	found := tokenRE.FindAllString(text, -1)
	if len(found) == 0 {
		found = strings.Fields(text)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func (a *app) leakCmd() *cobra.Command {
	c := &cobra.Command{Use: "leak", Short: "Report leaked tokens"}
	var file string
	report := &cobra.Command{
		Use: "report", Short: "Report tokens that were seen where they do not belong; they die at once", Args: cobra.NoArgs,
		Long: `Reads a file or stdin and reports every token in it, wherever it stands: a log or a
notebook will do. Whoever holds a token may report it; no sign-in is needed. The
answer is the same whatever is reported.`,
		Example: "  gradegate leak report --file found.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			src := source{}
			var err error
			if file == "-" || file == "" {
				data, e := io.ReadAll(a.stdin)
				src.secret, err = string(data), e
			} else {
				src, err = a.fromFile(file, "--file")
			}
			if err != nil {
				return err
			}
			client, err := a.open()
			if err != nil {
				return err
			}
			found := leaked(src.secret)
			if len(found) == 0 {
				return fault.New(fault.Invalid, "leaks_none", "There is no token in it.").WithFix("Give the tokens themselves, whole.")
			}
			var out api.LeaksAccepted
			for part := range slices.Chunk(found, leaksMax) {
				answer, err := client.ReportLeaks(cmd.Context(), part)
				if err != nil {
					return err
				}
				answer.Accepted += out.Accepted
				out = answer
			}
			return a.print(result{json: out, name: fmt.Sprint(out.Accepted), table: func(w io.Writer) { fmt.Fprintln(w, out.Detail) }})
		},
	}
	report.Flags().StringVar(&file, "file", "-", "file with the tokens; - reads stdin")
	c.AddCommand(report)
	return c
}
