package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/token"
)

// impatient gives a client whose pauses take no time, and an app that prints
// into out.
func impatient(t *testing.T, f *fake) (*app, *api.Client, *strings.Builder) {
	t.Helper()
	c, err := api.NewClient(f.url, secretOf(token.Personal))
	if err != nil {
		t.Fatal(err)
	}
	c.Wait = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	var out strings.Builder
	return &app{stdout: &out, stderr: io.Discard, output: "table"}, c, &out
}

// states answers with one state after the other and stays at the last; a
// number is a status of the server instead.
func (f *fake) states(all ...string) {
	i := 0
	f.handle("GET /v1/jobs/job_1", func(w http.ResponseWriter, _ *http.Request) {
		s := all[min(i, len(all)-1)]
		i++
		if s == "503" {
			f.refuse(w, 503, "store_unavailable", "The store does not answer.", "")
			return
		}
		_ = json.NewEncoder(w).Encode(api.Job{ID: "job_1", Competition: "iris", State: s, Scores: map[string]float64{"accuracy": 0.9}, CreatedAt: birth})
	})
}

// TestWaitOutlastsTheServer: a job of three hours is not lost from sight
// because the server was restarted meanwhile.
func TestWaitOutlastsTheServer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	a, c, _ := impatient(t, f)
	var script []string
	for range 20 {
		script = append(script, "503") // more than the client itself tries again
	}
	f.states(append(append([]string{"queued"}, script...), "running", "succeeded")...)
	if j, err := a.wait(t.Context(), c, "job_1", 0); err != nil || j.State != "succeeded" {
		t.Errorf("%s %v", j.State, err)
	}
	f.states("503")
	if _, err := a.wait(t.Context(), c, "job_1", 0); err == nil {
		t.Error("it waits for ever for a server that is gone for good")
	}
	f.handle("GET /v1/jobs/job_1", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 404, "not_found", "No.", "") })
	if _, err := a.wait(t.Context(), c, "job_1", 0); err == nil {
		t.Error("what is not there does not come")
	}
}

func TestJobWait(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.JobKind))
	for state, code := range map[string]int{"succeeded": 0, "failed": 9, "canceled": 9} {
		f.states(state)
		m.run("", "job", "wait", "job_1", "--url", f.url).want(t, code, state, "")
	}
	f.states("running")
	m.run("", "job", "wait", "job_1", "--timeout", "30ms", "--url", f.url).want(t, 124, "", "error: Still running after 30ms; the job goes on.\nfix: gradegate job wait job_1\n")
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	ctx, cancel := context.WithCancel(t.Context())
	f.handle("GET /v1/jobs/job_1", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"state":"running"}`)
		cancel()
	})
	var out, errout strings.Builder
	if code := Run(ctx, []string{"job", "wait", "job_1", "--url", f.url}, m.env, nil, &out, &errout); code != 130 || errout.String() != "Interrupted. The job goes on. Look at it: gradegate job show job_1; wait for it again: gradegate job wait job_1\n" {
		t.Errorf("%d %q", code, errout.String())
	}
}

// TestFollowedLogIsTakenUp where its connection ended, byte for byte.
func TestFollowedLogIsTakenUp(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	a, c, out := impatient(t, f)
	f.states("running", "running", "503", "succeeded")
	const log = "step 0\nstep 1\nstep 2\nstep 3\n"
	calls := 0
	f.handle("GET /v1/jobs/job_1/logs", func(w http.ResponseWriter, r *http.Request) {
		var from int
		_, _ = fmt.Sscan(r.URL.Query().Get("offset"), &from)
		calls++
		switch calls {
		case 1: // ends well, but too early: the server stops
			_, _ = io.WriteString(w, log[:10])
		case 2: // breaks off
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, log[from:from+3])
		case 3:
			f.refuse(w, 503, "starting", "Not yet.", "")
		default:
			_, _ = io.WriteString(w, log[from:])
		}
	})
	if err := a.copyLog(t.Context(), c, "job_1", true); err != nil || out.String() != log {
		t.Errorf("%q %v", out.String(), err)
	}
	f.handle("GET /v1/jobs/job_1/logs", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 403, "scope_missing", "No.", "") })
	if err := a.copyLog(t.Context(), c, "job_1", true); err == nil {
		t.Error("a refusal is no reason to try again")
	}
}

func TestLogsOnATerminalAreHarmless(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	l := &logWriter{w: &out, harmless: true}
	if n, err := l.Write([]byte("50%\r\x1b[31mred\a\tü\n")); err != nil || n != 17 || out.String() != "50%\r?[31mred?\tü\n" {
		t.Errorf("%d %v %q", n, err, out.String())
	}
	out.Reset()
	l.harmless = false
	if _, err := l.Write([]byte("\x1b[31m")); err != nil || out.String() != "\x1b[31m" {
		t.Error("into a file goes what was printed")
	}
}

// program makes a folder to hand in.
func program(m *machine) string {
	m.write("prog/run.sh", "#!/bin/sh\n", 0o755)
	m.write("prog/.git/config", "left out", 0o600)
	return filepath.Join(m.home, "prog")
}

func TestSubmit(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	handle := secretOf(token.JobKind)
	f.on("POST /v1/competitions/iris/jobs", api.Submitted{
		Job: api.Job{ID: "job_1", Competition: "iris", State: "queued"}, Handle: handle,
		Warnings: []api.Warning{{Code: "token_ends_early", Detail: "Your token ends before the job's time limit."}},
	})
	kept := filepath.Join(m.home, "handle")
	m.write("handle", "of an older job", 0o644)
	got := m.run("", "submit", "iris", program(m), "--label", "run=a=b", "--submitted-by", "joe", "--entry", "run.sh",
		"--handle-file", kept, "--url", f.url, "--", "--fast", "")
	got.want(t, 0, "job_1", "warning: Your token ends before the job's time limit.\nIts handle is in "+kept+". It shows, follows and cancels this one job")
	got.want(t, 0, "", "Follow it: gradegate job logs -f job_1\nWait for its grade: gradegate job wait job_1\n")
	if strings.Contains(got.out+got.errout, handle) {
		t.Error("the handle was shown to nobody who asked")
	}
	if data, err := os.ReadFile(kept); err != nil || string(data) != handle+"\n" {
		t.Errorf("%q %v", data, err)
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the handle's file has mode %v", info.Mode())
	}
	form := parseForm(t, f.last())
	if v := form.Value; len(v["arg"]) != 2 || v["arg"][0] != "--fast" || v["label"][0] != "run=a=b" || v["submitted_by"][0] != "joe" || v["entry"][0] != "run.sh" {
		t.Errorf("%v", v)
	}
	if p := form.File["bundle"]; len(p) != 1 || p[0].Filename != "prog.tar.gz" {
		t.Errorf("%v", form.File)
	}
	if got := m.run("", "job", "submit", "iris", program(m), "-o", "secret", "-q", "--url", f.url); got.out != handle+"\n" || !strings.HasPrefix(got.errout, "warning: ") {
		t.Errorf("%q %q", got.out, got.errout)
	}
}

func parseForm(t *testing.T, a asked) *multipart.Form {
	t.Helper()
	boundary, _, _ := strings.Cut(a.body, "\r\n")
	form, err := multipart.NewReader(strings.NewReader(a.body), strings.TrimPrefix(boundary, "--")).ReadForm(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return form
}

func TestSubmitAndWait(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.on("POST /v1/competitions/iris/jobs", api.Submitted{Job: api.Job{ID: "job_1"}, Handle: "h"})
	f.states("failed")
	m.run("", "submit", "iris", program(m), "--wait", "--url", f.url).want(t, 9, "failed", "Handed in as job_1.")
}

// TestFailedProgram: whoever waited for it learns the exit code, and where to
// look.
func TestFailedProgram(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.on("GET /v1/jobs/job_1", api.Job{
		ID: "job_1", State: "failed", Reason: "exit_code", Detail: "It ended.", ExitCode: ptr(3), StartedAt: &birth, EndedAt: &birth, Labels: map[string]string{"b": "2", "a": "1"},
	})
	for _, line := range []string{"job wait job_1", "job show job_1"} {
		code := 0
		if strings.Contains(line, "wait") {
			code = 9
		}
		got := m.run("", append(strings.Fields(line), "--url", f.url)...)
		got.want(t, code, "The program ended with exit code 3,", "gradegate job logs job_1")
		got.want(t, code, "a=1 b=2", "")
	}
}

// TestLogsAsJSON: an object for each line, with its place in the log.
func TestLogsAsJSON(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.handle("GET /v1/jobs/job_1/logs", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "step 0\n\n<b>\"\nrest") })
	const want = `{"offset":0,"text":"step 0"}
{"offset":7,"text":""}
{"offset":8,"text":"<b>\""}
{"offset":13,"text":"rest"}
`
	if got := m.run("", "job", "logs", "job_1", "-o", "json", "--url", f.url); got.out != want || got.code != 0 {
		t.Errorf("%d %s", got.code, got.out)
	}
	var b strings.Builder
	l := &lineObjects{w: &b}
	if _, err := l.Write([]byte(strings.Repeat("x", lineMax+1))); err != nil || strings.Count(b.String(), "\n") != 1 || len(l.rest) != 1 {
		t.Errorf("a line without end is kept whole: %d %v", len(l.rest), err)
	}
}

// TestHandleIsNoToken: what a job's handle is refused is explained to whoever
// holds one, and signing in is not what they are told to do again.
func TestHandleIsNoToken(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.JobKind))
	f.handle("GET /v1/tokens", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 403, "denied", "No.", "gradegate login") })
	m.run("", "token", "list", "--url", f.url).want(t, 5, "", "fix: What you use (from GRADEGATE_TOKEN) is the handle of one job")
	f.on("GET /v1/whoami", api.Whoami{Kind: "job", Job: "job_1"})
	m = newMachine(t)
	m.run(secretOf(token.JobKind), "login", "--token-stdin", "--url", f.url).want(t, 2, "", "handle of the job job_1")
	m.run("", "login", "--invite", secretOf(token.JobKind), "--url", f.url).want(t, 2, "", "handle of a job, and no invite code")
	if _, err := os.Stat(m.hosts()); err == nil {
		t.Error("it was stored")
	}
}

// TestHandleHasItsPlaceFirst: a job whose handle cannot be kept is not made.
func TestHandleHasItsPlaceFirst(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	m.run("", "submit", "iris", program(m), "--handle-file", "/nowhere/handle", "--url", f.url).want(t, 2, "", "The handle cannot be stored in /nowhere/handle")
	if len(f.requests()) != 0 {
		t.Error("it was sent")
	}
	kept := filepath.Join(m.home, "handle")
	m.run("", "submit", "iris", program(m), "--handle-file", kept, "--url", f.url).want(t, 3, "", "no such thing")
	if _, err := os.Stat(kept); err == nil {
		t.Error("an empty handle was left behind")
	}
}

func TestJobList(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	two := []api.Job{{ID: "job_2", State: "failed", Reason: "time_limit", CreatedAt: time.Now()}, {ID: "job_1", State: "succeeded", Scores: map[string]float64{"b": 0.5, "a": 1}}}
	f.on("GET /v1/jobs", api.Page[api.Job]{Items: two})
	got := m.run("", "job", "list", "--competition", "iris", "--state", "failed", "--user", "*", "--limit", "1", "--url", f.url)
	got.want(t, 0, "failed (time_limit)", "There are more: --limit 2")
	if route := f.requests()[0].route; strings.Contains(got.out, "job_1") || route != "GET /v1/jobs?competition=iris&limit=2&state=failed&user=%2A" {
		t.Errorf("%s %s", route, got.out)
	}
	m.run("", "job", "list", "--limit", "5000", "--url", f.url).want(t, 0, "a 1.0000, b 0.5000", "")
	if f.last().route != "GET /v1/jobs?limit=1000" {
		t.Error(f.last().route)
	}
}

// TestWhoseJobs: where jobs of others can stand, the table says whose they are,
// by the name if the server tells it; what cannot be found was not there.
func TestWhoseJobs(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	mine := api.Job{ID: "job_1", UserID: "usr_1", State: "queued", CreatedAt: time.Now()}
	other := api.Job{ID: "job_2", UserID: "usr_2", State: "queued", CreatedAt: time.Now()}
	f.on("GET /v1/jobs", api.Page[api.Job]{Items: []api.Job{mine, other}}).on("GET /v1/users", api.Page[api.User]{Items: []api.User{ann()}}).
		on("GET /v1/jobs/job_1", mine).on("GET /v1/jobs/job_2", other).on("GET /v1/whoami", api.Whoami{User: ptr(ann())})
	got := m.run("", "job", "list", "--user", "*", "--url", f.url)
	for _, line := range []string{"USER   JOB ", "ann    job_1 ", "usr_2  job_2 "} {
		got.want(t, 0, line, "")
	}
	if got := m.run("", "job", "list", "--url", f.url); strings.Contains(got.out, "USER") {
		t.Error(got.out)
	}
	if got := m.run("", "job", "show", "job_1", "--url", f.url); got.code != 0 || strings.Contains(got.out, "owner") {
		t.Errorf("one's own: %s", got.out)
	}
	m.run("", "job", "show", "job_2", "--url", f.url).want(t, 0, "owner      usr_2", "")
	joe := ann()
	joe.Name = "joe"
	f.on("GET /v1/users/usr_2", joe)
	m.run("", "job", "show", "job_2", "--url", f.url).want(t, 0, "owner      joe", "")

	f.on("GET /v1/jobs", api.Page[api.Job]{}).on("GET /v1/competitions/iris", api.Competition{Name: "iris"})
	m.run("", "job", "list", "--competition", "iris", "--url", f.url).want(t, 0, "JOB ", "")
	m.run("", "job", "list", "--competition", "nope", "--url", f.url).want(t, 3, "", "There is no such thing")
}

func TestCancelAndResult(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.JobKind))
	f.on("POST /v1/jobs/job_1/cancel", api.CancelJob{Job: api.Job{ID: "job_1", State: "succeeded"}, Already: "succeeded"}).
		on("GET /v1/jobs/job_1/result", api.Result{Job: "job_1", Scores: map[string]float64{"accuracy": 0.9}})
	m.run("", "cancel", "job_1", "--url", f.url).want(t, 0, "succeeded", "There was nothing left to cancel: it is over.")
	m.run("", "job", "result", "job_1", "--url", f.url).want(t, 0, "accuracy  0.9000", "")
	m.run("", "job", "result", "job_1", "-o", "json", "--url", f.url).want(t, 0, `"accuracy": 0.9`, "")
}
