package executor_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gradegate/internal/executor"
	"gradegate/internal/executor/executortest"
	"gradegate/internal/job"
)

// scene sets up what a hostile program would like to reach. Everything is open
// to everybody on the host: only the sandbox stands between.
func scene(t *testing.T, other job.Spec) targets {
	t.Helper()
	dir := t.TempDir()
	executortest.Reachable(t, dir)
	g := targets{pid: os.Getpid(), abstract: "@gradegate-" + strconv.Itoa(os.Getpid()) + filepath.Base(filepath.Dir(dir))}
	for _, name := range []string{"gradegate.db", "master.key", "hidden-labels.csv"} {
		path := filepath.Join(dir, name)
		executortest.WriteFile(t, path, "secret")
		g.files = append(g.files, path)
	}
	secret := filepath.Join(other.Dir, "output", "predictions.csv")
	executortest.WriteFile(t, secret, "another job's")
	g.files = append(g.files, secret, filepath.Join(other.Dir, "work", "main.sh"))
	// A socket's path must be short.
	short, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(short) })
	executortest.Reachable(t, short)
	g.socket = filepath.Join(short, "admin.sock")
	listen(t, "unix", g.socket)
	if err := os.Chmod(g.socket, 0o777); err != nil {
		t.Fatal(err)
	}
	listen(t, "unix", g.abstract)
	g.tcp = listen(t, "tcp", "127.0.0.1:0")
	return g
}

func listen(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// hostileJob has this test binary as its program.
func hostileJob(t *testing.T, args []string) job.Spec {
	t.Helper()
	s := executortest.NewJob(t, "")
	s.Entry, s.Args = "program", args
	// The race detector's shadow memory counts, and so do its threads.
	s.Resources.MemoryBytes, s.Resources.OutputBytes = 2<<30, 1<<30
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(s.Dir, "work", s.Entry), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return s
}

// sandboxes are the isolations that promise to hold a hostile program.
func sandboxes(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, name := range isolations(t) {
		if name != executor.None {
			list = append(list, name)
		}
	}
	return list
}

func TestHostileProgramStaysInside(t *testing.T) {
	t.Parallel()
	for _, only := range sandboxes(t) {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			// The victim runs under the program's own uid where we can arrange it.
			victim := exec.Command("/bin/sleep", "600")
			victim.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if os.Geteuid() == 0 {
				victim.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
			}
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			gone := make(chan struct{})
			go func() { _ = victim.Wait(); close(gone) }()
			t.Cleanup(func() { _ = victim.Process.Kill(); <-gone })

			g := scene(t, executortest.NewJob(t, "echo mine"))
			s := hostileJob(t, g.args())
			r := executortest.Do(t, with(only)(t, t.TempDir(), nil), s)
			log := executortest.Log(s)
			if strings.Contains(log, "BROKE OUT") || !strings.Contains(log, "tried "+strconv.Itoa(len(attempts))) || r.ExitCode != 0 {
				t.Errorf("%+v\n%s", r, log)
			}
			select {
			case <-gone:
				t.Error("the victim was killed")
			default:
			}
		})
	}
}

// TestNoKeysBetweenJobs: all programs have one uid, but no secret of one reaches
// another through the keyring of that uid.
func TestNoKeysBetweenJobs(t *testing.T) {
	t.Parallel()
	for _, only := range sandboxes(t) {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			e := with(only)(t, t.TempDir(), nil)
			keeper, seeker := hostileJob(t, []string{keyCommand, "keep"}), hostileJob(t, []string{keyCommand, "seek"})
			executortest.Start(t, e, keeper)
			executortest.Eventually(t, "the keeper has tried", func() bool { return strings.Contains(executortest.Log(keeper), "kept:") })
			r := executortest.Do(t, e, seeker)
			if log := executortest.Log(seeker); r.ExitCode != 0 || strings.Contains(log, keyText) || !strings.Contains(log, "sought: operation not permitted") {
				t.Errorf("%+v\n%s", r, log)
			}
			if log := executortest.Log(keeper); !strings.Contains(log, "kept: operation not permitted") {
				t.Errorf("the keeper: %s", log)
			}
			executortest.End(t, e, keeper)
		})
	}
}

// TestOrdinaryProgramsWork under the filter: processes, threads, pipes, sockets.
func TestOrdinaryProgramsWork(t *testing.T) {
	t.Parallel()
	python := `python3 -c '
import multiprocessing, os, socket, subprocess, tempfile, threading
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
s = socket.socket(); s.bind(("127.0.0.1", 0))
t = threading.Thread(target=lambda: None); t.start(); t.join()
assert subprocess.run(["true"]).returncode == 0
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as p: assert p.map(abs, [-1, -2]) == [1, 2]
'`
	for _, only := range append(sandboxes(t), executor.None) {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			s := executortest.NewJob(t, `set -e
				(sleep 0; echo a) | cat >/dev/null
				test "$(awk 'BEGIN { "echo b" | getline x; print x }')" = b
				if python3 -c '' 2>/dev/null; then `+python+`; fi
				echo fine`)
			s.Resources.MemoryBytes = 512 << 20
			r := executortest.Do(t, with(only)(t, t.TempDir(), nil), s)
			if r.ExitCode != 0 || r.Reason != "" || executortest.Log(s) != "fine\n" {
				t.Errorf("%+v\n%s", r, executortest.Log(s))
			}
		})
	}
}

// TestAttemptsWork keeps the test above honest: without a sandbox, the same
// program reaches a good deal.
func TestAttemptsWork(t *testing.T) {
	t.Parallel()
	g := scene(t, executortest.NewJob(t, "echo mine"))
	for _, name := range []string{"read the server's files", "connect to the admin socket", "connect to an abstract socket", "connect to the host", "see the host's processes"} {
		for _, a := range attempts {
			if a.name == name && a.try(g) == "" {
				t.Errorf("%q does not even work here", name)
			}
		}
	}
}

// TestGreedyPrograms has every sort of excess stopped, for the right reason,
// with nothing left afterwards.
func TestGreedyPrograms(t *testing.T) {
	t.Parallel()
	everywhere := append(sandboxes(t), executor.None)
	for name, c := range map[string]struct {
		script, reason string
		where          []string
	}{
		"fork bomb":     {`exec 2>/dev/null; bomb() { while :; do bomb & done; }; bomb & sleep 2; exit 0`, "process_limit", everywhere},
		"many children": {`(while :; do sleep 600 & done); sleep 600`, "process_limit", everywhere},
		"memory":        {`exec awk 'BEGIN { s = "0123456789abcdef"; while (1) { s = s s; a[n++] = s } }'`, "memory_limit", everywhere},
		"disk":          {`cd "$GRADEGATE_OUTPUT"; while :; do i=$((i+1)); head -c 1000000 /dev/zero > $i; done`, "output_limit", everywhere},
		"disk in work":  {`while :; do i=$((i+1)); head -c 1000000 /dev/zero > $i; done`, "output_limit", everywhere},
		"deleted files": {`i=3; while test $i -lt 9; do eval "exec $i>$i"; rm $i; head -c 4000000 /dev/zero >&$i; i=$((i+1)); done; sleep 600`, "output_limit", everywhere},
		"deep folders":  {`while :; do mkdir d && cd -P d; done`, "output_limit", everywhere},
		"unprintable":   {`cat /dev/zero`, "log_limit", everywhere},
		"daemon prints": {`(setsid sh -c 'trap "" TERM HUP; while :; do echo x; done' &); sleep 600`, "log_limit", everywhere},
		// Memory for files is limited by the file system itself: the program is told.
		"fill /tmp": {`cat /dev/zero > /tmp/a; cat /dev/zero > /dev/shm/b; rm -f /tmp/a /dev/shm/b; exit 0`, "", sandboxes(t)},
	} {
		for _, only := range c.where {
			t.Run(name+"/"+only, func(t *testing.T) {
				t.Parallel()
				s := executortest.NewJob(t, c.script)
				s.Resources.MemoryBytes = 64 << 20
				r := executortest.Do(t, with(only)(t, t.TempDir(), nil), s)
				// A bomb may burn out at the kernel's limit before it is seen; memory
				// for files may be used up before /tmp is full.
				other := map[string]string{"fork bomb": "", "fill /tmp": "memory_limit"}
				if also, ok := other[name]; r.Reason != c.reason && !(ok && r.Reason == also) {
					t.Errorf("%+v\nlog %.500q", r, executortest.Log(s))
				}
				nothingLeft(t, s)
			})
		}
	}
}

// TestDaemonsDie looks for processes that outlive the program.
func TestDaemonsDie(t *testing.T) {
	t.Parallel()
	for _, only := range append(sandboxes(t), executor.None) {
		t.Run(only, func(t *testing.T) {
			t.Parallel()
			s := executortest.NewJob(t, `(setsid sh -c 'trap "" TERM HUP INT; echo up >&3; while :; do sleep 600; done' 3>up >/dev/null 2>&1 &)
				while ! test -s up; do sleep 0.02; done; echo bye`)
			r := executortest.Do(t, with(only)(t, t.TempDir(), nil), s)
			if r.Reason != "" || r.ExitCode != 0 || executortest.Log(s) != "bye\n" {
				t.Errorf("%+v, log %q", r, executortest.Log(s))
			}
			nothingLeft(t, s)
		})
	}
}

// nothingLeft fails if a process of the job is alive: all of them know its id.
func nothingLeft(t *testing.T, s job.Spec) {
	t.Helper()
	if mentions(t, s.ID) {
		t.Error("a process is left of the job")
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/gradegate-" + string(s.ID))
	if err != nil || len(groups) > 0 {
		t.Errorf("groups left: %v, %v", groups, err)
	}
}
