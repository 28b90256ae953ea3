package executor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gradegate/internal/fault"
	"gradegate/internal/job"
)

const (
	// answerTime is how long a supervisor may take until it has claimed its job.
	answerTime = 15 * time.Second
	planSuffix = ".json"
)

// idForm keeps ids from being paths.
var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

// local runs jobs on this host. Everything it knows is on the disk: a plan per
// job in its own folder, the rest in the folder of the job.
type local struct {
	o    Options
	box  boxKind
	with Isolation
	mu   sync.Mutex // one decision about slots, GPUs and starts at a time
}

func openLocal(o Options) (*local, error) {
	if o.Dir == "" {
		return nil, fault.New(fault.Invalid, "executor_dir", "The local executor needs a folder.").WithFix("Set Options.Dir.")
	}
	o = o.withDefaults()
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	l := &local{o: o}
	l.box, l.with = probe(o)
	return l, nil
}

// Probe says which isolation jobs get, and why not a better one.
func (l *local) Probe() Isolation { return l.with }

// Submit is described at Executor.
func (l *local) Submit(ctx context.Context, s job.Spec) error {
	if err := check(s); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, "submit_interrupted", "The job was not started yet.", err)
	}
	release, err := l.exclusive()
	if err != nil {
		return startFault(err)
	}
	defer release()
	p, known, err := l.plan(s.ID)
	if err == nil && !known {
		p, err = l.admit(s)
	}
	if err != nil {
		return startFault(err)
	}
	f := folder(p.Spec.Dir)
	if f.has(startedName) {
		return nil
	}
	return l.spawn(ctx, p)
}

func check(s job.Spec) error {
	switch {
	case !idForm.MatchString(string(s.ID)):
		return fault.New(fault.Invalid, "job_id", "This is no job id.")
	case !filepath.IsAbs(s.Dir):
		return fault.New(fault.Invalid, "job_dir", "The job's folder must be an absolute path.")
	}
	return nil
}

// admit decides whether there is room for a job that was never seen, and
// writes its plan.
func (l *local) admit(s job.Spec) (plan, error) {
	var p plan
	if folder(s.Dir).has(startedName) {
		return p, fault.New(fault.Conflict, "job_forgotten", "The job was started before and is over; it is not started again.")
	}
	if l.box.Name == "" {
		return p, errNoSandbox(l.with)
	}
	if s.Resources.GPUs > len(l.o.GPUs) {
		return p, fault.New(fault.Denied, "too_few_gpus", "The job needs %d GPUs, and this host has %d.", s.Resources.GPUs, len(l.o.GPUs)).
			WithFix("Ask an administrator to lower the competition's gpus or to add to executor.local.gpus.")
	}
	live, taken, err := l.live()
	if err != nil {
		return p, err
	}
	if live >= l.o.Slots {
		return p, fault.New(fault.Limited, "no_free_slot", "All %d slots are busy.", l.o.Slots).WithFix("Wait; the job is started when a slot is free.")
	}
	var free []string
	for _, id := range l.o.GPUs {
		if !taken[id] && !slices.Contains(free, id) {
			free = append(free, id)
		}
	}
	if len(free) < s.Resources.GPUs {
		return p, fault.New(fault.Limited, "no_free_gpu", "Only %d GPUs are free.", len(free)).WithFix("Wait; the job is started when enough are free.")
	}
	p = plan{
		Spec: s, Box: l.box, GPUs: free[:max(0, s.Resources.GPUs)], Self: l.o.Self, ReadOnly: l.o.ReadOnly, Path: l.o.Path, Grace: l.o.Grace,
	}
	p.Spec.Dir = filepath.Clean(s.Dir)
	return p, writeJSON(l.planPath(s.ID), p)
}

// live counts the jobs that have not ended, and the GPUs they hold. A job that
// was planned and not yet started counts: its Submit is about to come again.
func (l *local) live() (n int, taken map[string]bool, err error) {
	taken = map[string]bool{}
	names, err := filepath.Glob(filepath.Join(l.o.Dir, "*"+planSuffix))
	if err != nil {
		return 0, nil, err
	}
	for _, name := range names {
		p, ok, err := l.plan(job.ID(strings.TrimSuffix(filepath.Base(name), planSuffix)))
		if err != nil || !ok {
			return 0, nil, errors.Join(err, unlessOK(ok, "a plan vanished: two executors share "+l.o.Dir))
		}
		r, err := l.report(p)
		if err != nil {
			return 0, nil, err
		}
		if r.Phase == job.PhaseExited {
			continue
		}
		n++
		for _, id := range p.GPUs {
			taken[id] = true
		}
	}
	return n, taken, nil
}

// spawn starts a supervisor and waits until it has claimed the job. When the
// wait is cut short the supervisor goes on; a second Submit then finds its mark.
func (l *local) spawn(ctx context.Context, p plan) error {
	path := l.planPath(p.Spec.ID)
	r, w, err := os.Pipe()
	if err != nil {
		return startFault(err)
	}
	defer r.Close() // read only
	said, err := os.OpenFile(folder(p.Spec.Dir).path("supervisor.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return errors.Join(startFault(err), w.Close(), os.Remove(path))
	}
	defer said.Close() // the supervisor has its own copy
	cmd := exec.Command(l.o.Self[0], append(slices.Clone(l.o.Self[1:]), SuperviseCommand, path)...)
	cmd.Args[0], cmd.Dir, cmd.Env = "gradegate", "/", []string{"PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = said, said, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // our signals are not its signals
	err = cmd.Start()
	_ = w.Close() // the supervisor has its own copy
	if err != nil {
		return errors.Join(startFault(err), os.Remove(path))
	}
	go func() { _ = cmd.Wait() }() // its result is in the job's folder
	if err := r.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return startFault(err)
	}
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) })() // best effort: it only ends the wait early
	text := make([]byte, 1000)
	n, err := r.Read(text)
	switch answer := string(text[:n]); {
	case answer == "ok" || folder(p.Spec.Dir).has(startedName):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return startFault(err)
	default: // it gave up before it claimed the job
		return errors.Join(startFault(errors.New("supervisor: "+answer)), os.Remove(path))
	}
}

// startFault is trouble of this host's, to be tried again; what is a fault
// already stays what it is.
func startFault(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	return fault.Wrap(fault.Unavailable, "executor_unavailable", "The job could not be started just now.", err)
}

// Status is described at Executor.
func (l *local) Status(_ context.Context, id job.ID) (job.Report, error) {
	p, known, err := l.plan(id)
	if err != nil || !known {
		return job.Report{Phase: job.PhaseUnknown}, err
	}
	return l.report(p)
}

// report tells what became of a plan, and settles what nobody watches any more.
func (l *local) report(p plan) (job.Report, error) {
	f := folder(p.Spec.Dir)
	if !isDir(string(f)) {
		return job.Report{Phase: job.PhaseExited, ExitCode: -1, Reason: "lost", Detail: "The job's folder is gone.", GPUs: p.GPUs}, nil
	}
	watched, err := f.supervised()
	if err != nil {
		return job.Report{}, err
	}
	// Read after the lock was asked for: what was written before its release is
	// there.
	s, written, err := f.state()
	switch {
	case err != nil:
		return job.Report{}, err
	case written && s.Report.Phase == job.PhaseExited:
		return s.Report, nil
	case watched && written:
		return s.Report, nil
	case watched:
		return job.Report{Phase: job.PhaseStarting, GPUs: p.GPUs}, nil
	case !f.has(startedName):
		return job.Report{Phase: job.PhaseUnknown}, nil
	}
	return l.settle(p, "lost", "The process that watched the job died, perhaps with the host; how the job ended is not known, and it was not started again.")
}

// settle gives a job its end that has a mark and nobody to watch it. What is
// left of it is killed.
func (l *local) settle(p plan, reason, detail string) (job.Report, error) {
	f := folder(p.Spec.Dir)
	lock, err := f.lock()
	if err != nil {
		return job.Report{}, err
	}
	if lock == nil { // somebody else is settling it
		return job.Report{Phase: job.PhaseRunning, GPUs: p.GPUs}, nil
	}
	defer lock.Close() // releases it
	s, written, err := f.state()
	if err != nil {
		return job.Report{}, err
	}
	if written && s.Report.Phase == job.PhaseExited {
		return s.Report, nil
	}
	killSession(s.Root)
	killCgroups(s.Cgroups)
	s.Report.Phase, s.Report.ExitCode, s.Report.EndedAt = job.PhaseExited, -1, now()
	s.Report.Reason, s.Report.Detail, s.Report.GPUs = reason, detail, p.GPUs
	return s.Report, f.putState(s)
}

// Cancel is described at Executor.
func (l *local) Cancel(_ context.Context, id job.ID) error {
	p, known, err := l.plan(id)
	if err != nil || !known {
		return err
	}
	f := folder(p.Spec.Dir)
	s, _, err := f.state()
	if err != nil || s.Report.Phase == job.PhaseExited || !isDir(string(f)) {
		return err
	}
	wish, err := os.OpenFile(f.path(cancelName), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(wish.Sync(), wish.Close(), syncDir(string(f))); err != nil {
		return err
	}
	watched, err := f.supervised()
	if err != nil {
		return err
	}
	if watched {
		_ = s.Supervisor.signal(unix.SIGUSR1) // it also looks by itself
		return nil
	}
	// Planned and never started: use up the start, so that it never is.
	if mine, err := f.claim("cancel"); err != nil || !mine {
		return err
	}
	_, err = l.settle(p, "cancelled", "The job was stopped before it started.")
	return err
}

// Forget is described at Executor.
func (l *local) Forget(_ context.Context, id job.ID) error {
	release, err := l.exclusive()
	if err != nil {
		return err
	}
	defer release()
	p, known, err := l.plan(id)
	if err != nil || !known {
		return err
	}
	r, err := l.report(p)
	if err != nil {
		return err
	}
	over := r.Phase == job.PhaseExited
	if r.Phase == job.PhaseUnknown { // never started: see that it never is
		if over, err = folder(p.Spec.Dir).claim("forget"); err != nil {
			return err
		}
	}
	if !over {
		return fault.New(fault.Conflict, "job_running", "The job has not ended.").WithFix("Cancel it and wait for its end.")
	}
	return errors.Join(os.Remove(l.planPath(id)), syncDir(l.o.Dir))
}

func (l *local) planPath(id job.ID) string { return filepath.Join(l.o.Dir, string(id)+planSuffix) }

func (l *local) plan(id job.ID) (p plan, known bool, err error) {
	if !idForm.MatchString(string(id)) {
		return p, false, nil
	}
	known, err = readJSON(l.planPath(id), &p)
	return p, known, err
}

// exclusive holds off every other decision, in this process and in others that
// use the same folder, until release is called.
func (l *local) exclusive() (release func(), err error) {
	l.mu.Lock()
	file, err := os.OpenFile(filepath.Join(l.o.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		l.mu.Unlock()
		return nil, err
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		l.mu.Unlock()
		return nil, errors.Join(err, file.Close())
	}
	return func() {
		_ = file.Close() // releases it
		l.mu.Unlock()
	}, nil
}
