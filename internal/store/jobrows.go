package store

import (
	"encoding/json"
	"time"

	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// jobBody is what of a job has no column of its own.
type jobBody struct {
	// Of a job that was handed in for its owner.
	SubmitterEpoch int64  `json:"submitter_epoch,omitempty"`
	Consent        string `json:"consent,omitempty"`

	SubmittedBy string             `json:"submitted_by,omitempty"`
	Labels      map[string]string  `json:"labels,omitempty"`
	Reason      string             `json:"reason,omitempty"`
	Detail      string             `json:"detail,omitempty"`
	Resources   job.Resources      `json:"resources"`
	Isolation   string             `json:"isolation,omitempty"`
	GPUs        []string           `json:"gpus,omitempty"`
	ExitCode    int                `json:"exit_code,omitempty"`
	LeaseUntil  int64              `json:"lease_until,omitempty"`
	LeaseBy     string             `json:"lease_by,omitempty"`
	Attempts    int                `json:"attempts,omitempty"`
	StartedAt   int64              `json:"started_at,omitempty"`
	Scores      map[string]float64 `json:"scores,omitempty"`
	GPUSeconds  int64              `json:"gpu_seconds,omitempty"`
	// Leaked secrets, by kind.
	Args         []string `json:"args,omitempty"`
	HandleLeaked bool     `json:"handle_leaked,omitempty"`
	RunLeaked    bool     `json:"run_leaked,omitempty"`
}

const jobColumns = "id, version, owner, competition, submission, via, person, state, live, handle_id, handle_digest, run_id, run_digest, created_at, ended_at, changed_at, body, submitter"

// jobRow is a job as its columns.
type jobRow struct {
	ID, Owner, Competition, Submission, Via, State string
	HandleID, RunID, Body, Submitter               string
	HandleDigest, RunDigest                        []byte
	Version, Person, Live, Created, Ended, Changed int64
}

func (r *jobRow) fields() []any {
	return []any{&r.ID, &r.Version, &r.Owner, &r.Competition, &r.Submission, &r.Via, &r.Person, &r.State, &r.Live,
		&r.HandleID, &r.HandleDigest, &r.RunID, &r.RunDigest, &r.Created, &r.Ended, &r.Changed, &r.Body, &r.Submitter}
}

func jobToRow(x job.Job, changed time.Time) (*jobRow, error) {
	body, err := json.Marshal(jobBody{
		SubmitterEpoch: x.SubmitterEpoch, Consent: x.Consent, SubmittedBy: x.SubmittedBy, Labels: x.Labels, Reason: x.Reason, Detail: x.Detail,
		Resources: x.Resources, Isolation: x.Isolation, GPUs: x.GPUs, ExitCode: x.ExitCode,
		LeaseUntil: clock.Micros(x.LeaseUntil), LeaseBy: x.LeaseBy, Attempts: x.Attempts, StartedAt: clock.Micros(x.StartedAt),
		Scores: x.Scores, GPUSeconds: x.GPUSeconds, Args: x.Args, HandleLeaked: x.HandleLeaked, RunLeaked: x.RunLeaked,
	})
	if err != nil { // a score that is no number
		return nil, fault.Wrap(fault.Internal, "job_record", "The job's record cannot be written.", err)
	}
	r := &jobRow{
		ID: string(x.ID), Version: x.Version, Owner: string(x.Owner), Competition: x.Competition, Submission: x.Submission,
		Via: string(x.Via), Person: x.Person, State: string(x.State), Live: bit(!x.State.Final()),
		HandleDigest: []byte{}, RunDigest: []byte{},
		Created: clock.Micros(x.CreatedAt), Ended: clock.Micros(x.EndedAt), Changed: clock.Micros(changed), Body: string(body),
		Submitter: string(x.Submitter),
	}
	if !x.Handle.IsZero() {
		r.HandleID, r.HandleDigest = string(x.Handle.Public[:]), x.Handle.Digest.Bytes()
	}
	if !x.Run.IsZero() {
		r.RunID, r.RunDigest = string(x.Run.Public[:]), x.Run.Digest.Bytes()
	}
	return r, nil
}

func (r *jobRow) job() (job.Job, error) {
	var b jobBody
	if err := json.Unmarshal([]byte(r.Body), &b); err != nil {
		return job.Job{}, err
	}
	x := job.Job{
		ID: job.ID(r.ID), Version: r.Version, Owner: principal.ID(r.Owner), Competition: r.Competition, Submission: r.Submission,
		Via: token.ID(r.Via), Person: r.Person, SubmittedBy: b.SubmittedBy, Labels: b.Labels,
		State: job.State(r.State), Reason: b.Reason, Detail: b.Detail, Resources: b.Resources, Isolation: b.Isolation, GPUs: b.GPUs,
		ExitCode: b.ExitCode, LeaseUntil: clock.Micro(b.LeaseUntil), LeaseBy: b.LeaseBy, Attempts: b.Attempts,
		CreatedAt: clock.Micro(r.Created), StartedAt: clock.Micro(b.StartedAt), EndedAt: clock.Micro(r.Ended), Scores: b.Scores, GPUSeconds: b.GPUSeconds,
		Handle: handleOf(r.HandleID, r.HandleDigest), Run: handleOf(r.RunID, r.RunDigest),
		Submitter: principal.ID(r.Submitter), SubmitterEpoch: b.SubmitterEpoch, Consent: b.Consent,
		Args: b.Args, HandleLeaked: b.HandleLeaked, RunLeaked: b.RunLeaked,
	}
	return x, nil
}

func handleOf(public string, digest []byte) (h token.Handle) {
	copy(h.Public[:], public)
	h.Digest = token.DigestOf(digest)
	return h
}

func scanJob(from scanner) (job.Job, error) {
	var r jobRow
	if err := from.Scan(r.fields()...); err != nil {
		return job.Job{}, err
	}
	return r.job()
}

// competitionBody is what of a competition has no column of its own.
type competitionBody struct {
	Title       string        `json:"title,omitempty"`
	Description string        `json:"description,omitempty"`
	Metrics     []string      `json:"metrics,omitempty"`
	Public      []string      `json:"public,omitempty"`
	Resources   job.Resources `json:"resources"`
	PerDay      int           `json:"per_day,omitempty"`
	Concurrent  int           `json:"concurrent,omitempty"`
	Accept      []string      `json:"accept,omitempty"`
	Open        bool          `json:"open,omitempty"`
	Files       string        `json:"files,omitempty"`
	Project     string        `json:"project,omitempty"`
	CreatedAt   int64         `json:"created_at"`
	ChangedAt   int64         `json:"changed_at"`
}

func competitionToBody(c grading.Competition) (string, error) {
	text, err := json.Marshal(competitionBody{
		Title: c.Title, Description: c.Description, Metrics: c.Metrics, Public: c.Public, Resources: c.Resources,
		PerDay: c.PerDay, Concurrent: c.Concurrent, Accept: c.Accept, Open: c.Open, Files: c.Files, Project: c.Project,
		CreatedAt: clock.Micros(c.CreatedAt), ChangedAt: clock.Micros(c.ChangedAt),
	})
	return string(text), err
}

func scanCompetition(from scanner) (c grading.Competition, err error) {
	var text string
	if err := from.Scan(&c.Name, &c.Version, &text); err != nil {
		return c, err
	}
	var b competitionBody
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return c, err
	}
	c.Title, c.Description, c.Metrics, c.Public, c.Resources = b.Title, b.Description, b.Metrics, b.Public, b.Resources
	c.PerDay, c.Concurrent, c.Accept, c.Open, c.Files, c.Project = b.PerDay, b.Concurrent, b.Accept, b.Open, b.Files, b.Project
	c.CreatedAt, c.ChangedAt = clock.Micro(b.CreatedAt), clock.Micro(b.ChangedAt)
	return c, nil
}

const submissionColumns = "id, owner, competition, digest, size, name, kind, entry, created_at"

func scanSubmission(from scanner) (s grading.Submission, err error) {
	var owner string
	var created int64
	err = from.Scan(&s.ID, &owner, &s.Competition, &s.Digest, &s.Size, &s.Name, &s.Kind, &s.Entry, &created)
	s.Owner, s.CreatedAt = principal.ID(owner), clock.Micro(created)
	return s, err
}
