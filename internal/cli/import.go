package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

// importBatch is how many tokens go to the server at a time.
const importBatch = 500

func (a *app) tokenImport() *cobra.Command {
	var table string
	var cols columns
	var ask api.ImportTokens
	c := &cobra.Command{
		Use: "import FILE", Short: "Take over the tokens of an earlier system (for administrators)", Args: cobra.ExactArgs(1),
		Long: `Takes over the tokens of an earlier system from a table of users and SHA-256 digests: a
CSV with a header, or a SQLite file. They go on under their old secrets, as kind
legacy, with clocks as other tokens have; one without an end gets one, 30 to 90 days
from now, so that not all end on one day. Their owners give them a successor with
gradegate token rotate. A secret of fewer than 16 characters is never accepted, and
nobody can tell that from its digest. Run it on the server's machine; repeated, it goes on where it
stopped.`,
		Example: "  gradegate token import tokens.csv --data gradegate-data --create-users --dry-run\n" +
			"  gradegate token import tokens.csv --data gradegate-data --create-users\n" +
			"  gradegate token import old.db --data gradegate-data --table api_tokens --user login --create-users",
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := readTable(cmd.Context(), args[0], table, cols)
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			out := api.Imports{DryRun: ask.DryRun, Items: []api.ImportedToken{}}
			line := a.progress()
			for part := range slices.Chunk(list, importBatch) {
				line.show("%d of %d tokens", len(out.Items), len(list))
				ask.Tokens = part
				done, err := client.ImportTokens(cmd.Context(), ask)
				if err != nil {
					line.done()
					return err
				}
				out.Items = append(out.Items, done.Items...)
			}
			line.done()
			return a.printImports(out)
		},
	}
	f := c.Flags()
	f.StringVar(&table, "table", "tokens", "table of a SQLite file")
	f.StringVar(&cols.user, "user", "", "column with the user's name (found by itself if it has a usual name)")
	f.StringVar(&cols.sha256, "sha256", "", "column with SHA-256 of the secret, as hexadecimal digits or 32 bytes")
	f.StringVar(&cols.name, "name", "", "column with the token's name")
	f.StringVar(&cols.expires, "expires", "", "column with its end")
	f.BoolVar(&ask.CreateUsers, "create-users", false, "also make users that do not exist")
	f.BoolVar(&ask.DryRun, "dry-run", false, "say what would be done, and do nothing")
	return c
}

func (a *app) printImports(out api.Imports) error {
	n := map[string]int{}
	users := 0
	var ids []string
	for _, i := range out.Items {
		n[i.Outcome]++
		if i.NewUser {
			users++
		}
		if i.Outcome == "imported" && !out.DryRun {
			ids = append(ids, i.TokenID)
		}
	}
	return a.print(result{json: out, name: strings.Join(ids, "\n"), table: func(w io.Writer) {
		for _, i := range out.Items {
			if i.Outcome == "refused" {
				fmt.Fprintf(w, "refused\t%s\t%s %s\n", clean(i.User), clean(i.Detail), clean(i.Fix))
			}
		}
		verb := pick(n["imported"], "was", "were") + " imported"
		if out.DryRun {
			verb = "would be imported"
		}
		fmt.Fprintf(w, "%d %s, for %s; %d known already, %d refused.\n", n["imported"], verb, count(users, "new user"), n["known"], n["refused"])
	}})
}
