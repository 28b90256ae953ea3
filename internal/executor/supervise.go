package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"gradegate/internal/job"
)

// readyFD is where the server waits for the supervisor's first word.
const readyFD = 3

// supervisor is the process that runs one job and outlives the server.
type supervisor struct {
	lock  *os.File // held until the process ends
	plan  plan
	dir   folder
	state state
	group *cgroup
	child *child
	watch watch
}

// Supervise is the hidden sub-command SuperviseCommand: it runs the job of one
// plan to its end. args are os.Args[2:], the path of the plan; the result is
// the exit code. Started a second time for the same job, it does nothing.
func Supervise(args []string) int {
	runtime.LockOSThread() // the room dies with the thread that started it
	wake := make(chan os.Signal, 4)
	signal.Notify(wake, unix.SIGUSR1, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	ready := os.NewFile(readyFD, "ready")
	s, err := takeOver(args)
	answer := "ok"
	if err != nil {
		answer = err.Error()
	}
	_, _ = ready.WriteString(answer) // the server may be dead; the job is not
	_ = ready.Close()                // likewise
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if s == nil {
		return 0
	}
	s.run(wake)
	err = s.dir.putState(s.state)
	// The lock goes with the file, and collected as garbage the file would go.
	runtime.KeepAlive(s.lock)
	if err != nil {
		fmt.Fprintln(os.Stderr, "write the result:", err)
		return 1
	}
	return 0
}

// takeOver makes this process the one supervisor of the job. It returns nil
// without an error if the job has, or had, another one.
func takeOver(args []string) (*supervisor, error) {
	if len(args) != 1 {
		return nil, errors.New("this command is started by gradegate itself")
	}
	s := &supervisor{}
	if ok, err := readJSON(args[0], &s.plan); err != nil || !ok {
		return nil, errors.Join(err, unlessOK(ok, "there is no plan"))
	}
	s.dir = folder(s.plan.Spec.Dir)
	lock, err := s.dir.lock()
	if err != nil || lock == nil {
		return nil, err
	}
	s.lock = lock
	if _, err := os.Lstat(args[0]); errors.Is(err, fs.ErrNotExist) {
		return nil, nil // forgotten while we started
	}
	mine, err := s.dir.claim(fmt.Sprintf("supervisor %d", os.Getpid()))
	if err != nil || !mine {
		return nil, err
	}
	s.plan.Spec.Resources = bounded(s.plan.Spec.Resources)
	s.state = state{
		Report:     job.Report{Phase: job.PhaseStarting, Isolation: s.plan.Box.Name, GPUs: s.plan.GPUs},
		Supervisor: self(),
	}
	return s, s.dir.putState(s.state)
}

func unlessOK(ok bool, text string) error {
	if ok {
		return nil
	}
	return errors.New(text)
}

// run runs the job from start to end and leaves the result in s.state.
func (s *supervisor) run(wake <-chan os.Signal) {
	log, err := os.OpenFile(s.dir.log(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		s.failed(err)
		return
	}
	defer func() { _ = log.Close() }() // synced before
	if s.dir.has(cancelName) {
		s.ended(job.Report{Reason: "cancelled", Detail: "The job was stopped before it started.", ExitCode: -1})
		return
	}
	b, err := furnish(s.plan)
	if err != nil {
		s.failed(err)
		return
	}
	// Orphans of the program come to us, not to the host's first process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		s.failed(err)
		return
	}
	s.group = newCgroup(string(s.plan.Spec.ID), s.plan.Spec.Resources)
	defer s.group.remove()
	s.tighten(&b)
	output, err := s.open(b, log)
	if err != nil {
		s.failed(err)
		return
	}
	s.observe(wake, output)
	s.finish(output)
	if err := log.Sync(); err != nil {
		fmt.Fprintln(os.Stderr, "sync the log:", err)
	}
}

// tighten adds the rlimits that stand in for cgroups that this host denies us.
func (s *supervisor) tighten(b *box) {
	r := s.plan.Spec.Resources
	if s.group.memory == "" {
		// Per process, and twice as much: what is reserved is not yet used. The
		// sum of what is used is polled.
		b.Limits.DataBytes = uint64(max(2*r.MemoryBytes, r.MemoryBytes+256<<20))
	}
	switch {
	case b.ownUserNS() && processesPerNamespace():
		b.Limits.Tasks = uint64(r.Processes + spareTasks)
	case s.group.pids == "":
		// The kernel counts all of the uid's. A thousand more keeps a fork bomb from
		// the host until it is noticed, and other jobs from hindering this one.
		b.Limits.Tasks = uint64(tasksOf(b.uid()) + r.Processes + 1000)
	}
	s.state.Report.Isolation = Isolation{Kind: b.Kind.Name, Limits: s.group.limits(), Unfiltered: !filters()}.String()
	s.state.Cgroups = s.group.dirs
}

// processesPerNamespace reports whether RLIMIT_NPROC counts the processes of a
// user namespace; before Linux 5.14 it counted all of the uid's on the host.
func processesPerNamespace() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor) // n says enough
	return n == 2 && (major > 5 || major == 5 && minor >= 14)
}

// open starts the program and records that it runs before it does anything.
func (s *supervisor) open(b box, log *os.File) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.watch.begin(s)
	s.child, err = b.start(w, func(pid int) error {
		if err := s.group.add(pid); err != nil {
			return err
		}
		p, ok := inspect(pid)
		if !ok {
			return errors.New("the sandbox ended before it began")
		}
		s.state.Root = p.identity
		s.state.Report.Phase, s.state.Report.StartedAt = job.PhaseRunning, now()
		return s.dir.putState(s.state)
	})
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return collect(r, log, s.plan.Spec.Resources.LogBytes), nil
}

// finish makes sure that nothing of the job is left, and judges it.
func (s *supervisor) finish(out *output) {
	if err := sweep(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	killCgroups(s.group.dirs)
	select {
	case <-out.done:
	case <-time.After(5 * time.Second): // somebody outside holds the pipe
	}
	_ = out.r.Close() // read only
	s.ended(s.verdict(s.child.end()))
}

// verdict turns the end of the program into a report.
func (s *supervisor) verdict(end status) job.Report {
	r := job.Report{ExitCode: -1}
	if end.ExitCode != nil && end.Signal == 0 {
		r.ExitCode = *end.ExitCode
	}
	limits := s.plan.Spec.Resources
	switch {
	case s.watch.reason != "":
		r.Reason, r.Detail = s.watch.reason, s.watch.detail
	case s.watch.oom, s.group.memory == "" && r.ExitCode != 0 && burst(limits.MemoryBytes):
		r.ExitCode, r.Reason, r.Detail = -1, "memory_limit", tooMuch(limits.MemoryBytes)
	case s.watch.crowded:
		r.ExitCode, r.Reason, r.Detail = -1, "process_limit", tooMany(limits.Processes)
	case end.Error != "":
		r.ExitCode, r.Reason, r.Detail = -1, "start_failed", sentence("The program could not be started: "+end.Error)
	case end.Signal == int(unix.SIGXFSZ):
		r.Reason, r.Detail = "output_limit", "The program wrote a file that is larger than allowed."
	case end.Signal == int(unix.SIGXCPU):
		r.Reason, r.Detail = "time_limit", "The program used more processor time than its time limit allows."
	case end.Signal != 0:
		r.Reason, r.Detail = "signal", fmt.Sprintf("The program was ended by a signal: %v.", unix.Signal(end.Signal))
	}
	if r.Reason != "" {
		return r
	}
	if detail := s.watch.finally(s); detail != "" {
		r.Reason, r.Detail = "output_limit", detail
	}
	return r
}

func (s *supervisor) failed(err error) {
	s.ended(job.Report{ExitCode: -1, Reason: "start_failed", Detail: sentence("The program could not be started: " + err.Error())})
}

// ended completes the report; Supervise writes it.
func (s *supervisor) ended(r job.Report) {
	had := s.state.Report
	r.Phase, r.StartedAt, r.EndedAt, r.Isolation, r.GPUs = job.PhaseExited, had.StartedAt, now(), had.Isolation, had.GPUs
	s.state.Report = r
}

func sentence(s string) string {
	if s != "" && s[len(s)-1] != '.' {
		return s + "."
	}
	return s
}

// now is the wall clock: a supervisor has no other, and its times are for
// people.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
