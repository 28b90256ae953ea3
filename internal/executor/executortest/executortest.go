// Package executortest holds what every executor must do: Run is called once
// per implementation, and once per isolation of an implementation.
package executortest

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gradegate/internal/executor"
	"gradegate/internal/fault"
	"gradegate/internal/job"
)

// Patience bounds every wait of the suite; nothing waits that long on an idle
// machine.
const Patience = 60 * time.Second

// Open opens the executor over dir, as a server does when it starts. Opening
// the same dir again is a restart: the first one is not closed, as nothing is
// by kill -9. change adjusts the options; options that an implementation has no
// use for may be ignored.
type Open func(t *testing.T, dir string, change func(*executor.Options)) executor.Executor

// Run runs the conformance suite.
func Run(t *testing.T, open Open) {
	for name, check := range map[string]func(*testing.T, Open){
		"runs": runs, "exit code": exitCode, "signal": signalled, "environment": environment, "entries": entries,
		"unknown": unknown, "double submit": doubleSubmit, "forget": forget,
		"cancel": cancel, "cancel immune": cancelImmune, "cancel twice": cancelTwice,
		"time limit": timeLimit, "log limit": logLimit, "output limit": outputLimit,
		"restart running": restartRunning, "restart ended": restartEnded, "restart keeps slots": restartSlots,
		"slots": slots, "gpus": gpus, "bad specs": badSpecs,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, open)
		})
	}
}

var serial atomic.Int64

// NewJob makes a job that runs script, with limits that an honest test keeps.
func NewJob(t *testing.T, script string) job.Spec {
	t.Helper()
	dir := t.TempDir()
	Reachable(t, dir)
	id := job.ID("job_" + filepath.Base(filepath.Dir(dir))[:4] + "x" + itoa(int64(os.Getpid())) + "x" + itoa(serial.Add(1)))
	for _, sub := range []string{"work", "data", "output"} {
		must(t, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	WriteFile(t, filepath.Join(dir, "work", "main.sh"), script)
	WriteFile(t, filepath.Join(dir, "data", "train.csv"), "a,b\n1,2\n")
	must(t, os.WriteFile(filepath.Join(dir, "run_token"), []byte("ggrun_secret"), 0o400))
	return job.Spec{ID: id, Dir: dir, Entry: "main.sh", Resources: job.Resources{
		CPUs: 1, MemoryBytes: 512 << 20, TimeLimit: Patience, OutputBytes: 8 << 20, LogBytes: 64 << 10, Processes: 64,
	}}
}

func itoa(n int64) string {
	text := make([]byte, 0, 8)
	for ; n > 0; n /= 10 {
		text = append([]byte{byte('0' + n%10)}, text...)
	}
	return string(text)
}

// Reachable opens the test's folders to other uids: the programs of an executor
// without isolation go there on foot.
func Reachable(t *testing.T, dir string) {
	t.Helper()
	for dir != filepath.Clean(os.TempDir()) && dir != "/" {
		must(t, os.Chmod(dir, 0o755))
		dir = filepath.Dir(dir)
	}
}

// WriteFile writes a file for a test.
func WriteFile(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// Eventually waits until ok.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	late := time.After(Patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-late:
			t.Fatalf("waited in vain for: %s", what)
		case <-tick.C:
		}
	}
}

// Start submits a job and has it stopped when the test ends.
func Start(t *testing.T, e executor.Executor, s job.Spec) {
	t.Helper()
	if err := e.Submit(t.Context(), s); err != nil {
		t.Fatalf("Submit: %v", err)
	}
	t.Cleanup(func() { End(t, e, s) })
}

// End cancels a job and waits for its end: its folder is about to go.
func End(t *testing.T, e executor.Executor, s job.Spec) {
	t.Helper()
	ctx := t.Context()
	if ctx.Err() != nil {
		ctx = background()
	}
	if err := e.Cancel(ctx, s.ID); err != nil {
		t.Errorf("Cancel: %v", err)
	}
	Eventually(t, "the end of "+string(s.ID), func() bool {
		r, err := e.Status(ctx, s.ID)
		return err == nil && (r.Phase == job.PhaseExited || r.Phase == job.PhaseUnknown)
	})
}

// Ended waits for the job's end.
func Ended(t *testing.T, e executor.Executor, s job.Spec) job.Report {
	t.Helper()
	var last job.Report
	Eventually(t, "the end of the job", func() bool {
		r, err := e.Status(t.Context(), s.ID)
		if err != nil {
			t.Fatalf("Status: %v", err)
		}
		last = r
		return r.Phase == job.PhaseExited
	})
	if last.EndedAt.IsZero() {
		t.Errorf("an ended job without a time: %+v", last)
	}
	return last
}

// Running waits until the program itself says that it runs, by printing word.
func Running(t *testing.T, s job.Spec, word string) {
	t.Helper()
	Eventually(t, word+" in the log", func() bool { return strings.Contains(Log(s), word) })
}

// Log is what the job has printed so far.
func Log(s job.Spec) string {
	text, _ := os.ReadFile(filepath.Join(s.Dir, "log")) // none yet is an empty one
	return string(text)
}

// Do runs a job to its end.
func Do(t *testing.T, e executor.Executor, s job.Spec) job.Report {
	t.Helper()
	Start(t, e, s)
	return Ended(t, e, s)
}

func wantReason(t *testing.T, s job.Spec, r job.Report, reason string) {
	t.Helper()
	if r.Reason != reason {
		t.Fatalf("reason %q, want %q: %+v\nlog: %.2000s", r.Reason, reason, r, Log(s))
	}
	if reason != "" && (r.Detail == "" || !strings.HasSuffix(r.Detail, ".")) {
		t.Errorf("detail %q is no sentence", r.Detail)
	}
}

func wantCode(t *testing.T, err error, kind fault.Kind, code string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || fault.CodeOf(err) != code {
		t.Errorf("got %v, want %v %s", err, kind, code)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
