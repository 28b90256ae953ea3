// Package api is the wire types of gradegate's HTTP API and a client for it.
// It uses the standard library only.
//
// Times are RFC 3339 in UTC. Unknown members of a response must be ignored by
// clients; unknown members of a request are refused by the server.
package api

import "time"

// Whoami is the subject of the request.
type Whoami struct {
	User    *User      `json:"user"`
	TokenID string     `json:"token_id,omitempty"`
	Kind    string     `json:"kind"` // of the token, or "local"
	Scopes  []string   `json:"scopes"`
	Job     string     `json:"job,omitempty"` // for job handles
	Until   *time.Time `json:"effective_expires_at,omitempty"`
	By      string     `json:"effective_reason,omitempty"`
	Mode    string     `json:"mode"` // normal, quarantined, expired-read
	IP      string     `json:"ip,omitempty"`
	// Warnings are for a service that too few people answer for.
	Warnings []Warning `json:"warnings,omitempty"`
}

// User is a person or a service.
type User struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Email      string     `json:"email,omitempty"`
	Kind       string     `json:"kind"`
	Role       string     `json:"role"`
	Status     string     `json:"status"`
	Groups     []string   `json:"groups"` // whose policies bear on its tokens
	Budget     *Budget    `json:"budget,omitempty"`
	EnrolledAt *time.Time `json:"enrolled_at,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	ETag       string     `json:"etag"`
	// Strands are the services that have too few active owners since this person
	// was off-boarded, suspended or left a group; in the answer to that only.
	Strands []Service `json:"strands,omitempty"`
}

// CreateUser asks for a user.
type CreateUser struct {
	Name  string `json:"name"`
	Role  string `json:"role,omitempty"`
	Email string `json:"email,omitempty"`
}

// Invite asks for a one-time code; role and email matter for a new user only.
type Invite struct {
	Role  string `json:"role,omitempty"`
	Email string `json:"email,omitempty"`
}

// Invited is a one-time code for a person.
type Invited struct {
	Code       string    `json:"code"`
	ExpiresAt  time.Time `json:"expires_at"`
	User       User      `json:"user"`
	Reenrolled bool      `json:"reenrolled,omitempty"` // earlier credentials are dead
}

// Redeem turns a code into a session token.
type Redeem struct {
	Code string `json:"code"`
	Name string `json:"name,omitempty"` // of the token: usually the machine
}

// UpdateUser changes what is said of a user; what is left out stays as it is.
type UpdateUser struct {
	Role   *string   `json:"role,omitempty"`
	Email  *string   `json:"email,omitempty"`
	Groups *[]string `json:"groups,omitempty"`
	Budget *Budget   `json:"budget,omitempty"` // the whole of it: {} takes it away
}

// Rules are what one level of policy demands. What is left out is demanded by
// another level, or by nobody. Spans are written as 90d, 12h or 30m.
type Rules struct {
	Lifetime     string   `json:"lifetime,omitempty"`      // of a new token unless another is asked for
	MaxLifetime  string   `json:"max_lifetime,omitempty"`  // of a token and its successors
	Idle         string   `json:"idle,omitempty"`          // ends what is unused that long
	ServiceIdle  string   `json:"service_idle,omitempty"`  // the same for service tokens
	Unused       string   `json:"unused,omitempty"`        // ends what was never used
	RotateAfter  string   `json:"rotate_after,omitempty"`  // rotation is due
	Rotation     string   `json:"rotation,omitempty"`      // warn (default) or enforce
	SessionsOnly bool     `json:"sessions_only,omitempty"` // people have no tokens but sessions
	MaxPerUser   int      `json:"max_per_user,omitempty"`
	Budget       *Budget  `json:"budget,omitempty"` // of each person, all tokens together
	AllowedCIDRs []string `json:"allowed_cidrs,omitempty"`
	Observe      bool     `json:"observe,omitempty"` // a use from elsewhere is marked, not refused
	Leaks        string   `json:"leaks,omitempty"`   // revoke (default) or quarantine; the platform's only
}

// Policy is one level of policy: the platform's, or a group's.
type Policy struct {
	Name      string     `json:"name"` // platform or group:NAME
	Rules     Rules      `json:"rules"`
	Since     *time.Time `json:"since,omitempty"`
	Coming    *Rules     `json:"coming,omitempty"` // replaces the rules from then on
	ComingAt  *time.Time `json:"coming_at,omitempty"`
	ChangedAt *time.Time `json:"changed_at,omitempty"`
	ETag      string     `json:"etag,omitempty"`
}

// Policies are all levels, and what holds where the platform's says nothing.
type Policies struct {
	Defaults Rules    `json:"defaults"`
	Items    []Policy `json:"items"`
}

// SetPolicy replaces the rules of a level.
type SetPolicy struct {
	Rules Rules `json:"rules"`
	// EffectiveAt is when they come into force; left out: at once if no token
	// ends earlier by it, and in 14 days otherwise.
	EffectiveAt *time.Time `json:"effective_at,omitempty"`
	Preview     bool       `json:"preview,omitempty"` // change nothing
	Force       bool       `json:"force,omitempty"`   // even if you lock yourself out
}

// PolicySet is a level after a change, and the tokens that end earlier by it,
// the nearest first, of which at most 1000 are listed.
type PolicySet struct {
	Policy   Policy     `json:"policy"`
	Preview  bool       `json:"preview,omitempty"`
	Total    int        `json:"total"`
	Affected []Affected `json:"affected"`
	Warnings []Warning  `json:"warnings,omitempty"`
}

// Affected is a token that ends earlier under a change of policy.
type Affected struct {
	TokenID string     `json:"token_id"`
	Name    string     `json:"name"`
	UserID  string     `json:"user_id"`
	User    string     `json:"user"`
	Ends    *time.Time `json:"ends,omitempty"` // as it was
	Until   time.Time  `json:"until"`          // as it will be
	Reason  string     `json:"reason"`
	Policy  string     `json:"policy"`
}

// Clock is the time that the server goes by. While the machine's clock has leapt
// ahead and nobody has confirmed it, nothing expires by it.
type Clock struct {
	Now      time.Time  `json:"now"`
	Believed bool       `json:"believed"`
	Wall     *time.Time `json:"wall,omitempty"` // what the machine says, if it is not believed
}

// Block is a network whose failed attempts are refused. Valid tokens from there
// are served. Automatic ones are those of the node that answers.
type Block struct {
	Address     string     `json:"address"` // or a network
	Automatic   bool       `json:"automatic"`
	Times       int        `json:"times,omitempty"` // of an automatic one: which in a row
	Note        string     `json:"note,omitempty"`
	CreatedBy   string     `json:"created_by"`        // id of a user; system; local:UID
	Creator     string     `json:"creator,omitempty"` // that user's name
	Since       time.Time  `json:"since"`
	Until       time.Time  `json:"until"`
	Failures    int64      `json:"failures"` // refused since then, on this node
	LastFailure *time.Time `json:"last_failure,omitempty"`
}

// Blocks are all blocks in force, the newest first, and the sources that fail
// most, the loudest first.
type Blocks struct {
	Items     []Block    `json:"items"`
	Offenders []Offender `json:"offenders"`
}

// Offender is a source of failed attempts: an IPv4 address or an IPv6 /64.
type Offender struct {
	Address  string    `json:"address"`
	Failures int64     `json:"failures"` // at least so many
	Since    time.Time `json:"since"`
	Last     time.Time `json:"last"`
}

// AddBlock asks for a block.
type AddBlock struct {
	Address   string `json:"address"`              // or a network, such as 192.0.2.0/24
	ExpiresIn string `json:"expires_in,omitempty"` // such as 7d; a day if left out
	Note      string `json:"note,omitempty"`
	Force     bool   `json:"force,omitempty"` // even if you are in it yourself
}

// Unblocked is what the removal of a block has ended.
type Unblocked struct {
	Address string  `json:"address"`
	Removed []Block `json:"removed"`
}

// Offboard says what becomes of a leaver's running jobs.
type Offboard struct {
	Jobs string `json:"jobs,omitempty"` // cancel-queued (default) or cancel
}

// Competition is a task with hidden truth.
type Competition struct {
	Name        string    `json:"name"`
	Project     string    `json:"project,omitempty"` // groups competitions: a token may be for all of them
	Title       string    `json:"title"`
	Description string    `json:"description,omitempty"`
	Metrics     []string  `json:"metrics"` // the first ranks the leaderboard
	Accept      []string  `json:"accept"`  // program, predictions
	Files       []string  `json:"files"`   // public ones
	Resources   Resources `json:"resources"`
	Quota       QuotaRule `json:"quota"`
	Open        bool      `json:"open"`
	CreatedAt   time.Time `json:"created_at"`
	ChangedAt   time.Time `json:"changed_at"`
	ETag        string    `json:"etag"`
}

// Resources is what one job may use.
type Resources struct {
	GPUs      int    `json:"gpus"`
	CPUs      int    `json:"cpus"`
	Memory    string `json:"memory"`     // "256MiB"
	TimeLimit string `json:"time_limit"` // "60s", "3h"
	Output    string `json:"output"`
	Log       string `json:"log"`
	Processes int    `json:"processes"`
}

// QuotaRule is each user's limits in a competition; zero means none.
type QuotaRule struct {
	PerDay     int `json:"per_day"`
	Concurrent int `json:"concurrent"`
}

// Job is one execution of a grader on a submission.
type Job struct {
	ID          string `json:"id"`
	Competition string `json:"competition"`
	UserID      string `json:"user_id"`
	// SubmittedByUser handed it in: verified. Act is there if that is somebody else
	// than its owner, by the owner's consent.
	SubmittedByUser string `json:"submitted_by_user"`
	Act             *Act   `json:"act,omitempty"`
	OnBehalfOf      string `json:"on_behalf_of,omitempty"` // the owner's name, then

	TokenID     string             `json:"token_id"`               // that submitted it
	SubmittedBy string             `json:"submitted_by,omitempty"` // as the client claims; not verified
	Labels      map[string]string  `json:"labels,omitempty"`
	State       string             `json:"state"`
	Reason      string             `json:"reason,omitempty"`
	Detail      string             `json:"detail,omitempty"`
	Scores      map[string]float64 `json:"scores,omitempty"`
	Submission  Submission         `json:"submission"`
	Resources   Resources          `json:"resources"`
	Isolation   string             `json:"isolation,omitempty"`
	GPUs        []string           `json:"gpus,omitempty"`
	ExitCode    *int               `json:"exit_code,omitempty"`
	GPUSeconds  int64              `json:"gpu_seconds"`                    // charged
	Reserved    int64              `json:"gpu_seconds_reserved,omitempty"` // the most that it can come to, until it is over
	CreatedAt   time.Time          `json:"created_at"`
	StartedAt   *time.Time         `json:"started_at,omitempty"`
	EndedAt     *time.Time         `json:"ended_at,omitempty"`
	ETag        string             `json:"etag"`
}

// Submission is what was handed in.
type Submission struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Name   string `json:"name,omitempty"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Entry  string `json:"entry,omitempty"`
}

// Submitted answers a submit. The handle reads and cancels this one job until
// seven days after its end, whatever happens to the token.
type Submitted struct {
	Job      Job       `json:"job"`
	Handle   string    `json:"handle"`
	Warnings []Warning `json:"warnings"`
	Replayed bool      `json:"replayed,omitempty"`
}

// Warning is something to know that is no error.
type Warning struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// CancelJob is the answer to a cancel.
type CancelJob struct {
	Job     Job    `json:"job"`
	Already string `json:"already,omitempty"` // the state it had reached before
}

// Result is the grade of a job.
type Result struct {
	Job    string             `json:"job"`
	State  string             `json:"state"`
	Scores map[string]float64 `json:"scores"`
	Rows   int                `json:"rows,omitempty"`
}

// Leaderboard is the best of each user.
type Leaderboard struct {
	Competition string           `json:"competition"`
	Metric      string           `json:"metric"`
	Rows        []LeaderboardRow `json:"rows"`
}

// LeaderboardRow is one user's best job.
type LeaderboardRow struct {
	Rank        int                `json:"rank"`
	User        string             `json:"user"`
	Value       float64            `json:"value"`
	Scores      map[string]float64 `json:"scores"`
	Job         string             `json:"job"`
	Submissions int                `json:"submissions"`
	At          time.Time          `json:"at"`
}

// Page is one page of a list. NextCursor is empty on the last one.
type Page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// Verify asks for a decision about a token (scope tokens:verify).
type Verify struct {
	Token       string `json:"token"`
	Action      string `json:"action,omitempty"`
	Competition string `json:"competition,omitempty"`
	IP          string `json:"ip,omitempty"`
	// Resource is what the action is aimed at, if it belongs to somebody.
	Resource *Resource `json:"resource,omitempty"`
}

// Resource is a thing of somebody's. With the instant of its submission a token
// that has just expired may still read or cancel it.
type Resource struct {
	Owner       string     `json:"owner"` // id of a user
	SubmittedAt *time.Time `json:"submitted_at,omitempty"`
}

// Decision is the answer to Verify.
type Decision struct {
	Active             bool       `json:"active"`
	Decision           string     `json:"decision"` // allow or deny
	Reason             string     `json:"reason"`   // ok, or the code of the refusal
	Mode               string     `json:"mode"`
	TokenID            string     `json:"token_id,omitempty"`
	Kind               string     `json:"kind,omitempty"`
	UserID             string     `json:"user_id,omitempty"`
	Username           string     `json:"username,omitempty"`
	Scope              string     `json:"scope,omitempty"`
	Competitions       []string   `json:"competitions,omitempty"`
	EffectiveExpiresAt *time.Time `json:"effective_expires_at,omitempty"`
	EffectiveReason    string     `json:"effective_reason,omitempty"`
	RequestID          string     `json:"request_id"`
}

// Health is what /healthz says.
type Health struct {
	Status string           `json:"status"` // ok or degraded
	Checks map[string]Check `json:"checks"`
}

// Check is the state of one part.
type Check struct {
	Status string    `json:"status"`
	Detail string    `json:"detail,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// Version is what /version says.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

// Problem is a refusal in the form of RFC 9457.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	Fix       string `json:"fix,omitempty"`
	RequestID string `json:"request_id"`
	// Further members: required, granted, missing, existing, choices, successor …
	More map[string]any `json:"-"`
}

// AuditEvent is one line of the trail.
type AuditEvent struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at"`
	Stream  string    `json:"stream"` // use or act
	Action  string    `json:"action"`
	Outcome string    `json:"outcome"`
	Actor   string    `json:"actor,omitempty"`
	Token   string    `json:"token,omitempty"`
	Kind    string    `json:"kind,omitempty"`
	Target  string    `json:"target,omitempty"`
	Owner   string    `json:"owner,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Mode    string    `json:"mode,omitempty"`
	Addr    string    `json:"addr,omitempty"`
	Agent   string    `json:"agent,omitempty"`
	Route   string    `json:"route,omitempty"`
	Request string    `json:"request,omitempty"`
	Status  int       `json:"status,omitempty"`
	// What a proxy asked for, and the competition that the request is about.
	Scope       string            `json:"scope,omitempty"`
	Competition string            `json:"competition,omitempty"`
	Count       int64             `json:"count,omitempty"`
	Seq         int64             `json:"seq,omitempty"`
	Detail      map[string]string `json:"detail,omitempty"`
}

// Trim is what was dropped of a stream of the trail in one place of it, or would
// be now. In a trim that was done, Note is its signed record.
type Trim struct {
	Sink     string     `json:"sink"`               // the folder
	Stream   string     `json:"stream"`             // use or act
	Lines    uint64     `json:"lines"`              // how many; 0: none may go
	From     uint64     `json:"from"`               // index of the first of them
	To       uint64     `json:"to"`                 // index of the last of them
	Segments []uint64   `json:"segments,omitempty"` // numbers of the first and the last
	Earliest *time.Time `json:"earliest,omitempty"`
	Latest   *time.Time `json:"latest,omitempty"`
	Keep     string     `json:"keep,omitempty"` // how long lines are kept
	At       time.Time  `json:"at"`
	Why      string     `json:"why,omitempty"`     // retention; lost: the folder was empty, and was gone on with
	Stopped  string     `json:"stopped,omitempty"` // why the next segment stays
	Root     string     `json:"root,omitempty"`    // of the tree of all lines up to To
	Note     string     `json:"note,omitempty"`
}
