package cli

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"gradegate/api"
)

func (a *app) competitionCmd() *cobra.Command {
	c := &cobra.Command{Use: "competition", Short: "Competitions: what can be handed in, and who is ahead"}
	c.AddCommand(a.competitionList(), a.competitionShow(), a.competitionApply(), a.leaderboard())
	return c
}

func (a *app) competitionList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "All competitions", Args: cobra.NoArgs, Example: "  gradegate competition list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			all, err := client.Competitions(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(list(all, func(c api.Competition) string { return c.Name }, "NAME\tTITLE\tRANKED BY\tACCEPTS\tOPEN", func(c api.Competition) []string {
				return []string{c.Name, c.Title, first(c.Metrics, "-"), strings.Join(c.Accept, ", "), yesNo(c.Open)}
			}))
		},
	}
}

func (a *app) competitionShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "One competition", Args: cobra.ExactArgs(1), Example: "  gradegate competition show iris",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			c, err := client.CompetitionByName(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printCompetition(c)
		},
	}
}

func (a *app) printCompetition(c api.Competition) error {
	return a.print(result{json: c, name: c.Name, table: func(w io.Writer) {
		r := c.Resources
		facts(w, "name", c.Name, "project", c.Project, "title", c.Title, "about", c.Description, "metrics", strings.Join(c.Metrics, ", "), "accepts", strings.Join(c.Accept, ", "),
			"files", strings.Join(c.Files, ", "), "each job", fmt.Sprintf("%s, %s, %s memory, %s at most", count(r.GPUs, "GPU"), count(r.CPUs, "CPU"), r.Memory, r.TimeLimit),
			"each user", fmt.Sprintf("%s a day, %s at a time", limit(c.Quota.PerDay), limit(c.Quota.Concurrent)), "takes submissions", yesNo(c.Open))
	}})
}

// changed are the parts of a competition's description that are not as they were.
func changed(old, now api.Competition) (parts []string) {
	for _, p := range []struct {
		name     string
		old, now any
	}{
		{"project", old.Project, now.Project},
		{"title", old.Title, now.Title},
		{"description", old.Description, now.Description},
		{"metrics", old.Metrics, now.Metrics},
		{"accept", old.Accept, now.Accept},
		{"public", old.Files, now.Files},
		{"resources", old.Resources, now.Resources},
		{"quota", old.Quota, now.Quota},
		{"open", old.Open, now.Open},
	} {
		if !reflect.DeepEqual(p.old, p.now) {
			parts = append(parts, p.name)
		}
	}
	return parts
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func limit(n int) string {
	if n == 0 {
		return "no limit"
	}
	return fmt.Sprint(n)
}

func (a *app) leaderboard() *cobra.Command {
	return &cobra.Command{
		Use: "leaderboard NAME", Short: "The best of each user", Args: cobra.ExactArgs(1), Example: "  gradegate competition leaderboard iris",
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			b, err := client.Leaderboard(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(result{json: b, name: b.Competition, table: func(w io.Writer) {
				fmt.Fprintf(w, "RANK\tUSER\t%s\tSUBMISSIONS\tJOB\n", clean(strings.ToUpper(b.Metric)))
				for _, r := range b.Rows {
					fmt.Fprintf(w, "%d\t%s\t%.4f\t%d\t%s\n", r.Rank, clean(r.User), r.Value, r.Submissions, clean(r.Job))
				}
			}})
		},
	}
}

func (a *app) competitionApply() *cobra.Command {
	return &cobra.Command{
		Use: "apply DIR", Short: "Make a competition from a folder, or change it (for administrators)", Args: cobra.ExactArgs(1),
		Long: `Reads DIR/competition.yaml, and sends the folder's public files and
hidden/labels.csv. Doing it again changes the competition to what the folder says.`,
		Example: "  gradegate competition apply examples/iris",
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := readCompetition(args[0])
			if err != nil {
				return err
			}
			client, err := a.client()
			if err != nil {
				return err
			}
			pack, err := packCompetition(args[0], spec.Files)
			if err != nil {
				return err
			}
			before, err := client.CompetitionByName(cmd.Context(), spec.Name)
			if err != nil && !isMissing(err) {
				return err
			}
			known := err == nil
			made, err := client.ApplyCompetition(cmd.Context(), spec, pack)
			if err != nil {
				return err
			}
			switch changes := changed(before, made); {
			case !known:
				a.hint("Created.")
			case len(changes) > 0:
				a.hint("Changed: %s. Its files were replaced by those of the folder.", strings.Join(changes, ", "))
			default:
				a.hint("Its description is unchanged. Its files were replaced by those of the folder.")
			}
			return a.printCompetition(made)
		},
	}
}
