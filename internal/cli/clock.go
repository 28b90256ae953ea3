package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) clockCmd() *cobra.Command {
	c := &cobra.Command{Use: "clock", Short: "The time that the server goes by (for administrators)"}
	act := func(verb, short, long string, do func(*api.Client, context.Context) (api.Clock, error)) *cobra.Command {
		return &cobra.Command{
			Use: verb, Short: short, Long: long, Args: cobra.NoArgs, Example: "  gradegate clock " + verb + " --data gradegate-data",
			RunE: func(cmd *cobra.Command, _ []string) error {
				client, err := a.client()
				if err != nil {
					return err
				}
				t, err := do(client, cmd.Context())
				if err != nil {
					return err
				}
				return a.print(result{json: t, table: func(w io.Writer) {
					believed := "yes"
					if !t.Believed {
						believed = "no: it has leapt ahead"
					}
					facts(w, "the server goes by", when(&t.Now), "the machine says", when(t.Wall), "believed", believed)
				}})
			},
		}
	}
	c.AddCommand(
		act("show", "What time it is, and whether the machine's clock is believed", "", (*api.Client).Clock),
		act("confirm", "Believe a clock that has leapt ahead", `When the machine's clock leaps ahead by more than ten minutes and nothing such as NTP
vouches for it, the server goes on from the time that it knew: nothing expires and
nothing is deleted because of the leap. If the machine is right, confirm it.`, (*api.Client).ConfirmClock))
	return c
}
