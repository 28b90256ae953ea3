package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) blockCmd() *cobra.Command {
	c := &cobra.Command{Use: "block", Short: "Addresses whose failed attempts are refused (for administrators)"}
	c.AddCommand(a.blockList(), a.blockAdd(), a.blockRemove())
	return c
}

func (a *app) blockList() *cobra.Command {
	var offenders bool
	c := &cobra.Command{
		Use: "list", Short: "All blocks: why, until when, and what they refused", Args: cobra.NoArgs,
		Long: `Lists the blocks that are in force, the newest first: those that administrators made,
and those that began by themselves because an address went on failing after its
budget of failures was spent. Those are each node's own, and so are the counts.
--offenders lists the sources that fail most instead, blocked or not.`,
		Example: "  gradegate block list\n  gradegate block list --offenders",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Blocks(cmd.Context())
			if err != nil {
				return err
			}
			r := blockResult(all.Items)
			if offenders {
				r = offenderResult(all.Offenders)
			}
			r.json = all
			return a.print(r)
		},
	}
	c.Flags().BoolVar(&offenders, "offenders", false, "the sources that fail most")
	return c
}

func blockResult(all []api.Block) result {
	return list(all, func(b api.Block) string { return b.Address }, "ADDRESS\tWHY\tSINCE\tUNTIL\tFAILURES\tLAST", func(b api.Block) []string {
		last := "-"
		if b.LastFailure != nil {
			last = ago(*b.LastFailure)
		}
		return []string{b.Address, whyBlocked(b), when(&b.Since), when(&b.Until), strconv.FormatInt(b.Failures, 10), last}
	})
}

// whyBlocked is why and by whom an address is blocked.
func whyBlocked(b api.Block) string {
	switch {
	case b.Automatic && b.Times > 1:
		return fmt.Sprintf("went on failing, %d times in a row", b.Times)
	case b.Automatic:
		return "went on failing"
	case b.Note != "":
		return b.Note + ", by " + cmp.Or(b.Creator, b.CreatedBy)
	}
	return "by " + cmp.Or(b.Creator, b.CreatedBy)
}

func offenderResult(all []api.Offender) result {
	return list(all, func(o api.Offender) string { return o.Address }, "ADDRESS\tFAILURES\tSINCE\tLAST", func(o api.Offender) []string {
		return []string{o.Address, strconv.FormatInt(o.Failures, 10), when(&o.Since), ago(o.Last)}
	})
}

func (a *app) blockAdd() *cobra.Command {
	var r api.AddBlock
	c := &cobra.Command{
		Use: "add ADDRESS|NETWORK", Short: "Refuse the failed attempts of an address or network", Args: cobra.ExactArgs(1),
		Long: `Refuses the failed attempts of an address or network, on every node at once. Whoever
holds a valid token there is served as before: to end a token, revoke it. A block
of the same network is replaced.`,
		Example: `  gradegate block add 192.0.2.7 --note scanner
  gradegate block add 2001:db8::/48 --expires 7d`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			r.Address = args[0]
			b, err := client.AddBlock(cmd.Context(), r)
			if err != nil {
				return err
			}
			a.hint("To unblock it: gradegate block remove %s", b.Address)
			one := blockResult([]api.Block{b})
			one.json = b
			return a.print(one)
		},
	}
	f := c.Flags()
	f.StringVar(&r.ExpiresIn, "expires", "", "how long, such as 7d; default 1d")
	f.StringVar(&r.Note, "note", "", "why, for the list and the audit trail")
	f.BoolVar(&r.Force, "force", false, "accept a network that you are in yourself")
	return c
}

func (a *app) blockRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove ADDRESS|NETWORK", Short: "Unblock an address or network, at once", Args: cobra.ExactArgs(1),
		Long: `Ends the block of an address or network, and on every node the automatic ones that
touch it. A wider block that somebody made stands, and is named.`,
		Example: "  gradegate block remove 192.0.2.7",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			out, err := client.RemoveBlock(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			names := []string{}
			for _, b := range out.Removed {
				names = append(names, b.Address)
			}
			if len(names) == 0 {
				a.hint("Nothing was blocked there on this node. If another node had blocked it, it is free there too.")
			}
			return a.print(result{json: out, name: strings.Join(names, "\n"), table: func(w io.Writer) {
				for _, b := range out.Removed {
					facts(w, "unblocked", b.Address, "it was", whyBlocked(b), "since", when(&b.Since), "refused", count(int(b.Failures), "failure"))
				}
			}})
		},
	}
}
