package grading

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/bundle"
	"gradegate/internal/fault"
	"gradegate/internal/job"
)

// The kinds of submissions.
const (
	Program     = "program"
	Predictions = "predictions"
)

// UploadLimit bounds one submission, in bytes as uploaded.
const UploadLimit = 256 << 20

// receive checks an upload: it is unpacked into the job's folder, and its kind
// and entry point are found. A file of predictions is checked against the
// hidden rows at once, so that a mistake in it is told now and costs no quota.
func (g *Grading) receive(c Competition, id job.ID, u Upload, file *upload, now time.Time) (sub Submission, err error) {
	defer func() { _ = file.Close() }()
	sub = Submission{ID: g.NewID("sub_"), Competition: c.Name, Digest: file.digest, Size: file.size, Name: fileName(u.Name), CreatedAt: now}
	work, err := g.files.makeJob(id)
	if err != nil {
		return sub, err
	}
	defer func() { _ = work.Close() }()
	manifest, err := bundle.Unpack(work, sub.Name, file.File, file.size, bundle.DefaultLimits)
	if err != nil {
		return sub, err
	}
	sub.Kind = kindOf(manifest)
	switch {
	case !slices.Contains(c.Accept, sub.Kind):
		err = fault.New(fault.Invalid, "kind_not_accepted", "The competition %s takes %s, and this is %s.",
			c.Name, strings.Join(c.Accept, " or "), article(sub.Kind)).With("accepts", c.Accept).WithFix("gradegate competition show %s", c.Name)
	case sub.Kind == Predictions:
		err = g.takePredictions(c, id, manifest)
	default:
		if sub.Entry, err = bundle.EntryPoint(manifest, u.Entry); err == nil {
			err = bundle.Startable(work, manifest, sub.Entry)
		}
		if err == nil {
			err = g.files.giveData(id, c)
		}
	}
	return sub, err
}

// takePredictions moves the file to where the scorer looks, and scores it once
// to find its mistakes.
func (g *Grading) takePredictions(c Competition, id job.ID, m bundle.Manifest) error {
	dir := g.files.jobDir(id)
	if err := os.Rename(filepath.Join(dir, "work", m.Files[0].Path), filepath.Join(dir, "output", predictionsFile)); err != nil {
		return noSpace(err)
	}
	_, err := g.score(c, id)
	return err
}

// kindOf tells predictions from a program: one CSV file is predictions.
func kindOf(m bundle.Manifest) string {
	if len(m.Files) == 1 && strings.HasSuffix(strings.ToLower(m.Files[0].Path), ".csv") {
		return Predictions
	}
	return Program
}

func article(kind string) string {
	if kind == Program {
		return "a program"
	}
	return "a predictions file"
}

// fileName is the last part of what the client calls its file, cleaned.
func fileName(s string) string {
	s = strings.ReplaceAll(s, "\\", "/")
	s = audit.Clean(filepath.Base(s), 100)
	if s == "." || s == "/" || s == "" {
		return "submission"
	}
	return s
}
