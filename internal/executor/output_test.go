package executor_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"gradegate/internal/executor"
	"gradegate/internal/executor/executortest"
	"gradegate/internal/fault"
)

// TestOpenOutput lets a program leave traps for whoever collects its output.
func TestOpenOutput(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	executortest.WriteFile(t, secret, "secret")
	e := with(executor.Namespaces)(t, t.TempDir(), nil)
	s := executortest.NewJob(t, `cd "$GRADEGATE_OUTPUT"
		echo good > good; mkdir -p dir/sub; echo deep > dir/sub/file
		ln -s "$1" link; ln -s good inner; ln -s / root; ln -s dir way; ln -s ../run_token token; ln -s nowhere dangling
		mkfifo pipe; ln good a; ln a b; rm a; truncate -s 9000000 big; echo x > closed; chmod 0 closed; ln -s loop loop`)
	s.Args = []string{secret}
	if r := executortest.Do(t, e, s); r.Reason != "" || r.ExitCode != 0 {
		t.Fatalf("%+v, log %q", r, executortest.Log(s))
	}
	if err := os.Remove(filepath.Join(s.Dir, "output", "b")); err != nil { // so that good has one name again
		t.Fatal(err)
	}
	if err := os.Link(secret, filepath.Join(s.Dir, "output", "hard")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"good": "good\n", "dir/sub/file": "deep\n", "dir/../good": "good\n"} {
		f, err := executor.OpenOutput(s, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, err := io.ReadAll(f)
		if err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		_ = f.Close()
	}
	for name, want := range map[string]fault.Kind{
		"link": fault.Invalid, "inner": fault.Invalid, "root/etc/passwd": fault.Invalid, "way/sub/file": fault.Invalid,
		"token": fault.Invalid, "dangling": fault.Invalid, "loop": fault.Invalid, "pipe": fault.Invalid, "dir": fault.Invalid,
		"hard": fault.Invalid, "../run_token": fault.Invalid, "/etc/passwd": fault.Invalid, "": fault.Invalid, ".": fault.Invalid,
		"big": fault.TooLarge, "none": fault.NotFound, "good/x": fault.Invalid, "dir/none": fault.NotFound,
	} {
		f, err := executor.OpenOutput(s, name)
		if fault.KindOf(err) != want || f != nil {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
	f, err := executor.OpenOutput(s, "closed")
	if os.Geteuid() == 0 { // root reads it
		if err != nil {
			t.Errorf("closed: %v", err)
		} else {
			_ = f.Close()
		}
	} else if fault.KindOf(err) != fault.Invalid {
		t.Errorf("closed: %v", err)
	}
}
