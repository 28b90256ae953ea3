package cli

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/token"
)

// leaksMax is how many tokens one report may hold.
const leaksMax = 1000

var tokenRE = regexp.MustCompile(token.Pattern)

// leaked are the tokens in a text, each once, wherever they stand; damaged
// counts what looks like one and has a wrong checksum.
func leaked(text string) (found []string, damaged int) {
	all := tokenRE.FindAllString(text, -1)
	slices.Sort(all)
	for _, t := range slices.Compact(all) {
		if _, err := token.Parse(t); err != nil {
			damaged++
			continue
		}
		found = append(found, t)
	}
	return found, damaged
}

// wordsOf are all words of a text, each once: an imported token has no form of
// ours by which it could be told from them.
func wordsOf(text string) []string {
	all := strings.Fields(text)
	slices.Sort(all)
	return slices.Compact(all)
}

func noTokens(text string, damaged int) error {
	detail := fmt.Sprintf("There is no token of gradegate's in it (%s read), so nothing was reported.", count(len(strings.Split(strings.TrimRight(text, "\n"), "\n")), "line"))
	if strings.TrimSpace(text) == "" {
		detail = "There is no token in it: it is empty."
	}
	if damaged > 0 {
		detail = fmt.Sprintf("Nothing was reported: %s, but with a wrong checksum. Probably a character was changed when it was copied.",
			count(damaged, "word looks like a token", "words look like tokens"))
	}
	return fault.New(fault.Invalid, "leaks_none", "%s", detail).
		WithFix("Give the tokens themselves, whole: they begin with ggpat_, ggses_, ggsvc_ or the like. For imported ones, which have no such form: --words")
}

func (a *app) leakCmd() *cobra.Command {
	c := &cobra.Command{Use: "leak", Short: "Report leaked tokens"}
	var file string
	var every bool
	report := &cobra.Command{
		Use: "report", Short: "Report tokens that were seen where they do not belong; they are stopped at once", Args: cobra.NoArgs,
		Long: `Reads a file, or without one stdin, and reports every token in it, wherever it stands: a log or a
notebook will do. Whoever holds a token may report it; no sign-in is needed. The
answer is the same for real tokens and for invented ones. Imported tokens have no
form by which they are found: list them alone in a file, and use --words.`,
		Example: "  gradegate leak report --file found.txt\n  gradegate leak report --file imported.txt --words",
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := a.readFileOrStdin(file, "--file")
			if err != nil {
				return err
			}
			found, damaged := leaked(text)
			if every {
				found = wordsOf(text)
			}
			if len(found) == 0 {
				return noTokens(text, damaged)
			}
			client, err := a.open()
			if err != nil {
				return err
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
			if damaged > 0 && !every {
				a.warn("%s, but with a wrong checksum, and %s not reported", count(damaged, "word looks like a token", "words look like tokens"), pick(damaged, "was", "were"))
			}
			a.hint("Reported: %s.", count(len(found), "token"))
			return a.print(result{json: out, name: fmt.Sprint(out.Accepted), table: func(w io.Writer) { fmt.Fprintln(w, clean(out.Detail)) }})
		},
	}
	report.Flags().StringVar(&file, "file", "-", "file with the tokens; - reads stdin")
	report.Flags().BoolVar(&every, "words", false, "report each word of it as a token: for imported tokens")
	c.AddCommand(report)
	return c
}

// readFileOrStdin reads what a flag names; - and nothing are stdin.
func (a *app) readFileOrStdin(file, flag string) (string, error) {
	if file == "-" || file == "" {
		if a.typed {
			a.hint("Waiting for lines on stdin; Ctrl-D ends them.")
		}
		data, err := io.ReadAll(a.stdin)
		return string(data), err
	}
	text, err := readFile(file, flag)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		err = f.WithFix("Name a file that is there with %s; or with %s - its content comes on stdin.", flag, flag)
	}
	return text, err
}
