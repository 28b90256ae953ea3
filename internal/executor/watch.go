package executor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gradegate/internal/config"
)

const (
	// tick is how often a job is looked at: what it may do between two looks is
	// bounded by rlimits and cgroups.
	tick = 100 * time.Millisecond
	// diskReserve is the space that must stay free for the server. A job that has
	// written more than its output limit is stopped when less is left, wherever
	// it hides what it wrote.
	diskReserve = 512 << 20
)

// watch is what the supervisor knows while the program runs.
type watch struct {
	reason, detail string // why it is being stopped; empty: it is not
	killAt         time.Time
	deadline       time.Time
	base           int64 // size of work at the start
	device         uint64
	nextCount      time.Time
	oom, crowded   bool // what the cgroups tell at the end
}

func (w *watch) begin(s *supervisor) {
	w.deadline = time.Now().Add(s.plan.Spec.Resources.TimeLimit)
	w.device, _ = fileSystem(s.dir.output())
	if t, err := measure(s.dir.work(), false); err == nil {
		w.base = t.bytes
	}
}

// observe returns when the first process of the job has ended.
func (s *supervisor) observe(wake <-chan os.Signal, out *output) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	full := out.full
	for {
		select {
		case <-s.child.done:
			s.watch.oom, s.watch.crowded = s.group.outOfMemory(), s.group.outOfTasks()
			return
		case <-full:
			full = nil
			s.kill("log_limit", "The program printed more than "+config.FormatBytes(s.plan.Spec.Resources.LogBytes)+".")
		case sig := <-wake:
			if sig != unix.SIGUSR1 && sig != unix.SIGHUP {
				s.ask("lost", "The host was shut down while the job ran; it was not started again.")
			}
			s.look()
		case <-ticker.C:
			s.look()
		}
	}
}

// look checks every limit once.
func (s *supervisor) look() {
	r := s.plan.Spec.Resources
	if s.watch.reason == "" && s.dir.has(cancelName) {
		s.ask("cancelled", "The job was stopped as asked.")
	}
	if !time.Now().Before(s.watch.deadline) {
		s.ask("time_limit", fmt.Sprintf("The job ran longer than its time limit of %v.", r.TimeLimit))
	}
	if !s.watch.killAt.IsZero() && !time.Now().Before(s.watch.killAt) {
		s.killAll()
	}
	s.count()
}

// count looks at what the job uses. On a host with many processes, or with many
// files, that takes long, and is done less often.
func (s *supervisor) count() {
	start := time.Now()
	if start.Before(s.watch.nextCount) {
		return
	}
	defer func() { s.watch.nextCount = time.Now().Add(max(tick/2, 9*time.Since(start))) }()
	r := s.plan.Spec.Resources
	all := s.below()
	own := s.program(all)
	tasks := 0
	for _, p := range own {
		tasks += p.Threads
	}
	if tasks > r.Processes || s.group.outOfTasks() {
		s.kill("process_limit", tooMany(r.Processes))
	}
	if s.group.outOfMemory() || s.group.memory == "" && resident(pids(own), r.MemoryBytes) > r.MemoryBytes {
		s.kill("memory_limit", tooMuch(r.MemoryBytes))
	}
	if detail := s.disk(pids(all)); detail != "" {
		s.kill("output_limit", detail)
	}
}

func tooMany(limit int) string {
	return fmt.Sprintf("The job had more than %d processes and threads.", limit)
}

func tooMuch(limit int64) string {
	return "The job used more than its memory of " + config.FormatBytes(limit) + "."
}

// below are all processes of the job, those too that left the program's tree
// and were adopted by us. The dead among these are collected.
func (s *supervisor) below() []process {
	if !s.child.direct { // in a sandbox there is nothing for us to collect
		if all, ok := s.group.members(); ok {
			return all
		}
	}
	all := descendants(os.Getpid())
	kept := all[:0]
	for _, p := range all {
		if p.State == 'Z' && p.Parent == os.Getpid() && p.PID != s.child.cmd.Process.Pid {
			var ws unix.WaitStatus
			_, _ = unix.Wait4(p.PID, &ws, unix.WNOHANG, nil) // next time, then
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

// program are those of all that are not the sandbox's.
func (s *supervisor) program(all []process) []process {
	if s.child.direct {
		return all
	}
	return program(all, s.child.cmd.Process.Pid)
}

// disk says what is wrong with the job's use of the disk; empty if nothing is.
func (s *supervisor) disk(pids []int) string {
	w, limit := &s.watch, s.plan.Spec.Resources.OutputBytes
	used, detail := s.used(false)
	if wrote := written(pids); detail == "" && wrote > limit {
		used += hidden(pids, w.device)
		if _, free := fileSystem(s.dir.output()); free < diskReserve {
			detail = fmt.Sprintf("The job wrote %d bytes in all, and the disk is nearly full.", wrote)
		}
	}
	if detail == "" && used > limit {
		detail = "The job wrote more than " + config.FormatBytes(limit) + " of files."
	}
	return detail
}

// used is what the job has added to its folders.
func (s *supervisor) used(force bool) (int64, string) {
	out, err := measure(s.dir.output(), force)
	work, err2 := measure(s.dir.work(), force)
	if err := errors.Join(err, err2); err != nil {
		return 0, "The job's output is unusable: " + sentence(err.Error())
	}
	return out.bytes + max(0, work.bytes-s.watch.base), ""
}

// finally measures once more when nothing can change any more. A server that
// is not root also needs the folders readable, to collect and remove them.
func (w *watch) finally(s *supervisor) string {
	used, detail := s.used(os.Geteuid() != 0)
	if detail == "" && used > s.plan.Spec.Resources.OutputBytes {
		detail = fmt.Sprintf("The job wrote more than %d bytes of files.", s.plan.Spec.Resources.OutputBytes)
	}
	return detail
}

// ask asks the program to end, and has it killed after the grace time.
func (s *supervisor) ask(reason, detail string) {
	if s.watch.reason != "" {
		return
	}
	s.watch.reason, s.watch.detail = reason, detail
	s.watch.killAt = time.Now().Add(s.plan.Grace)
	own := s.program(s.below())
	if len(own) == 0 { // only the sandbox is there yet: nobody to be polite to
		s.killAll()
	}
	for _, p := range own {
		_ = p.signal(unix.SIGTERM) // gone already
	}
}

// kill ends the job now. The first reason is the one that is told.
func (s *supervisor) kill(reason, detail string) {
	if s.watch.reason == "" {
		s.watch.reason, s.watch.detail = reason, detail
	}
	s.killAll()
}

// killAll kills the first process, and the kernel its whole PID namespace.
// Without a sandbox everything is killed that came from us.
func (s *supervisor) killAll() {
	s.watch.killAt = time.Now() // again at every look, until it is over
	if s.child.direct {
		killAll()
		return
	}
	_ = s.child.cmd.Process.Kill() // gone already
}

// output copies what the program prints into the log, up to a limit.
type output struct {
	r    *os.File
	full chan struct{} // closed when the program printed more than the limit
	done chan struct{} // closed when nobody can print any more
}

func collect(r, log *os.File, limit int64) *output {
	o := &output{r: r, full: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(o.done)
		_, _ = io.CopyN(log, r, limit) // short if the program printed less, or the disk is full
		one := make([]byte, 1)
		if n, _ := r.Read(one); n > 0 {
			close(o.full)
			_, _ = io.Copy(io.Discard, r) // let it print until it is dead
		}
	}()
	return o
}
