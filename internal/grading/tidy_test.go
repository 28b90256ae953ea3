package grading_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gradegate/internal/job"
)

// However a job ends, what its program filled is gone with it: nobody fills the
// disk by failing. Its log and its predictions stay.
func TestTidy(t *testing.T) {
	h := open(t)
	ann := h.person(t, "ann")
	fill := func(id job.ID) {
		dir := filepath.Join(h.dir, "jobs", string(id))
		for _, name := range []string{"log", "work/junk", "output/junk/deep/er", "output/predictions.csv"} {
			path := filepath.Join(dir, name)
			_ = os.MkdirAll(filepath.Dir(path), 0o755)
			if err := os.WriteFile(path, []byte("id,label\na,x\nb,y\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func(id job.ID) (names []string) {
		dir := filepath.Join(h.dir, "jobs", string(id))
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				names = append(names, strings.TrimPrefix(path, dir+"/"))
			}
			return err
		})
		return names
	}
	var over job.ID
	tidied := []string{"log", "output/predictions.csv"}
	ended := func(r job.Report) func(job.ID) { return func(id job.ID) { h.exec.end(id, r) } }
	cancel := func(id job.ID) {
		if _, _, err := h.Cancel(t.Context(), ann, id); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		rounds int
		end    func(job.ID)
		state  job.State
	}{
		"graded":                {2, ended(job.Report{Phase: job.PhaseExited}), job.Succeeded},
		"failed":                {2, ended(job.Report{Phase: job.PhaseExited, ExitCode: 3}), job.Failed},
		"stopped":               {2, ended(job.Report{Phase: job.PhaseExited, Reason: "output_limit", ExitCode: -1}), job.Failed},
		"canceled":              {2, cancel, job.Canceled},
		"canceled in the queue": {0, cancel, job.Canceled},
	} {
		made, err := h.submit(t.Context(), ann)
		if err != nil {
			t.Fatal(err)
		}
		id := made.Job.ID
		h.rounds(t, c.rounds)
		over = id
		fill(id)
		c.end(id)
		h.rounds(t, 3)
		h.state(t, id, c.state)
		if got := left(id); !slices.Equal(got, tidied) {
			t.Errorf("%s: %v is left", name, got)
		}
	}

	// A process that ended between the last state and the tidying does it at its
	// next start, and leaves alone what runs, and what it does not know.
	made, err := h.submit(t.Context(), ann)
	if err != nil {
		t.Fatal(err)
	}
	h.rounds(t, 2)
	runs := made.Job.ID
	for _, id := range []job.ID{over, runs, "job_unknown"} {
		fill(id)
	}
	if err := h.CleanUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := left(over); !slices.Equal(got, tidied) {
		t.Errorf("after a restart %v is left", got)
	}
	for _, id := range []job.ID{runs, "job_unknown"} {
		if !slices.Contains(left(id), "work/junk") {
			t.Errorf("%s was tidied", id)
		}
	}
}
