package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/bundle"
	"gradegate/internal/config"
	"gradegate/internal/executor"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/score"
)

// tried is what came of running a submission here.
type tried struct {
	Isolation string  `json:"isolation,omitempty"` // empty: predictions are not run
	Seconds   float64 `json:"seconds"`
	Rows      int     `json:"rows"`
	Compared  string  `json:"compared"` // with which ids
	// NotChecked is what only the server can tell.
	NotChecked []string `json:"not_checked"`
}

// tryOut does what the server would do with a job, as far as it can be done
// without the hidden labels: it runs the program in the same isolation under the
// competition's limits, on its public files, and reads the predictions by the
// scorer's rules. dir holds the unpacked submission in work/.
func (a *app) tryOut(ctx context.Context, competition, dir string, m bundle.Manifest, what checked, args []string) (*tried, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	c, err := client.CompetitionByName(ctx, competition)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(c.Accept, what.Kind) {
		return nil, fault.New(fault.Invalid, "kind_not_accepted", "The competition %s takes %s, and this is a %s.", c.Name, strings.Join(c.Accept, " or "), what.Kind).
			WithFix("gradegate competition show %s", c.Name)
	}
	line := a.progress()
	line.show("fetching the files of %s", c.Name)
	err = competitionFiles(ctx, client, c, filepath.Join(dir, "data"))
	line.done()
	if err != nil {
		return nil, err
	}
	out := &tried{NotChecked: []string{"the grade, for which the labels are hidden"}}
	if what.Kind == grading.Predictions {
		return out, out.read(c, dir, filepath.Join(dir, "work", m.Files[0].Path))
	}
	spec := job.Spec{ID: "job_check", Dir: dir, Entry: what.Entry, Args: args, Resources: resourcesOf(c.Resources)}
	out.NotChecked = append(out.NotChecked, "whether the server's machine has the same programs and libraries as this one")
	if c.Resources.GPUs > 0 {
		spec.Resources.GPUs = 0
		out.NotChecked = append(out.NotChecked, count(c.Resources.GPUs, "GPU")+", which the program gets there and did not get here")
	}
	report, err := a.runHere(ctx, spec)
	if err != nil {
		return nil, err
	}
	out.Isolation, out.Seconds = report.Isolation, report.EndedAt.Sub(report.StartedAt).Seconds()
	predictions, err := executor.OpenOutput(spec, "predictions.csv")
	if fault.KindOf(err) == fault.NotFound {
		f := fault.New(fault.Invalid, "predictions_missing", "The program ended well, and left no predictions.csv in $GRADEGATE_OUTPUT.").
			WithFix(`Write id,label rows to "$GRADEGATE_OUTPUT/predictions.csv".`)
		return nil, amiss{f, exitJobFailed}
	}
	if err != nil {
		return nil, amiss{err, exitJobFailed}
	}
	if err = errors.Join(out.read(c, dir, predictions.Name()), predictions.Close()); err != nil {
		err = amiss{err, exitJobFailed}
	}
	return out, err
}

// read checks predictions, and notes what they were compared with.
func (t *tried) read(c api.Competition, dir, file string) error {
	wants := "label"
	if len(c.Metrics) > 0 {
		m, err := score.Find(c.Metrics[0])
		if err != nil {
			return err // a server that knows more metrics than we do
		}
		wants = m.Wants
	}
	name, ids, err := testIDs(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	t.Compared = "the ids are those of " + name
	if name == "" {
		t.Compared = "no public file says which ids belong into it"
		t.NotChecked = append(t.NotChecked, "whether every id is there and none is too much")
	}
	t.Rows, err = checkTable(file, wants, ids)
	return err
}

// resourcesOf are a competition's limits. What cannot be read is left open,
// which the executor fills in with care.
func resourcesOf(r api.Resources) job.Resources {
	size := func(s string) int64 {
		n, _ := config.ParseBytes(s)
		return n
	}
	limit, _ := config.ParseDuration(r.TimeLimit)
	return job.Resources{
		GPUs: r.GPUs, CPUs: r.CPUs, Processes: r.Processes, TimeLimit: limit,
		MemoryBytes: size(r.Memory), OutputBytes: size(r.Output), LogBytes: size(r.Log),
	}
}

// runHere runs a program to its end and shows what it prints on stderr.
func (a *app) runHere(ctx context.Context, spec job.Spec) (job.Report, error) {
	if err := os.Mkdir(filepath.Join(spec.Dir, "output"), 0o755); err != nil {
		return job.Report{}, err
	}
	ex, err := executor.Open("local", executor.Options{Dir: filepath.Join(spec.Dir, "executor"), Slots: 1})
	if err != nil {
		return job.Report{}, err
	}
	a.hint("Running %s here, for %s at most. What it prints:", spec.Entry, config.FormatDuration(spec.Resources.TimeLimit))
	if err := ex.Submit(ctx, spec); err != nil {
		if f, ok := errors.AsType[*fault.Error](err); ok && f.Code == "no_sandbox" {
			return job.Report{}, f.WithFix("Install bubblewrap (bwrap) or allow user namespaces; or leave --run out.")
		}
		return job.Report{}, err
	}
	r, err := a.watch(ctx, ex, spec)
	switch {
	case err != nil:
		return r, err
	case ctx.Err() != nil:
		return r, ctx.Err()
	case r.Reason != "":
		f := fault.New(fault.Invalid, r.Reason, "%s", r.Detail).WithFix("Mend the program; the limits are those of: gradegate competition show NAME")
		return r, amiss{f, exitJobFailed}
	case r.ExitCode != 0:
		f := fault.New(fault.Invalid, "exit_code", "The program ended with exit code %d, which means that it failed.", r.ExitCode).
			WithFix("What it printed stands above; mend it and check it again.")
		return r, amiss{f, exitJobFailed}
	}
	return r, nil
}

// stopTime is how long a program may take to stop when it is interrupted.
const stopTime = 15 * time.Second

// watch shows a program's output until it has ended. When ctx ends it stops the
// program first: it is a process of its own, and would go on without us.
func (a *app) watch(ctx context.Context, ex executor.Executor, spec job.Spec) (job.Report, error) {
	out := a.logWriter(a.stderr)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	interrupted := ctx.Done()
	var late <-chan time.Time
	var offset int64
	for {
		r, err := ex.Status(context.WithoutCancel(ctx), spec.ID)
		if err != nil {
			return r, err
		}
		n, err := tail(filepath.Join(spec.Dir, "log"), offset, out)
		if offset += n; err != nil {
			return r, err
		}
		if r.Phase == job.PhaseExited {
			return r, nil
		}
		select {
		case <-tick.C:
		case <-interrupted:
			interrupted, late = nil, time.After(stopTime)
			if err := ex.Cancel(context.WithoutCancel(ctx), spec.ID); err != nil {
				return r, err
			}
		case <-late:
			return r, fmt.Errorf("the program does not stop; it runs in %s", spec.Dir)
		}
	}
}

// tail copies what a log has from an offset on.
func tail(path string, offset int64, w io.Writer) (int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	return io.Copy(w, io.NewSectionReader(f, offset, 1<<40))
}
