package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/executor"
	"gradegate/internal/job"
	"gradegate/internal/token"
)

// TestMain makes this test its own supervisor of jobs, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == executor.SuperviseCommand || os.Args[1] == executor.InitCommand) {
		os.Exit(Run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestCheckSendsNothing(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t)
	m.run("", "submit", "iris", program(m), "--check", "--url", f.url).want(t, 0, "entry point  run.sh", "Nothing was handed in.")
	m.run("", "submit", "iris", program(m), "--check", "-o", "json", "--url", f.url).want(t, 0, `"entry": "run.sh"`, "")
	for text, want := range map[string]string{
		"id,label\n1,a\n":                 "",
		"\xef\xbb\xbfid,value\r\n1,2\r\n": "",
		"\"id\",\"label\"\n1,a\n":         "",
		"id,probability\n1,0.5\n":         "",
		"id,species\n1,a\n":               "must begin with the line id,label",
		"id,label\n":                      "has no rows",
		"":                                "The file is empty.",
		"id,label\n1,a\n1,b\n":            "repeats an id",
		"id,label\n1\n":                   "where 2 belong",
		"id,label\n1,\n":                  "empty or overlong field",
		"id,label\n\"1,a\n":               "is no CSV",
		"id,value\n1,NaN\n":               "holds no number",
		"id,probability\n1,1.5\n":         "not between 0 and 1",
		"id,label\n1,\xff\n":              "not UTF-8",
	} {
		p := m.write("p.csv", text, 0o600)
		code := 0
		if want != "" {
			code = 2
		}
		got := m.run("", "submit", "iris", p, "--check", "--url", f.url)
		if got.code != code || !strings.Contains(got.errout, want) || code != 0 && !strings.Contains(got.errout, "\nfix: ") {
			t.Errorf("%q: %d %s", text, got.code, got.errout)
		}
	}
	m.write("none/readme.txt", "x", 0o600)
	m.write("none/other.txt", "x", 0o600)
	m.run("", "submit", "iris", filepath.Join(m.home, "none"), "--check").want(t, 2, "", "no entry point")
	m.run("", "submit", "iris", filepath.Join(m.home, "missing"), "--check").want(t, 2, "", "missing")
	if len(f.requests()) != 0 {
		t.Error("something was sent")
	}
}

// entries are entry points, and whether they can be started.
var entries = []struct {
	name, text string
	mode       os.FileMode
	starts     bool
	says       string
}{
	{"readme.txt", "hello\n", 0o644, false, "cannot be started"},
	{"readme", "hello\n", 0o755, false, "cannot be started"},
	{"run.sh", "true\n", 0o644, true, ""},
	{"run", "#!/bin/sh\ntrue\n", 0o644, true, ""},
	{"main.py", "pass\n", 0o644, true, ""},
	{"empty.sh", " ", 0o644, true, ""},
	{"run.sh", "#!/bin/sh\r\ntrue\r\n", 0o755, false, `sed -i 's/\r$//' `},
	{"start", "#!/bin/sh\r\ntrue\r\n", 0o755, false, `sed -i 's/\r$//' `},
	{"main.py", "#!/usr/bin/env python3\r\npass\r\n", 0o755, false, `sed -i 's/\r$//' `},
	{"plain.py", "pass\r\n", 0o644, true, ""},
}

// TestCheckAgreesWithTheExecutor: what a check lets pass can be started, and
// what it refuses could not be.
func TestCheckAgreesWithTheExecutor(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	ex := sandbox(t)
	for i, e := range entries {
		dir := filepath.Join(m.home, "p"+string(rune('a'+i)))
		m.write(filepath.Join(dir, e.name), e.text, e.mode)
		got := m.run("", "submit", "iris", dir, "--check")
		if (got.code == 0) != e.starts || !strings.Contains(got.errout, e.says) {
			t.Errorf("%s %q: check says %d %s", e.name, e.text, got.code, got.errout)
		}
		if e.name == "main.py" || e.name == "plain.py" {
			continue // this machine may have no python3
		}
		open, name, _, err := opener(dir)
		if err != nil {
			t.Fatal(err)
		}
		spec := job.Spec{ID: job.ID("job_" + string(rune('a'+i))), Dir: t.TempDir(), Entry: e.name, Resources: job.Resources{TimeLimit: time.Minute}}
		if _, err := unpackInto(filepath.Join(spec.Dir, "work"), name, open); err != nil {
			t.Fatal(err)
		}
		if err := ex.Submit(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		r, err := (&app{stderr: io.Discard}).watch(t.Context(), ex, spec)
		if started := err == nil && r.Reason == "" && r.ExitCode == 0; started != e.starts {
			t.Errorf("%s %q: the executor says %+v %v", e.name, e.text, r, err)
		}
	}
}

// sandbox is an executor that isolates programs; a test that needs one is
// skipped where there is none.
func sandbox(t *testing.T) executor.Executor {
	t.Helper()
	ex, err := executor.Open("local", executor.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := ex.(executor.Prober); ok && p.Probe().Kind == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("this machine cannot isolate programs: sh scripts/deps.sh")
		}
		t.Skip("this machine cannot isolate programs: sh scripts/deps.sh")
	}
	return ex
}

// TestWindowsLinesAreMended: the command that is named works, also for a file
// and, as far as it can, for an archive.
func TestWindowsLinesAreMended(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const text = "#!/bin/sh\r\n"
	file := m.write("my prog/run.sh", text, 0o755)
	m.run("", "submit", "iris", filepath.Dir(file), "--check").want(t, 2, "", `fix: sed -i 's/\r$//' '`+file+"'\n")
	m.run("", "submit", "iris", file, "--check").want(t, 2, "", `fix: sed -i 's/\r$//' '`+file+"'\n")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "run.sh", Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m.run("", "submit", "iris", m.write("p.tar", b.String(), 0o600), "--check").want(t, 2, "", `sed -i 's/\r$//' run.sh, in the folder that you packed`)
}

// iris answers as a server with a small competition.
func iris(f *fake) {
	f.on("GET /v1/competitions/iris", api.Competition{
		Name: "iris", Metrics: []string{"accuracy"}, Accept: []string{"program", "predictions"}, Files: []string{"sub/test.csv", "train.csv"},
		Resources: api.Resources{CPUs: 1, Memory: "256MiB", TimeLimit: "2s"},
	})
	for path, text := range map[string]string{"sub/test.csv": "x,id\n1,a\n2,b\n3,c\n", "train.csv": "id,x\nz,1\n"} {
		f.handle("GET /v1/competitions/iris/files/"+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
	}
}

// TestTryOut runs a program as the server would, and tells what came of it.
func TestTryOut(t *testing.T) {
	t.Parallel()
	sandbox(t)
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	iris(f)
	const header = "echo id,label > $GRADEGATE_OUTPUT/predictions.csv\n"
	rows := func(ids string) string {
		return header + "for i in " + ids + "; do echo $i,x >> $GRADEGATE_OUTPUT/predictions.csv; done\n"
	}
	for script, want := range map[string]struct {
		code        int
		out, errout string
	}{
		"cut -d, -f2 $GRADEGATE_DATA/sub/test.csv; echo arg $1\n" + rows("a b c"): {0, "3 rows, well formed; the ids are those of sub/test.csv", "id\na\nb\nc\narg --fast\n"},
		rows("a b"):                 {9, "", `lacks 1 of 3 rows, such as "c"`},
		rows("a b c d"):             {9, "", "with an id that is not in the test file"},
		"echo oh; exit 3":           {9, "", "oh\nerror: The program ended with exit code 3,"},
		"true":                      {9, "", "left no predictions.csv"},
		"sleep 60":                  {9, "", "time limit"},
		"cat /etc/shadow && exit 0": {9, "", "exit code"},
		"mkfifo $GRADEGATE_OUTPUT/predictions.csv": {9, "", "is no regular file"},
	} {
		m.write("prog/run.sh", script, 0o755)
		got := m.run("", "submit", "iris", filepath.Join(m.home, "prog"), "--check", "--run", "--url", f.url, "--", "--fast")
		got.want(t, want.code, want.out, want.errout)
	}
	for _, a := range f.requests() {
		if !strings.HasPrefix(a.route, "GET ") {
			t.Errorf("sent %s", a.route)
		}
	}
	m.write("prog/run.sh", rows("a b c"), 0o755)
	got := m.run("", "submit", "iris", filepath.Join(m.home, "prog"), "--check", "--run", "-o", "json", "--url", f.url)
	got.want(t, 0, `"rows": 3`, "")
	got.want(t, 0, "the grade, for which the labels are hidden", "")
}

// TestTryOutPredictions compares a file with the public ids, and runs nothing.
func TestTryOutPredictions(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	iris(f)
	check := func(text string) done {
		return m.run("", "submit", "iris", m.write("p.csv", text, 0o600), "--check", "--run", "--url", f.url)
	}
	check("id,label\na,x\nb,x\nc,x\n").want(t, 0, "the ids are those of sub/test.csv", "")
	check("id,label\na,x\n").want(t, 2, "", "lacks 2 of 3 rows")
	check("id,value\na,1\n").want(t, 2, "", "must begin with the line id,label")
	f.handle("GET /v1/competitions/iris/files/sub/test.csv", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x\n1\n") })
	check("id,label\na,x\n").want(t, 0, "whether every id is there and none is too much", "")
}

// TestInterruptedTryOut: Ctrl-C stops the program too; it is a process of its
// own that would go on.
func TestInterruptedTryOut(t *testing.T) {
	t.Parallel()
	ex := sandbox(t)
	spec := job.Spec{ID: "job_long", Dir: t.TempDir(), Entry: "run.sh", Resources: job.Resources{TimeLimit: time.Hour}}
	m := newMachine(t)
	m.write(filepath.Join(spec.Dir, "work", "run.sh"), "echo up\nsleep 600\n", 0o755)
	if err := ex.Submit(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := (&app{stderr: writerFunc(func(p []byte) (int, error) {
		cancel() // once it has printed
		return len(p), nil
	})}).watch(ctx, ex, spec)
	if err != nil || r.Phase != job.PhaseExited || r.Reason != "cancelled" {
		t.Errorf("%+v %v", r, err)
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }
