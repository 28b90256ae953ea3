package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) holdCmd() *cobra.Command {
	c := &cobra.Command{Use: "hold", Short: "Legal holds: what must not be archived or deleted (for administrators)"}
	c.AddCommand(a.holdAdd(), a.holdList(), a.holdRemove())
	return c
}

func (a *app) holdAdd() *cobra.Command {
	var r api.AddHold
	var until string
	c := &cobra.Command{
		Use: "add USER|TOKEN|COMPETITION", Short: "Keep what belongs to a user, token or competition", Args: cobra.ExactArgs(1),
		Long: `As long as the hold is in force nothing that belongs to its subject is archived, reduced
or deleted, and neither is the part of the trail that tells of it. A token is named by its
id; where a user and a competition share a name: user:NAME or competition:NAME.`,
		Example: `  gradegate hold add ann --reason case-4711
  gradegate hold add competition:iris --reason case-4711 --until 2031-01-01T00:00:00Z`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if r.Until, err = instant(until, cmd); err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			r.Subject = args[0]
			h, err := client.AddHold(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.printHold(h)
		},
	}
	c.Flags().StringVar(&r.Reason, "reason", "", "why, for whoever looks at it later (required)")
	c.Flags().StringVar(&until, "until", "", "when it ends by itself, such as 2031-01-01T00:00:00Z; default: never")
	_ = c.MarkFlagRequired("reason")
	return c
}

func (a *app) holdList() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "list", Short: "The holds that are in force", Args: cobra.NoArgs, Example: "  gradegate hold list --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			found, err := client.Holds(cmd.Context(), all)
			if err != nil {
				return err
			}
			return a.print(list(found.Items, func(h api.Hold) string { return h.ID }, "HOLD\tON\tREASON\tSINCE\tUNTIL", func(h api.Hold) []string {
				until := orDash(when(h.Until))
				if h.RemovedAt != nil {
					until = "removed " + when(h.RemovedAt)
				}
				return []string{h.ID, h.Kind + " " + h.Name, h.Reason, when(&h.CreatedAt), until}
			}))
		},
	}
	c.Flags().BoolVar(&all, "all", false, "those that are over as well")
	return c
}

func (a *app) holdRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove HOLD", Short: "End a hold; its record stays", Args: cobra.ExactArgs(1), Example: "  gradegate hold remove HOLD",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			h, err := client.RemoveHold(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printHold(h)
		},
	}
}

func (a *app) printHold(h api.Hold) error {
	return a.print(result{json: h, name: h.ID, table: func(w io.Writer) {
		state := "in force"
		if !h.Active {
			state = "over"
		}
		facts(w, "hold", h.ID, "on", fmt.Sprintf("%s %s (%s)", h.Kind, orDash(h.Name), h.SubjectID), "reason", h.Reason, "state", state,
			"since", when(&h.CreatedAt), "until", when(h.Until), "removed", when(h.RemovedAt))
	}})
}
