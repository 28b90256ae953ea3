package grading

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/score"
)

// predictionsFile is what a program leaves in its output folder, and what a
// file of predictions is stored as.
const predictionsFile = "predictions.csv"

// labelsFile is the hidden truth of a competition.
const labelsFile = "labels.csv"

// grade scores what a job left behind. It runs after the program has ended, on
// its output alone.
func (g *Grading) grade(ctx context.Context, j job.Job) error {
	c, err := g.Store.Competition(ctx, j.Competition)
	if err != nil {
		return err
	}
	scores, err := g.score(c, j.ID)
	var f *fault.Error
	switch {
	case err == nil:
	case errors.As(err, &f) && f.Kind == fault.Invalid:
		return g.finish(ctx, j, job.Failed, f.Code, f.Detail, nil)
	case errors.As(err, &f) && f.Kind == fault.Unavailable:
		return err
	default:
		g.Config.Log.Error("scoring", "job", j.ID, "error", err)
		return g.finish(ctx, j, job.Failed, "internal", "The grade could not be computed; this costs no quota.", nil)
	}
	return g.finish(ctx, j, job.Succeeded, "", "", scores)
}

func (g *Grading) finish(ctx context.Context, j job.Job, to job.State, reason, detail string, scores map[string]float64) error {
	next, err := j.To(to, reason, detail, g.Now())
	if err != nil {
		return err
	}
	next.Scores = scores
	if err := g.replace(ctx, j, next); err != nil {
		return err
	}
	return g.Executor.Forget(ctx, j.ID)
}

// score compares the predictions of a job with the hidden labels.
func (g *Grading) score(c Competition, id job.ID) (map[string]float64, error) {
	truth, err := os.Open(filepath.Join(g.files.competitionDir(c.Name, c.Files), "hidden", labelsFile))
	if err != nil {
		return nil, fmt.Errorf("hidden labels of %s: %w", c.Name, err)
	}
	defer func() { _ = truth.Close() }()
	predictions, err := g.files.openOutput(id, predictionsFile)
	if err != nil {
		return nil, err
	}
	defer func() { _ = predictions.Close() }()
	grade, err := score.Grade(truth, predictions, c.Metrics)
	if err != nil {
		return nil, err
	}
	out := make(map[string]float64, len(grade.Scores))
	for _, s := range grade.Scores {
		out[s.Metric] = s.Value
	}
	return out, nil
}
