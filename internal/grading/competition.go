package grading

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/bundle"
	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/score"
)

func (g *Grading) competition(ctx context.Context, name string) (Competition, error) {
	c, err := g.Store.Competition(ctx, name)
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return c, fault.New(fault.NotFound, "competition_not_found", "There is no such competition.").
			WithFix("gradegate competition list")
	}
	return c, err
}

// Competitions lists what there is, by name.
func (g *Grading) Competitions(ctx context.Context, s *policy.Subject) ([]Competition, error) {
	if err := policy.Decide(s, policy.CompetitionGet, policy.Resource{}); err != nil {
		return nil, err
	}
	all, err := g.Store.Competitions(ctx)
	return slices.DeleteFunc(all, func(c Competition) bool { return outside(s, c.Name) }), err
}

// outside reports whether the subject's token is limited to other competitions.
func outside(s *policy.Subject, name string) bool {
	return len(s.Competitions) > 0 && !slices.Contains(s.Competitions, name)
}

// Competition gives one of them.
func (g *Grading) Competition(ctx context.Context, s *policy.Subject, name string) (Competition, error) {
	if err := policy.Decide(s, policy.CompetitionGet, policy.Resource{Competition: name}); err != nil {
		return Competition{}, err
	}
	return g.competition(ctx, name)
}

// File is an open public file of a competition. Close gives its place to the
// next one.
type File struct {
	*os.File
	once    sync.Once
	release func()
}

// Close closes the file.
func (f *File) Close() error {
	err := f.File.Close()
	f.once.Do(f.release)
	return err
}

// File opens a public file of a competition. One user may have a number of
// them open at a time; more are Limited.
func (g *Grading) File(ctx context.Context, s *policy.Subject, name, file string) (*File, error) {
	c, err := g.Competition(ctx, s, name)
	if err != nil {
		return nil, err
	}
	missing := fault.New(fault.NotFound, "file_not_found", "The competition has no such file.").WithFix("gradegate competition show %s", c.Name)
	if !slices.Contains(c.Public, file) {
		return nil, missing
	}
	root, err := os.OpenRoot(filepath.Join(g.files.competitionDir(c.Name, c.Files), "public"))
	if err != nil {
		return nil, missing.Caused(err)
	}
	defer func() { _ = root.Close() }()
	release, err := g.downloads.take(s)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(file)
	if err != nil {
		release()
		return nil, missing.Caused(err)
	}
	return &File{File: f, release: release}, nil
}

// Apply makes a competition, or changes it. body is a bundle with the public
// files and hidden/labels.csv; nil keeps the files as they are. version, if not
// zero, must be the one that stands.
func (g *Grading) Apply(ctx context.Context, s *policy.Subject, c Competition, body io.Reader, version int64) (Competition, error) {
	if err := policy.Decide(s, policy.CompetitionSet, policy.Resource{Competition: c.Name}); err != nil {
		return Competition{}, err
	}
	c, err := checked(c)
	if err != nil {
		return Competition{}, err
	}
	old, err := g.Store.Competition(ctx, c.Name)
	known := err == nil
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return Competition{}, err
	}
	if version != 0 && (!known || old.Version != version) {
		return Competition{}, fault.New(fault.Conflict, "version_moved", "The competition was changed by somebody else meanwhile.").
			WithFix("gradegate competition show %s", c.Name)
	}
	switch {
	case body != nil:
		if c.Files, c.Public, err = g.takeFiles(c, body); err != nil {
			return Competition{}, err
		}
	case known:
		c.Files, c.Public = old.Files, old.Public
	default:
		return Competition{}, fault.New(fault.Invalid, "files_missing", "A new competition needs its files.").
			WithFix("gradegate competition apply DIR")
	}
	now := g.Now()
	c.Version, c.CreatedAt, c.ChangedAt = 1, now, now
	e := g.event(s, audit.CompetitionApply, now)
	e.Target, e.Detail = c.Name, map[string]string{"files": c.Files}
	if s.Token != "" {
		// The upload took its time: the token must still be good now.
		release, err := g.Gate.Admit(s)
		if err != nil {
			return Competition{}, err
		}
		defer release()
	}
	if !known {
		return c, g.Store.SetCompetition(ctx, nil, c, e)
	}
	c.Version, c.CreatedAt = old.Version+1, old.CreatedAt
	return c, g.Store.SetCompetition(ctx, &old, c, e)
}

var competitionRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checked fills in defaults and refuses what cannot work.
func checked(c Competition) (Competition, error) {
	if !competitionRE.MatchString(c.Name) {
		return c, fault.New(fault.Invalid, "competition_name_invalid", "A competition's name has 1 to 63 of a-z, 0-9 and dash.").
			WithFix("name: iris")
	}
	if c.Project != "" && !competitionRE.MatchString(c.Project) {
		return c, fault.New(fault.Invalid, "project_name_invalid", "A project's name has 1 to 63 of a-z, 0-9 and dash.").
			WithFix("project: vision")
	}
	if len(c.Metrics) == 0 {
		return c, fault.New(fault.Invalid, "metrics_missing", "A competition needs a metric.").WithFix("metrics: [accuracy]")
	}
	for _, m := range c.Metrics {
		if _, err := score.Find(m); err != nil {
			return c, err
		}
	}
	if len(c.Accept) == 0 {
		c.Accept = []string{Program, Predictions}
	}
	for _, a := range c.Accept {
		if a != Program && a != Predictions {
			return c, fault.New(fault.Invalid, "accept_unknown", "A competition accepts program and predictions.").
				WithFix("accept: [program, predictions]")
		}
	}
	if c.PerDay < 0 || c.Concurrent < 0 {
		return c, fault.New(fault.Invalid, "quota_negative", "A quota is not negative; zero means none.").WithFix("quota: {per_day: 20, concurrent: 2}")
	}
	if c.Title == "" {
		c.Title = c.Name
	}
	c.Resources = filled(c.Resources)
	if c.Resources.TimeLimit > 7*24*time.Hour || c.Resources.TimeLimit < time.Second {
		return c, fault.New(fault.Invalid, "time_limit_out_of_range", "A time limit lies between a second and seven days.").
			WithFix("resources: {time_limit: 3h}")
	}
	return c, nil
}

// filled gives every limit that was left open a value: a job without limits
// does not exist.
func filled(r job.Resources) job.Resources {
	set := func(v *int64, def int64) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&r.MemoryBytes, 512<<20)
	set(&r.OutputBytes, 256<<20)
	set(&r.LogBytes, 4<<20)
	if r.CPUs <= 0 {
		r.CPUs = 1
	}
	if r.Processes <= 0 {
		r.Processes = 64
	}
	if r.TimeLimit <= 0 {
		r.TimeLimit = 10 * time.Minute
	}
	r.GPUs = max(0, r.GPUs)
	return r
}

func higherIsBetter(metric string) bool {
	m, err := score.Find(metric)
	return err == nil && m.Better == score.Higher
}

// takeFiles stores a competition's files under the digest of the upload, the
// hidden ones apart, and checks the truth by scoring it against itself.
func (g *Grading) takeFiles(c Competition, body io.Reader) (digest string, public []string, err error) {
	file, err := g.files.bundles.receive(body, 4*UploadLimit)
	if err != nil {
		return "", nil, err
	}
	defer func() {
		_ = file.Close() // only read since it was stored
		file.decided(!refused(err))
	}()
	digest = file.digest
	final := g.files.competitionDir(c.Name, digest)
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return "", nil, noSpace(err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(final), ".new-")
	if err != nil {
		return "", nil, noSpace(err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := unpackFiles(tmp, file.File, file.size); err != nil {
		return "", nil, err
	}
	if err := checkTruth(c, filepath.Join(tmp, "hidden", labelsFile)); err != nil {
		return "", nil, err
	}
	if public, err = publicFiles(tmp, c.Public); err != nil {
		return "", nil, err
	}
	_ = os.RemoveAll(final)
	if err := os.Rename(tmp, final); err != nil {
		return "", nil, noSpace(err)
	}
	return digest, public, nil
}

// unpackFiles unpacks into dir/public and moves public/hidden beside it.
func unpackFiles(dir string, file *os.File, size int64) error {
	if err := os.Mkdir(filepath.Join(dir, "public"), 0o755); err != nil {
		return noSpace(err)
	}
	root, err := os.OpenRoot(filepath.Join(dir, "public"))
	if err != nil {
		return noSpace(err)
	}
	defer func() { _ = root.Close() }()
	if _, err := bundle.Unpack(root, "files", file, size, bundle.DefaultLimits); err != nil {
		return err
	}
	err = os.Rename(filepath.Join(dir, "public", "hidden"), filepath.Join(dir, "hidden"))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Invalid, "labels_missing", "The files hold no hidden/%s.", labelsFile).
			WithFix("Put the true labels of the test part into hidden/%s.", labelsFile)
	}
	if err != nil {
		return noSpace(err)
	}
	return os.Chmod(filepath.Join(dir, "hidden"), 0o700)
}

func checkTruth(c Competition, path string) error {
	truth, err := os.Open(path)
	if err != nil {
		return fault.Wrap(fault.Invalid, "labels_missing", "The files hold no hidden/"+labelsFile+".", err).
			WithFix("Put the true labels of the test part into hidden/%s.", labelsFile)
	}
	defer func() { _ = truth.Close() }()
	return score.CheckTruth(truth, c.Metrics)
}

// publicFiles removes what is not listed as public; an empty list is
// everything outside hidden/ except the competition's own description.
func publicFiles(dir string, listed []string) ([]string, error) {
	public := filepath.Join(dir, "public")
	var have []string
	err := fs.WalkDir(os.DirFS(public), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			have = append(have, path)
		}
		return err
	})
	if err != nil {
		return nil, noSpace(err)
	}
	for _, p := range listed {
		if !slices.Contains(have, p) {
			return nil, fault.New(fault.Invalid, "public_missing", "The list of public files names one that is not there.").
				With("missing", p).WithFix("Put it into the folder, or take it off the list.")
		}
	}
	var out []string
	for _, p := range have {
		if len(listed) > 0 && !slices.Contains(listed, p) || len(listed) == 0 && strings.HasPrefix(p, "competition.y") {
			if err := os.Remove(filepath.Join(public, p)); err != nil {
				return nil, noSpace(err)
			}
			continue
		}
		out = append(out, p)
	}
	return out, nil
}
