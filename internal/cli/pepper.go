package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"gradegate/internal/keys"
)

func (a *app) pepperCmd() *cobra.Command {
	c := &cobra.Command{Use: "pepper", Short: "Keys that go into the digests of secrets (for operators)"}
	c.AddCommand(&cobra.Command{
		Use: "add FILE", Args: cobra.ExactArgs(1),
		Short: "Add a new pepper to a pepper file, or make the file",
		Long: `A pepper is a key outside of the database that goes into what is kept of every
secret: whoever has the database alone can then not even tell whether a secret is
in it. Name the file with pepper_file in the configuration and start the server
again. What is new is kept under the newest pepper, and older tokens when they
are used. Keep the file on every server, and in a backup of its own: without its
pepper a secret never works again.`,
		Example: "  gradegate pepper add ./pepper",
		RunE: func(_ *cobra.Command, args []string) error {
			version, err := keys.AddPepper(args[0])
			if err != nil {
				return err
			}
			return a.print(result{
				json: map[string]any{"file": args[0], "version": version}, name: args[0],
				table: func(w io.Writer) {
					fmt.Fprintf(w, "Pepper %d is in %s. It is in force when the server is started again with pepper_file: %s\n", version, args[0], args[0])
				},
			})
		},
	})
	return c
}
