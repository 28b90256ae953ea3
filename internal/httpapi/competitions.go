package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"gradegate/api"
	"gradegate/internal/config"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
)

type (
	leaderboardIn struct {
		ByID
		Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Rows"`
	}
)

func (q *quotaIn) contest() string { return q.Competition }

func (a *API) listCompetitions(ctx context.Context, s *policy.Subject, _ *Paging) (api.Page[api.Competition], error) {
	page := api.Page[api.Competition]{Items: []api.Competition{}}
	list, err := a.Grading.Competitions(ctx, s)
	if err != nil {
		return page, err
	}
	for _, c := range list { // there are few: one page holds them all
		page.Items = append(page.Items, viewCompetition(c))
	}
	return page, nil
}

func (a *API) getCompetition(ctx context.Context, s *policy.Subject, in *ByID) (api.Competition, error) {
	c, err := a.Grading.Competition(ctx, s, in.ID)
	if err != nil {
		return api.Competition{}, err
	}
	return viewCompetition(c), nil
}

func (a *API) leaderboard(ctx context.Context, s *policy.Subject, in *leaderboardIn) (api.Leaderboard, error) {
	c, rows, err := a.Grading.Leaderboard(ctx, s, in.ID, in.Limit)
	if err != nil {
		return api.Leaderboard{}, err
	}
	out := api.Leaderboard{Competition: c.Name, Metric: c.Metrics[0], Rows: []api.LeaderboardRow{}}
	for i, r := range rows {
		name := a.Name(ctx, r.Owner)
		if name == "" {
			name = string(r.Owner)
		}
		rank := i + 1
		if i > 0 && r.Value == rows[i-1].Value {
			rank = out.Rows[i-1].Rank // equals share a rank
		}
		out.Rows = append(out.Rows, api.LeaderboardRow{
			Rank: rank, User: name, Value: r.Value, Scores: r.Job.Scores, Job: string(r.Job.ID), Submissions: r.Count, At: r.Job.EndedAt,
		})
	}
	return out, nil
}

// competitionFile sends a public file.
func (a *API) competitionFile(c *call, r *http.Request) error {
	f, err := a.Grading.File(r.Context(), &c.subject, r.PathValue("id"), r.PathValue("name"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("public file: %w", err)
	}
	h := c.Header()
	h.Set("Content-Type", "application/octet-stream") // never something that a browser would run
	h.Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	c.WriteHeader(http.StatusOK)
	if _, err := io.Copy(c, f); err != nil {
		return fmt.Errorf("sending a public file: %w", err)
	}
	return nil
}

// applyCompetition makes or changes a competition: part spec is its
// description, part files a bundle that may be left out if nothing of it changed.
func (a *API) applyCompetition(c *call, r *http.Request) error {
	version, err := ifMatch(r.Header.Get("If-Match"))
	if err != nil {
		return err
	}
	form, err := c.openForm(r, 4*grading.UploadLimit)
	if err != nil {
		return err
	}
	fields, err := form.fields("files")
	if err != nil {
		return err
	}
	spec := struct {
		api.Competition
		Open *bool `json:"open"` // not said is not the same as closed
	}{}
	if err := decodeStrictly([]byte(fields.one("spec")), &spec); err != nil {
		return err
	}
	if err := fields.only("spec"); err != nil {
		return err
	}
	spec.Competition.Open = spec.Open == nil || *spec.Open
	want, err := readCompetition(spec.Competition, r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := c.begin(r.Context()); err != nil {
		return err
	}
	var files io.Reader
	if form.file != nil {
		files = form
	}
	made, err := a.Grading.Apply(r.Context(), &c.subject, want, files, version)
	if err != nil && version != 0 && fault.CodeOf(err) == "version_moved" {
		err = fault.New(fault.Conflict, "precondition_failed", "It was changed by somebody else meanwhile.").WithFix("Read it again, and apply the change to what is there now.")
	}
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, viewCompetition(made))
}

// readCompetition turns what a client says into a competition. What the server
// decides (times, versions) is taken from nobody.
func readCompetition(in api.Competition, name string) (grading.Competition, error) {
	if in.Name != "" && in.Name != name {
		return grading.Competition{}, fault.New(fault.Invalid, "name_differs", "The name in the spec is not the one in the path.").WithFix("Leave the name out of the spec.")
	}
	c := grading.Competition{
		Name: name, Project: in.Project, Title: in.Title, Description: in.Description, Metrics: in.Metrics, Accept: in.Accept, Public: in.Files,
		PerDay: in.Quota.PerDay, Concurrent: in.Quota.Concurrent, Open: in.Open,
		Resources: job.Resources{GPUs: in.Resources.GPUs, CPUs: in.Resources.CPUs, Processes: in.Resources.Processes},
	}
	var err error
	size := func(text, what string, into *int64) {
		if text == "" || err != nil {
			return
		}
		if *into, err = config.ParseBytes(text); err != nil {
			err = fault.New(fault.Invalid, "size_invalid", "resources.%s is no size.", what).WithFix("Write it as 256MiB or 4GiB.")
		}
	}
	size(in.Resources.Memory, "memory", &c.Resources.MemoryBytes)
	size(in.Resources.Output, "output", &c.Resources.OutputBytes)
	size(in.Resources.Log, "log", &c.Resources.LogBytes)
	if err != nil {
		return c, err
	}
	c.Resources.TimeLimit, err = duration(in.Resources.TimeLimit)
	return c, err
}
