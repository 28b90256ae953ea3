package executortest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gradegate/internal/executor"
	"gradegate/internal/fault"
	"gradegate/internal/job"
)

func background() context.Context { return context.Background() }

func fresh(t *testing.T, open Open) executor.Executor { return open(t, t.TempDir(), nil) }

func runs(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, `echo hello $1; cat "$GRADEGATE_DATA/train.csv"; echo 1 > "$GRADEGATE_OUTPUT/predictions.csv"; echo x > note`)
	s.Args = []string{"big world"}
	r := Do(t, e, s)
	wantReason(t, s, r, "")
	if r.ExitCode != 0 || r.StartedAt.IsZero() || r.EndedAt.Before(r.StartedAt) || r.Isolation == "" {
		t.Errorf("report %+v", r)
	}
	if got := Log(s); got != "hello big world\na,b\n1,2\n" {
		t.Errorf("log %q", got)
	}
	f, err := executor.OpenOutput(s, "predictions.csv")
	must(t, err)
	text := make([]byte, 10)
	n, _ := f.Read(text) // compared below
	must(t, f.Close())
	if string(text[:n]) != "1\n" {
		t.Errorf("output %q", text[:n])
	}
}

func exitCode(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, "exit 7")
	if r := Do(t, e, s); r.ExitCode != 7 || r.Reason != "" {
		t.Errorf("report %+v", r)
	}
}

func signalled(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, "kill -SEGV $$")
	r := Do(t, e, s)
	wantReason(t, s, r, "signal")
	if r.ExitCode != -1 {
		t.Errorf("exit code %d", r.ExitCode)
	}
}

func environment(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, `env; echo "token $(cat "$GRADEGATE_RUN_TOKEN_FILE")"; pwd; id -u; test -w "$GRADEGATE_DATA/train.csv" && echo writable`)
	s.Env = map[string]string{"SEED": "42", "GRADEGATE_JOB": "forged"}
	r := Do(t, e, s)
	got := Log(s)
	if strings.Contains(got, "writable") && !strings.HasPrefix(r.Isolation, executor.None) {
		t.Error("the program may change the competition's data")
	}
	for _, own := range os.Environ() { // nothing of the server's
		if name, _, _ := strings.Cut(own, "="); strings.Contains("\n"+got, "\n"+own+"\n") && name != "LANG" && name != "PWD" {
			t.Errorf("inherited %s", name)
		}
	}
	for _, want := range []string{"SEED=42\n", "GRADEGATE_JOB=" + string(s.ID) + "\n", "LANG=C.UTF-8\n", "token ggrun_secret\n", "CUDA_VISIBLE_DEVICES=\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if strings.Contains(got, "GOMAXPROCS") || strings.Contains(got, "forged") {
		t.Errorf("too much in %s", got)
	}
}

func entries(t *testing.T, open Open) {
	dir := t.TempDir()
	e := open(t, dir, nil)
	for name, c := range map[string]struct {
		text   string
		mode   os.FileMode
		reason string
		log    string
	}{
		"own":       {"#!/usr/bin/awk -f\nBEGIN { print \"awk\" }\n", 0o755, "", "awk\n"},
		"plain.sh":  {"echo sh", 0o644, "", "sh\n"},
		"plain.py":  {"print('py')", 0o644, "", "py\n"},
		"data.txt":  {"1,2", 0o644, "start_failed", ""},
		"broken":    {"#!/no/such/interpreter\n", 0o755, "start_failed", ""},
		"../log":    {"", 0, "start_failed", ""},
		"not/there": {"", 0, "start_failed", ""},
	} {
		s := NewJob(t, "")
		s.Entry = name
		if c.mode != 0 {
			WriteFile(t, filepath.Join(s.Dir, "work", name), c.text)
			must(t, os.Chmod(filepath.Join(s.Dir, "work", name), c.mode))
		}
		Eventually(t, "a slot", func() bool { return e.Submit(t.Context(), s) == nil })
		r := Ended(t, e, s)
		if r.Reason != c.reason || c.reason == "" && Log(s) != c.log {
			t.Errorf("%s: %+v, log %q", name, r, Log(s))
		}
	}
}

func unknown(t *testing.T, open Open) {
	e := fresh(t, open)
	for _, id := range []job.ID{"job_never", "", "../x"} {
		if r, err := e.Status(t.Context(), id); err != nil || r.Phase != job.PhaseUnknown {
			t.Errorf("Status(%q) = %+v, %v", id, r, err)
		}
		if err := e.Cancel(t.Context(), id); err != nil {
			t.Errorf("Cancel(%q): %v", id, err)
		}
		if err := e.Forget(t.Context(), id); err != nil {
			t.Errorf("Forget(%q): %v", id, err)
		}
	}
}

// doubleSubmit starts one job from many sides at once, also from other servers,
// and after its end.
func doubleSubmit(t *testing.T, open Open) {
	dir := t.TempDir()
	s := NewJob(t, `echo once; echo x >> "$GRADEGATE_OUTPUT/starts"`)
	all := []executor.Executor{open(t, dir, nil), open(t, dir, nil), open(t, dir, nil)}
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if err := all[i%len(all)].Submit(t.Context(), s); err != nil {
				t.Errorf("Submit: %v", err)
			}
		})
	}
	wg.Wait()
	Ended(t, all[0], s)
	must(t, all[1].Submit(t.Context(), s))
	must(t, open(t, dir, nil).Submit(t.Context(), s))
	wantReason(t, s, Ended(t, all[2], s), "")
	if Log(s) != "once\n" {
		t.Errorf("log %q", Log(s))
	}
}

func forget(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, "echo up; sleep 600")
	Start(t, e, s)
	Running(t, s, "up")
	wantCode(t, e.Forget(t.Context(), s.ID), fault.Conflict, "job_running")
	End(t, e, s)
	must(t, e.Forget(t.Context(), s.ID))
	must(t, e.Forget(t.Context(), s.ID))
	if r, err := e.Status(t.Context(), s.ID); err != nil || r.Phase != job.PhaseUnknown {
		t.Errorf("Status = %+v, %v", r, err)
	}
	if err := e.Submit(t.Context(), s); err == nil {
		t.Error("a forgotten job was submitted again")
	}
	if r, err := e.Status(t.Context(), s.ID); err != nil || r.Phase != job.PhaseUnknown {
		t.Errorf("Status = %+v, %v", r, err)
	}
}

func cancel(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, `trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done`)
	Start(t, e, s)
	Running(t, s, "up")
	must(t, e.Cancel(t.Context(), s.ID))
	r := Ended(t, e, s)
	wantReason(t, s, r, "cancelled")
	if r.ExitCode != 3 || !strings.Contains(Log(s), "bye") {
		t.Errorf("it was not asked: %+v, log %q", r, Log(s))
	}
}

func cancelImmune(t *testing.T, open Open) {
	e := open(t, t.TempDir(), func(o *executor.Options) { o.Grace = 300 * time.Millisecond })
	s := NewJob(t, `trap '' TERM INT HUP; echo up; while :; do sleep 600; done`)
	Start(t, e, s)
	Running(t, s, "up")
	must(t, e.Cancel(t.Context(), s.ID))
	r := Ended(t, e, s)
	wantReason(t, s, r, "cancelled")
	if r.ExitCode != -1 {
		t.Errorf("report %+v", r)
	}
}

func cancelTwice(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, "echo up; sleep 600")
	Start(t, e, s)
	Running(t, s, "up")
	for range 3 {
		must(t, e.Cancel(t.Context(), s.ID))
	}
	first := Ended(t, e, s)
	wantReason(t, s, first, "cancelled")
	must(t, e.Cancel(t.Context(), s.ID))
	if again := Ended(t, e, s); again.EndedAt != first.EndedAt || again.Reason != first.Reason {
		t.Errorf("%+v, then %+v", first, again)
	}
}

func timeLimit(t *testing.T, open Open) {
	e := open(t, t.TempDir(), func(o *executor.Options) { o.Grace = 200 * time.Millisecond })
	s := NewJob(t, `trap '' TERM; while :; do sleep 600; done`)
	s.Resources.TimeLimit = 500 * time.Millisecond
	wantReason(t, s, Do(t, e, s), "time_limit")
}

func logLimit(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, `while :; do echo 0123456789012345678901234567890123456789; done`)
	s.Resources.LogBytes = 10_000
	wantReason(t, s, Do(t, e, s), "log_limit")
	if n := len(Log(s)); n != 10_000 {
		t.Errorf("the log has %d bytes", n)
	}
}

func outputLimit(t *testing.T, open Open) {
	e, s := fresh(t, open), NewJob(t, `i=0; while :; do head -c 1000000 /dev/zero > "$GRADEGATE_OUTPUT/$i"; i=$((i+1)); done`)
	wantReason(t, s, Do(t, e, s), "output_limit")
}

func restartRunning(t *testing.T, open Open) {
	dir := t.TempDir()
	s := NewJob(t, `echo up; while ! test -e go; do sleep 0.05; done; echo done; exit 5`)
	Start(t, open(t, dir, nil), s)
	Running(t, s, "up")
	e := open(t, dir, nil)
	must(t, e.Submit(t.Context(), s))
	if r, err := e.Status(t.Context(), s.ID); err != nil || r.Phase != job.PhaseRunning || r.StartedAt.IsZero() || r.Isolation == "" {
		t.Errorf("Status = %+v, %v", r, err)
	}
	WriteFile(t, filepath.Join(s.Dir, "work", "go"), "")
	r := Ended(t, e, s)
	if r.ExitCode != 5 || Log(s) != "up\ndone\n" {
		t.Errorf("report %+v, log %q", r, Log(s))
	}
}

func restartEnded(t *testing.T, open Open) {
	dir := t.TempDir()
	s := NewJob(t, "exit 4")
	first := Do(t, open(t, dir, nil), s)
	e := open(t, dir, nil)
	must(t, e.Submit(t.Context(), s))
	if r := Ended(t, e, s); r.ExitCode != 4 || r.StartedAt != first.StartedAt || r.EndedAt != first.EndedAt {
		t.Errorf("%+v, then %+v", first, r)
	}
}

func restartSlots(t *testing.T, open Open) {
	dir := t.TempDir()
	one := func(o *executor.Options) { o.Slots, o.GPUs = 1, []string{"0", "1"} }
	s, next := NewJob(t, "echo up; sleep 600"), NewJob(t, ":")
	Start(t, open(t, dir, one), s)
	wantCode(t, open(t, dir, one).Submit(t.Context(), next), fault.Limited, "no_free_slot")
	if r, err := open(t, dir, one).Status(t.Context(), next.ID); err != nil || r.Phase != job.PhaseUnknown {
		t.Errorf("Status = %+v, %v", r, err)
	}
}

func slots(t *testing.T, open Open) {
	e := open(t, t.TempDir(), func(o *executor.Options) { o.Slots = 2 })
	a, b, c := NewJob(t, "sleep 600"), NewJob(t, "sleep 600"), NewJob(t, ":")
	Start(t, e, a)
	Start(t, e, b)
	wantCode(t, e.Submit(t.Context(), c), fault.Limited, "no_free_slot")
	must(t, e.Submit(t.Context(), a)) // known, so there is nothing to refuse
	End(t, e, a)
	wantReason(t, c, Do(t, e, c), "")
}

func gpus(t *testing.T, open Open) {
	dir := t.TempDir()
	change := func(o *executor.Options) { o.Slots, o.GPUs = 10, []string{"4", "7", "9"} }
	e := open(t, dir, change)
	wanting := func(n int) job.Spec {
		s := NewJob(t, `echo "cards $CUDA_VISIBLE_DEVICES."; sleep 600`)
		s.Resources.GPUs = n
		return s
	}
	a, b, c := wanting(2), wanting(1), wanting(1)
	Start(t, e, a)
	Running(t, a, "cards 4,7.")
	e = open(t, dir, change)
	Start(t, e, b)
	Running(t, b, "cards 9.")
	wantCode(t, e.Submit(t.Context(), c), fault.Limited, "no_free_gpu")
	End(t, e, a)
	Start(t, e, c)
	Running(t, c, "cards 4.")
	if r, err := e.Status(t.Context(), c.ID); err != nil || len(r.GPUs) != 1 || r.GPUs[0] != "4" {
		t.Errorf("Status = %+v, %v", r, err)
	}
	if err := e.Submit(t.Context(), wanting(4)); fault.KindOf(err) != fault.Denied {
		t.Errorf("four of three GPUs: %v", err)
	}
}

func badSpecs(t *testing.T, open Open) {
	e := fresh(t, open)
	for _, change := range []func(*job.Spec){
		func(s *job.Spec) { s.ID = "" },
		func(s *job.Spec) { s.ID = "../../etc/x" },
		func(s *job.Spec) { s.Dir = "relative" },
	} {
		s := NewJob(t, ":")
		change(&s)
		if err := e.Submit(t.Context(), s); fault.KindOf(err) != fault.Invalid {
			t.Errorf("Submit(%q, %q): %v", s.ID, s.Dir, err)
		}
	}
}
