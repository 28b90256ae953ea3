package executor_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gradegate/internal/executor"
	"gradegate/internal/executor/executortest"
	"gradegate/internal/fault"
	"gradegate/internal/job"
)

// serveCommand makes this test binary a server that submits one job and then
// waits to be killed.
const serveCommand = "serve"

func serve(dir, only, spec string) int {
	var s job.Spec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		panic(err)
	}
	e, err := executor.Open("local", executor.Options{Dir: dir, Only: only, Unsafe: true})
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("submitting\n")
	if err := e.Submit(noContext(), s); err != nil {
		panic(err)
	}
	os.Stdout.WriteString("submitted\n")
	select {}
}

// server starts such a server and returns when it has said word.
func server(t *testing.T, dir, only, word string, s job.Spec) *exec.Cmd {
	t.Helper()
	spec, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", serveCommand, dir, only, string(spec))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // mostly dead by then
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == word {
			return cmd
		}
	}
	t.Fatalf("the server did not say %q", word)
	return nil
}

// TestServerKilled kills a whole server, with its process group, while its job
// runs: the next one finds the job running, and its true end.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	for _, only := range isolations(t) {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := executortest.NewJob(t, `echo up; while ! test -e go; do sleep 0.05; done; echo done; exit 5`)
			cmd := server(t, dir, only, "submitted", s)
			executortest.Running(t, s, "up")
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed
			e := with(only)(t, dir, nil)
			if r, err := e.Status(t.Context(), s.ID); err != nil || r.Phase != job.PhaseRunning {
				t.Errorf("after the restart: %+v, %v", r, err)
			}
			executortest.Start(t, e, s)
			executortest.WriteFile(t, filepath.Join(s.Dir, "work", "go"), "")
			if r := executortest.Ended(t, e, s); r.ExitCode != 5 || r.Reason != "" || executortest.Log(s) != "up\ndone\n" {
				t.Errorf("%+v, log %q", r, executortest.Log(s))
			}
		})
	}
}

// TestServerKilledAtAnyMoment kills servers in the middle of Submit, and has
// the next one submit again: exactly one program runs.
func TestServerKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := with(executor.Namespaces)(t, dir, nil)
	for range 8 {
		s := executortest.NewJob(t, `echo start >> "$GRADEGATE_OUTPUT/starts"`)
		cmd := server(t, dir, executor.Namespaces, "submitting", s)
		_ = cmd.Process.Kill() // somewhere between here and the end
		_ = cmd.Wait()
		executortest.Start(t, e, s)
		if r := executortest.Ended(t, e, s); r.Reason != "" {
			t.Errorf("%+v", r)
		}
		text, err := os.ReadFile(filepath.Join(s.Dir, "output", "starts"))
		if err != nil || string(text) != "start\n" {
			t.Errorf("starts: %q, %v", text, err)
		}
	}
}

// TestSupervisorKilled kills the one process that watches a job. The job dies
// with it, is reported as lost, and never starts again.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	for _, only := range isolations(t) {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			e := with(only)(t, dir, nil)
			s := executortest.NewJob(t, `echo up; while :; do sleep 600; done`)
			executortest.Start(t, e, s)
			executortest.Running(t, s, "up")
			if err := syscall.Kill(supervisorOf(t, s), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r := executortest.Ended(t, e, s)
			if r.Reason != "lost" || r.ExitCode != -1 || r.Detail == "" || r.StartedAt.IsZero() || !strings.HasPrefix(r.Isolation, only) {
				t.Errorf("%+v", r)
			}
			again := with(only)(t, dir, nil)
			if err := again.Submit(t.Context(), s); err != nil {
				t.Error(err)
			}
			if second := executortest.Ended(t, again, s); second.EndedAt != r.EndedAt || second.Reason != "lost" {
				t.Errorf("%+v, then %+v", r, second)
			}
			if executortest.Log(s) != "up\n" {
				t.Errorf("log %q", executortest.Log(s))
			}
			executortest.Eventually(t, "the program's death", func() bool { return !mentions(t, s.ID) })
		})
	}
}

// supervisorOf reads the pid that the supervisor itself has left.
func supervisorOf(t *testing.T, s job.Spec) int {
	t.Helper()
	var state struct{ Supervisor struct{ PID int } }
	text, err := os.ReadFile(filepath.Join(s.Dir, "state.json"))
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err != nil || state.Supervisor.PID <= 1 {
		t.Fatalf("state.json: %v, %s", err, text)
	}
	return state.Supervisor.PID
}

func mentions(t *testing.T, id job.ID) bool {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "GRADEGATE_JOB="+string(id)) {
			return true
		}
	}
	return false
}

// TestCrashWindows lays out what a crash leaves at each step of a start.
func TestCrashWindows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := with(executor.Namespaces)(t, dir, nil)
	plan := func(s job.Spec) { // what Submit writes before anything else
		model := executortest.NewJob(t, ":")
		executortest.Do(t, e, model)
		text, err := os.ReadFile(filepath.Join(dir, string(model.ID)+".json"))
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.NewReplacer(string(model.ID), string(s.ID), model.Dir, s.Dir).Replace(string(text)))
		executortest.WriteFile(t, filepath.Join(dir, string(s.ID)+".json"), string(text))
	}
	status := func(s job.Spec) job.Report {
		r, err := e.Status(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}

	planned := executortest.NewJob(t, "echo ran")
	plan(planned)
	if r := status(planned); r.Phase != job.PhaseUnknown {
		t.Errorf("planned: %+v", r)
	}
	if r := executortest.Do(t, e, planned); r.Reason != "" || executortest.Log(planned) != "ran\n" {
		t.Errorf("planned, then submitted: %+v", r)
	}

	canceled := executortest.NewJob(t, "echo ran")
	plan(canceled)
	executortest.End(t, e, canceled)
	if r := executortest.Do(t, e, canceled); r.Reason != "cancelled" || executortest.Log(canceled) != "" {
		t.Errorf("planned, canceled, submitted: %+v", r)
	}

	marked := executortest.NewJob(t, "echo ran")
	plan(marked)
	executortest.WriteFile(t, filepath.Join(marked.Dir, "started"), "")
	if r := executortest.Do(t, e, marked); r.Reason != "lost" || executortest.Log(marked) != "" {
		t.Errorf("marked: %+v", r)
	}

	gone := executortest.NewJob(t, "echo ran")
	plan(gone)
	if err := os.RemoveAll(gone.Dir); err != nil {
		t.Fatal(err)
	}
	if r := status(gone); r.Phase != job.PhaseExited || r.Reason != "lost" {
		t.Errorf("gone: %+v", r)
	}
	if err := e.Cancel(t.Context(), gone.ID); err != nil {
		t.Error(err)
	}
	if err := e.Forget(t.Context(), gone.ID); err != nil || status(gone).Phase != job.PhaseUnknown {
		t.Errorf("Forget: %v", err)
	}
}

// TestNoSandbox refuses programs where there is none.
func TestNoSandbox(t *testing.T) {
	t.Parallel()
	e, err := executor.Open("local", executor.Options{Dir: t.TempDir(), Only: "nothing"})
	if err != nil {
		t.Fatal(err)
	}
	s := executortest.NewJob(t, "echo ran")
	if err := e.Submit(t.Context(), s); fault.KindOf(err) != fault.Denied || fault.CodeOf(err) != "no_sandbox" || fault.Of(err).Fix == "" {
		t.Errorf("Submit: %v", err)
	}
	if got := e.(executor.Prober).Probe(); got.Kind != "" {
		t.Errorf("Probe: %v", got)
	}
	if r, err := e.Status(t.Context(), s.ID); err != nil || r.Phase != job.PhaseUnknown {
		t.Errorf("Status: %+v, %v", r, err)
	}
	if _, err := executor.Open("nomad", executor.Options{}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("an unknown kind: %v", err)
	}
}

// TestHiddenCommands are no use to whoever types them.
func TestHiddenCommands(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{executor.SuperviseCommand}, {executor.SuperviseCommand, "/no/such/plan"},
		{executor.InitCommand}, {executor.InitCommand, "launch"}, {executor.InitCommand, "root"},
	} {
		if err := exec.Command("/proc/self/exe", args...).Run(); err == nil {
			t.Errorf("%v ended well", args)
		}
	}
}

// TestAsOrdinaryUser runs this package's tests again without root, when there
// is root to give up: a server that is not root has other walls.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // this is it
	}
	dir := t.TempDir()
	executortest.Reachable(t, dir)
	for _, name := range []string{"tmp", "bin"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "tests"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	const uid = 12345 // nobody's
	cmd := exec.Command(filepath.Join(dir, "bin", "tests"), "-test.timeout=5m")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+filepath.Join(dir, "tmp"), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
