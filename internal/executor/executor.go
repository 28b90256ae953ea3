// Package executor runs submitted programs. A program is hostile: it gets a
// room of its own, limits on everything, and is stopped whatever it does.
//
// A job is run by a supervisor: this very binary, started again, which
// outlives the server. The server may be killed at any moment; the next one
// finds the supervisor at work, or its result, or proof that it died.
//
//	server ──► __supervise plan.json ──► __sandbox-init (new namespaces) ──► program
//	           holds supervisor.lock     or bwrap                            uid 65534, no capability
//	           claims started (O_EXCL)   ends with the supervisor            sees /work /data /output /tmp
//	           writes state.json, log
//
// Nothing is started twice: the file "started" in the job's folder is created
// exclusively and synced before the program exists. A mark without a living
// supervisor and without a result means that the job is lost, and that is what
// Status says.
package executor

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/job"
)

// The hidden sub-commands under which this binary is started again. Whoever
// owns main hands os.Args[2:] to Supervise and Init when os.Args[1] is one of
// them, before anything else is done.
const (
	SuperviseCommand = "__supervise"
	InitCommand      = "__sandbox-init"
)

// Executor runs jobs. All methods are keyed by our own job id, may be called
// concurrently, and are idempotent. What they return is durable.
type Executor interface {
	// Submit starts the job, once and for all times: a second call with the
	// same id starts nothing, also after a crash of either side. Limited means
	// "no room now, ask again", Unavailable "try again", any other fault that
	// the job will never run here.
	Submit(ctx context.Context, s job.Spec) error
	// Status tells what is known; an id never seen is job.PhaseUnknown.
	Status(ctx context.Context, id job.ID) (job.Report, error)
	// Cancel asks for the end and returns. Status tells when it has come. An id
	// that is unknown or has ended is no error.
	Cancel(ctx context.Context, id job.ID) error
	// Forget drops what is remembered of a job that has ended. A job that still
	// runs is a Conflict. The mark in the job's folder stays: a Submit after
	// Forget starts nothing.
	Forget(ctx context.Context, id job.ID) error
}

// Prober is the power to say which isolation is in force, for executors that
// isolate programs themselves.
type Prober interface {
	Probe() Isolation
}

// Options configure an executor. The zero value of a field means its default.
type Options struct {
	// Dir is the executor's own folder: one file per job that it knows of. It
	// must be the same after a restart, and no two executors share it.
	Dir string
	// Self is how this binary is started again; default /proc/self/exe, which
	// stays valid when the file was replaced by a newer version.
	Self []string
	// GPUs are the ids to hand out, one job each, as CUDA_VISIBLE_DEVICES
	// understands them.
	GPUs []string
	// Slots is how many jobs run at once; default is the number of CPUs.
	Slots int
	// Grace is the time between SIGTERM and SIGKILL; default 5 s.
	Grace time.Duration
	// Unsafe allows programs to run without isolation where none is to be had.
	Unsafe bool
	// Only restricts the choice to one isolation: Bwrap, Namespaces or None.
	Only string
	// ReadOnly are further host folders that programs may read, such as
	// /opt/conda. They must not hold anything secret.
	ReadOnly []string
	// Path is the program's PATH; default is that of the system folders.
	Path string
}

// kinds is every executor there is: a new one is one file and one row.
var kinds = map[string]func(Options) (Executor, error){
	"local": func(o Options) (Executor, error) { return openLocal(o) },
}

// Open makes an executor of a kind. An unknown kind is Invalid.
func Open(kind string, o Options) (Executor, error) {
	open, ok := kinds[kind]
	if !ok {
		return nil, fault.New(fault.Invalid, "executor_kind", "There is no executor %q.", kind).
			WithFix("Set executor.kind to one of: %s", strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	return open(o)
}

func (o Options) withDefaults() Options {
	if len(o.Self) == 0 {
		o.Self = []string{"/proc/self/exe"}
	}
	if o.Slots <= 0 {
		o.Slots = runtime.NumCPU()
	}
	if o.Grace <= 0 {
		o.Grace = 5 * time.Second
	}
	if o.Path == "" {
		o.Path = "/usr/local/bin:/usr/bin:/bin"
	}
	return o
}

// bounded replaces every limit that was left out by a cautious one: zero never
// means "no limit".
func bounded(r job.Resources) job.Resources {
	r.CPUs = fallback(r.CPUs, 1)
	r.MemoryBytes = fallback(r.MemoryBytes, 1<<30)
	r.TimeLimit = fallback(r.TimeLimit, time.Hour)
	r.OutputBytes = fallback(r.OutputBytes, 1<<30)
	r.LogBytes = fallback(r.LogBytes, 1<<20)
	r.Processes = fallback(r.Processes, 256)
	return r
}

func fallback[T int | int64 | time.Duration](v, instead T) T {
	if v <= 0 {
		return instead
	}
	return v
}
