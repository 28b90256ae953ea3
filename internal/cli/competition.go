package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"gradegate/api"
	"gradegate/internal/fault"
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
			return a.print(list(all, func(c api.Competition) string { return c.Name }, "NAME\tTITLE\tMETRIC\tACCEPTS\tOPEN", func(c api.Competition) []string {
				return []string{c.Name, c.Title, strings.Join(c.Metrics, ", "), strings.Join(c.Accept, ", "), fmt.Sprint(c.Open)}
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
		facts(w, "name", c.Name, "title", c.Title, "about", c.Description, "metrics", strings.Join(c.Metrics, ", "), "accepts", strings.Join(c.Accept, ", "),
			"files", strings.Join(c.Files, ", "), "each job", fmt.Sprintf("%d GPU, %d CPU, %s memory, %s", r.GPUs, r.CPUs, r.Memory, r.TimeLimit),
			"each user", fmt.Sprintf("%s a day, %s at a time", limit(c.Quota.PerDay), limit(c.Quota.Concurrent)), "open", fmt.Sprint(c.Open))
	}})
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

// competitionFile is competition.yaml in the folder of a competition.
type competitionFile struct {
	Name        string   `yaml:"name"`
	Title       string   `yaml:"title"`
	Description string   `yaml:"description"`
	Metrics     []string `yaml:"metrics"`
	RankBy      string   `yaml:"rank_by"` // the metric of the leaderboard; default: the first one
	Public      []string `yaml:"public"`
	Accept      []string `yaml:"accept"`
	Resources   struct {
		GPUs      int    `yaml:"gpus"`
		CPUs      int    `yaml:"cpus"`
		Memory    string `yaml:"memory"`
		TimeLimit string `yaml:"time_limit"`
		Output    string `yaml:"output"`
		Log       string `yaml:"log"`
		Processes int    `yaml:"processes"`
	} `yaml:"resources"`
	Quota struct {
		PerDay     int `yaml:"per_day"`
		Concurrent int `yaml:"concurrent"`
	} `yaml:"quota"`
	Open bool `yaml:"open"`
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
			made, err := client.ApplyCompetition(cmd.Context(), spec, pack)
			if err != nil {
				return err
			}
			return a.printCompetition(made)
		},
	}
}

func readCompetition(dir string) (api.Competition, error) {
	path := filepath.Join(dir, "competition.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return api.Competition{}, fault.Wrap(fault.Invalid, "competition_file", fmt.Sprintf("%s cannot be read: %v.", path, err), err).
			WithFix("See examples/iris/competition.yaml for how it looks.")
	}
	f := competitionFile{Open: true}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return api.Competition{}, fault.Wrap(fault.Invalid, "competition_file", fmt.Sprintf("%s: %s.", path, strings.TrimPrefix(err.Error(), "yaml: ")), err).
			WithFix("See examples/iris/competition.yaml for how it looks.")
	}
	if f.RankBy != "" {
		i := slices.Index(f.Metrics, f.RankBy)
		if i < 0 {
			return api.Competition{}, fault.New(fault.Invalid, "competition_file", "%s: rank_by names %s, which is none of the metrics.", path, f.RankBy).
				WithFix("metrics: [%s]", f.RankBy)
		}
		f.Metrics = append([]string{f.RankBy}, slices.Delete(f.Metrics, i, i+1)...) // the first one ranks
	}
	r := f.Resources
	return api.Competition{
		Name: f.Name, Title: f.Title, Description: f.Description, Metrics: f.Metrics, Accept: f.Accept, Files: f.Public, Open: f.Open,
		Resources: api.Resources{GPUs: r.GPUs, CPUs: r.CPUs, Memory: r.Memory, TimeLimit: r.TimeLimit, Output: r.Output, Log: r.Log, Processes: r.Processes},
		Quota:     api.QuotaRule{PerDay: f.Quota.PerDay, Concurrent: f.Quota.Concurrent},
	}, nil
}

// packCompetition packs the listed public files and the hidden folder, and
// nothing else that may lie beside them.
func packCompetition(dir string, public []string) (func() (io.ReadCloser, error), error) {
	if len(public) == 0 {
		open, _, _, err := opener(dir)
		return open, err
	}
	tmp, err := os.MkdirTemp("", "gradegate-competition-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	for _, p := range append(public, "hidden/labels.csv") {
		if !filepath.IsLocal(p) {
			return nil, fmt.Errorf("the list of public files names %s, which is outside of the folder", p)
		}
		data, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return nil, fmt.Errorf("the competition needs %s: %w", p, err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tmp, p)), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(tmp, p), data, 0o600); err != nil {
			return nil, err
		}
	}
	open, _, _, err := opener(tmp)
	return open, err
}
