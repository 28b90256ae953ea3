// Package job is one execution of a grader on a submission: what it needs,
// which states it goes through, and who owns it.
//
// A job belongs to a principal. The token that submitted it is kept for
// attribution and never asked for permission again, so a job stays in its
// owner's hands whatever happens to that token.
package job

import (
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// ID names a job: "job_" and a sortable random part.
type ID string

// State is where a job stands.
type State string

// The states. Succeeded, Failed and Canceled are final.
const (
	Queued      State = "queued"      // accepted, waiting for the reconciler
	Dispatching State = "dispatching" // claimed by a node, being handed to the executor
	Running     State = "running"     // the executor says that it runs
	Grading     State = "grading"     // the program ended, its output is being scored
	Canceling   State = "canceling"   // its owner wants it stopped, the executor has not confirmed
	Canceled    State = "canceled"
	Succeeded   State = "succeeded" // a grade exists
	Failed      State = "failed"    // no grade; Reason says why
)

// next lists the transitions that exist; everything else is a conflict.
var next = map[State][]State{
	Queued:      {Dispatching, Canceled, Failed},
	Dispatching: {Queued, Running, Grading, Canceling, Failed},
	Running:     {Grading, Canceling, Failed},
	Grading:     {Succeeded, Failed, Canceling},
	Canceling:   {Canceled},
}

// Final reports whether nothing follows s.
func (s State) Final() bool { return s == Canceled || s == Succeeded || s == Failed }

// Valid reports whether s is one of the states.
func (s State) Valid() bool { _, ok := next[s]; return ok || s.Final() }

// Can reports whether a job may go from s to t.
func (s State) Can(t State) bool {
	for _, n := range next[s] {
		if n == t {
			return true
		}
	}
	return false
}

// Job is the record of one execution. Values are immutable; transitions return
// a changed copy with the next version.
type Job struct {
	ID          ID
	Version     int64
	Owner       principal.ID
	Competition string
	Submission  string // id of the submission
	Via         token.ID
	Person      int64 // the owner's person epoch at submit
	// Submitter handed it in for its owner, by the consent of that id, at this
	// person epoch of its own; empty: the owner did. It is verified.
	Submitter      principal.ID
	SubmitterEpoch int64
	Consent        string
	SubmittedBy    string // free text, unverified
	Labels         map[string]string
	Args           []string // of the program
	State          State
	// Reason is a stable word when State is Failed or Canceled: "time_limit",
	// "lost", "exit_code", "bad_predictions", "owner", "revoked", "offboarded" …
	Reason string
	// Detail is one sentence for the owner.
	Detail    string
	Resources Resources
	// Isolation says which protection was in force while it ran.
	Isolation string
	GPUs      []string
	ExitCode  int
	// Handle is the digest of the job handle, and Run that of the token the
	// running program holds.
	Handle, Run token.Handle
	// HandleLeaked and RunLeaked end that secret for good: somebody reported it.
	// The job goes on, since its owner has other ways to it.
	HandleLeaked, RunLeaked bool
	// LeaseUntil and LeaseBy are the claim of the node that dispatches it.
	LeaseUntil time.Time
	LeaseBy    string
	Attempts   int

	// GPUSeconds is what it has used of its GPUs, as far as that is charged: no
	// more than was reserved for it, and nothing if it was given back.
	GPUSeconds int64

	CreatedAt, StartedAt, EndedAt time.Time
	// Scores are the grade, by metric; nil until it succeeded.
	Scores map[string]float64
}

// Resources is what a competition grants to one job.
type Resources struct {
	GPUs        int           `json:"gpus" yaml:"gpus"`
	CPUs        int           `json:"cpus" yaml:"cpus"`
	MemoryBytes int64         `json:"memory_bytes" yaml:"memory_bytes"`
	TimeLimit   time.Duration `json:"time_limit" yaml:"time_limit"`
	OutputBytes int64         `json:"output_bytes" yaml:"output_bytes"`
	LogBytes    int64         `json:"log_bytes" yaml:"log_bytes"`
	Processes   int           `json:"processes" yaml:"processes"`
}

// GPUTime is the most that all GPUs of one job work together.
func (r Resources) GPUTime() time.Duration { return time.Duration(r.GPUs) * r.TimeLimit }

// Spec is what an executor needs to know to run one job.
type Spec struct {
	ID ID
	// Dir is the job's folder, owned by the server: work/ (the unpacked
	// bundle), data/ (public files of the competition, read-only), output/
	// (the program writes here), log (written by the executor, capped) and
	// run_token (a file that the program may read).
	Dir       string
	Entry     string // path inside work/
	Args      []string
	Resources Resources
	Env       map[string]string
}

// Phase is what an executor knows of a job.
type Phase string

// The phases.
const (
	PhaseUnknown  Phase = "unknown" // never seen, or forgotten
	PhaseStarting Phase = "starting"
	PhaseRunning  Phase = "running"
	PhaseExited   Phase = "exited"
)

// Report is what an executor says of a job.
type Report struct {
	Phase    Phase
	ExitCode int // valid when exited; -1 when a signal ended it
	// Reason is empty or one of "time_limit", "memory_limit", "process_limit",
	// "log_limit", "output_limit", "cancelled", "lost", "signal", "start_failed".
	Reason             string
	Detail             string // one sentence for people
	StartedAt, EndedAt time.Time
	Isolation          string // for example "bwrap" or "namespaces"
	GPUs               []string
}

// To returns the job in state t at now, with the reason and sentence for it.
func (j Job) To(t State, reason, detail string, now time.Time) (Job, error) {
	if !j.State.Can(t) {
		return j, fault.New(fault.Conflict, "job_state", "The job is %s and cannot become %s.", j.State, t)
	}
	j.State, j.Version = t, j.Version+1
	j.Reason, j.Detail = reason, detail
	if t == Running && j.StartedAt.IsZero() {
		j.StartedAt = now
	}
	if t.Final() {
		j.EndedAt = now
	}
	return j, nil
}

// Cancel returns the job after its owner asked for its end: canceled at once
// if nothing was started, canceling if the executor must be told. Canceling
// twice changes nothing and is no error.
func (j Job) Cancel(reason string, now time.Time) (Job, bool, error) {
	switch {
	case j.State.Final() || j.State == Canceling:
		return j, false, nil
	case j.State == Queued:
		c, err := j.To(Canceled, reason, "Canceled before it started.", now)
		return c, err == nil, err
	}
	c, err := j.To(Canceling, reason, "", now)
	return c, err == nil, err
}

// Ran returns the job with what it has used of its GPUs between two instants.
// A second that was begun counts, and what comes after the time limit is ours.
func (j Job) Ran(from, to time.Time) Job {
	if from.IsZero() || j.Resources.GPUs == 0 {
		return j
	}
	ran := min(max(to.Sub(from), 0), j.Resources.TimeLimit)
	j.GPUSeconds = int64((ran+time.Second-1)/time.Second) * int64(j.Resources.GPUs)
	return j
}

// Leak returns the job with the secret of that kind ended. A second report
// changes nothing.
func (j Job) Leak(k token.Kind) (Job, bool) {
	switch {
	case k == token.JobKind && !j.HandleLeaked:
		j.HandleLeaked = true
	case k == token.Run && !j.RunLeaked:
		j.RunLeaked = true
	default:
		return j, false
	}
	j.Version++
	return j, true
}

// HandleLife is how long a job handle lives after the end of its job.
const HandleLife = 7 * 24 * time.Hour
