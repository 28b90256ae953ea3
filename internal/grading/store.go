package grading

import (
	"context"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/budget"
	"gradegate/internal/job"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Store is what grading needs of the jobs database. All methods may be called
// concurrently; errors are faults: NotFound, Conflict when a version has moved
// on, Limited when a quota is used up, Unavailable for infrastructure trouble.
type Store interface {
	Competition(ctx context.Context, name string) (Competition, error)
	Competitions(ctx context.Context) ([]Competition, error)
	// SetCompetition inserts (old nil) or replaces, if old's version still stands.
	SetCompetition(ctx context.Context, old *Competition, c Competition, e audit.Event) error

	Job(ctx context.Context, id job.ID) (job.Job, error)
	// Jobs lists newest first.
	Jobs(ctx context.Context, f Filter) ([]job.Job, error)
	// LiveJobs are all that are not final, oldest first.
	LiveJobs(ctx context.Context) ([]job.Job, error)
	// Best gives each owner's best succeeded job by the metric, best first.
	Best(ctx context.Context, competition, metric string, higher bool, limit int) ([]Standing, error)
	// InsertJob admits a job: the job, its submission and its reservation in the
	// quota ledger, or nothing. A job with the same reply key is Conflict with
	// code "reply_exists".
	InsertJob(ctx context.Context, j job.Job, s Submission, q Reservation, r *JobReply, e audit.Event) error
	// ReplaceJob is compare-and-swap on old.Version. A final state settles the
	// job's reservation with what settle says (nil: as reserved).
	ReplaceJob(ctx context.Context, old, new job.Job, settle *Settlement, e audit.Event) error
	Submission(ctx context.Context, id string) (Submission, error)
	// Usage is what the owner has used or reserved in a competition since then.
	Usage(ctx context.Context, owner principal.ID, competition string, since time.Time) (Usage, error)
	// Spending is how much of each bound is taken, in their order.
	Spending(ctx context.Context, bounds []budget.Bound, now time.Time) ([]Spending, error)
	// QuotaLines lists the quota ledger, newest first.
	QuotaLines(ctx context.Context, f LineFilter) ([]QuotaLine, error)
	// JobReply finds the job that was made for an Idempotency-Key.
	JobReply(ctx context.Context, key [32]byte, now time.Time) (JobReply, error)
}

// Filter selects jobs. Zero members do not filter.
type Filter struct {
	Owner       principal.ID
	Submitter   principal.ID // handed them in for their owners
	Competition string
	State       job.State
	Before      job.ID // only older ones: the cursor
	Limit       int
}

// Standing is one row of a leaderboard.
type Standing struct {
	Owner principal.ID
	Job   job.Job
	Value float64
	Count int // submissions of this owner that were graded
}

// Submission is what a principal handed in. It is immutable.
type Submission struct {
	ID          string // "sub_…"
	Owner       principal.ID
	Competition string
	Digest      string // SHA-256 of the upload, hex; its name in the bundle folder
	Size        int64  // bytes of the upload
	Name        string // file name the client gave, cleaned
	Kind        string // "program" or "predictions"
	Entry       string
	CreatedAt   time.Time
}

// Reservation is what a job takes from its owner's quota while it is not over.
type Reservation struct {
	// Since is the start of the quota's window; PerDay and Concurrent are the
	// limits that hold inside the transaction (zero: none).
	Since              time.Time
	PerDay, Concurrent int
	GPUSeconds         int64 // the most that it can use
	// For is the name of its owner, if somebody else hands it in and is the one
	// who reads a refusal.
	For string
	// Bounds are the budgets that hold inside the transaction as well. It is
	// booked on the account of each, and on its owner's.
	Bounds []budget.Bound
	// Family is that of the token, for the record.
	Family token.Family
}

// Settlement is what a job really took.
type Settlement struct {
	GPUSeconds int64
	// Refund gives the submission back: the failure was ours, or it never ran.
	Refund bool
	Reason string // one stable word
}

// Spending is how much of a bound is taken, and when all of it is free again.
type Spending struct {
	budget.State
	// FreeAt is at the latest, if nothing more is submitted, and what waits
	// starts at once and takes all that it may; zero: nothing is taken.
	FreeAt time.Time
}

// QuotaLine is one line of the quota ledger, which is only ever appended to.
// The sum of all lines of an account is what it has taken.
type QuotaLine struct {
	N           int64  // rises
	Kind        string // "reserve", "settle" or "refund"
	Reason      string // "submitted", and what became of the job
	Job         job.ID
	Owner       principal.ID
	Family      token.Family // of the token that submitted it
	Competition string
	At          time.Time
	Submissions int
	GPUSeconds  int64
}

// LineFilter selects lines of one account. Zero members do not filter.
type LineFilter struct {
	Account      string // a principal, or where the use of a token is booked
	Competitions []string
	Job          job.ID
	Before       int64 // only older ones: the cursor
	Limit        int
}

// Usage is the state of a quota.
type Usage struct {
	Submissions, Concurrent int
	GPUSeconds              int64
}

// JobReply remembers the answer to a submit, with the job handle sealed.
type JobReply struct {
	Key     [32]byte
	Request [32]byte
	Job     job.ID
	Sealed  []byte
	Until   time.Time
}

// Competition is a task with hidden truth: how a submission becomes a grade,
// what a job may use, and how often somebody may try.
type Competition struct {
	Name        string
	Version     int64
	Project     string // groups competitions: a token may be for all of them (R2.6)
	Title       string
	Description string
	Metrics     []string // the first ranks the leaderboard
	Public      []string // files that programs and people may read
	Resources   job.Resources
	// PerDay and Concurrent are each user's limits; zero means none.
	PerDay, Concurrent int
	Accept             []string // "program", "predictions"
	Open               bool
	// Files is the digest of the folder with its public and hidden files.
	Files                string
	CreatedAt, ChangedAt time.Time
}
