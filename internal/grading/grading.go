// Package grading takes submissions in, runs them, and gives them a grade.
//
// The API records wishes: a job that is queued, a job that is to be canceled.
// The reconciler makes them true, one small step at a time, and may be stopped
// and started at any point. A job belongs to its owner: the token that
// submitted it is kept for attribution and never asked again.
package grading

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/budget"
	"gradegate/internal/clock"
	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/keys"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// Executor runs jobs somewhere. All methods are keyed by our own job id, may be
// called concurrently, and are idempotent.
type Executor interface {
	// Submit starts the job, once and for all times: a second call with the same
	// id starts nothing, also after a crash of either side. Limited means "no
	// room now, ask again"; Denied means that it will never run here.
	Submit(ctx context.Context, s job.Spec) error
	// Status tells what is known; an id never seen is job.PhaseUnknown.
	Status(ctx context.Context, id job.ID) (job.Report, error)
	// Cancel asks for the end. Status tells when it has come.
	Cancel(ctx context.Context, id job.ID) error
	// Forget drops what is remembered of a job that has ended.
	Forget(ctx context.Context, id job.ID) error
}

// Gate is what grading needs of the table in memory.
type Gate interface {
	// Admit checks the subject once more and holds off acknowledgements of
	// revocations until release is called.
	Admit(s *policy.Subject) (release func(), err error)
	// Consented gives the person of that name or id for whom the subject may hand
	// in by their consent. The refusal does not tell whether there is one.
	Consented(s *policy.Subject, nameOrID, competition string) (principal.Principal, principal.Consent, error)
	// AdmitFor is Admit for a job of somebody who consented to it; it holds off
	// the acknowledgement of the end of that consent as well.
	AdmitFor(s *policy.Subject, giver principal.ID, competition string) (principal.Principal, principal.Consent, func(), error)
	// Controls reports whether somebody answers for a service.
	Controls(who, service principal.ID) bool
	// JobWish says what the present facts mean for a job.
	JobWish(owner principal.ID, via token.ID, person int64) token.Wish
	// Bounds are the budgets that bear at this moment on what is taken with a
	// token, its owner's first.
	Bounds(owner principal.ID, via token.ID) []budget.Bound
	// HandleJob finds the job of a job handle or run token, whatever its state;
	// empty if there is none.
	HandleJob(token.Presented) string
}

// Config is what a Grading is made of.
type Config struct {
	Store    Store
	Executor Executor
	Gate     Gate
	Keys     *keys.Ring
	Now      clock.Func
	NewID    func(prefix string) string // sortable, unguessable
	Dir      string                     // folder for bundles, competitions and jobs
	Node     string                     // name of this process in leases
	Log      *slog.Logger
	// Files is about how many files clients may hold open at a time, all
	// together; zero is for a process with 1024 descriptors.
	Files int
}

// Grading is the use cases around jobs. It is safe for concurrent use.
type Grading struct {
	Config
	files files
	nudge chan struct{}

	followers, uploads, downloads *shares
}

// New makes a grading over its configuration and creates its folders.
func New(c Config) (*Grading, error) {
	f, err := openFiles(c.Dir)
	if err != nil {
		return nil, err
	}
	if c.Files <= 0 {
		c.Files = defaultFiles
	}
	return &Grading{
		Config: c, files: f, nudge: make(chan struct{}, 1),
		followers: newShares(c.Files, tooManyFollowers), downloads: newShares(c.Files, tooManyDownloads),
		uploads: newShares(c.Files/2, tooManyUploads), // it has a few files open while it is unpacked
	}, nil
}

// Upload is what a client hands in.
type Upload struct {
	Competition string
	Name        string    // file name, as the client calls it
	Body        io.Reader // read to its end, or to the limit
	OnBehalfOf  string    // name or id of who is to own the job; empty: the subject
	SubmittedBy string    // free text
	Labels      map[string]string
	Entry       string
	Args        []string
}

// Idem makes a submit repeatable: the key that the client chose and the secret
// that it presented.
type Idem struct {
	Key       string
	Presented token.Secret
}

// Detail is a job with its submission.
type Detail struct {
	Job        job.Job
	Submission Submission
}

// Submitted is the answer to a submit.
type Submitted struct {
	Detail
	// Handle reads and cancels this one job, whatever happens to the token.
	Handle   token.Secret
	Warnings []Warning
	Replayed bool
}

// Warning is something to know that is no error.
type Warning struct{ Code, Detail string }

// replyLife is how long a lost answer to a submit can be asked for again.
const replyLife = 24 * time.Hour

// Submit admits a job. The upload is stored and checked first, so that a
// refused one costs no quota. Admission holds the owner's gate: no job is
// admitted after a revocation was acknowledged.
func (g *Grading) Submit(ctx context.Context, s *policy.Subject, u Upload, idem Idem) (Submitted, error) {
	if err := policy.Decide(s, policy.JobSubmit, policy.Resource{Owner: s.Principal.ID, Competition: u.Competition}); err != nil {
		return Submitted{}, err
	}
	c, err := g.competition(ctx, u.Competition)
	if err != nil {
		return Submitted{}, err
	}
	owner, err := g.beneficiary(s, u)
	if err != nil {
		return Submitted{}, err
	}
	if !c.Open {
		return Submitted{}, fault.New(fault.Conflict, "competition_closed", "The competition %s takes no submissions.", c.Name).
			WithFix("gradegate competition list")
	}
	if err := checkLabels(u); err != nil {
		return Submitted{}, err
	}
	release, err := g.uploads.take(s)
	if err != nil {
		return Submitted{}, err
	}
	defer release()
	file, err := g.files.bundles.receive(u.Body, UploadLimit)
	if err != nil {
		return Submitted{}, err
	}
	now := g.Now()
	id := job.ID(g.NewID("job_"))
	sub, err := g.receive(c, id, u, file, now)
	var made Submitted
	if err == nil {
		made, err = token.Draw(func() (Submitted, error) { return g.admit(ctx, s, owner, c, sub, id, u, idem, now) })
	}
	file.decided(!refused(err))
	if refused(err) || made.Replayed {
		g.files.drop(id)
	}
	if err == nil {
		g.Nudge()
	}
	return made, err
}

// beneficiary is who is to own a job: the subject, or who consented to it.
func (g *Grading) beneficiary(s *policy.Subject, u Upload) (principal.ID, error) {
	if u.OnBehalfOf == "" {
		return s.Principal.ID, nil
	}
	p, _, err := g.Gate.Consented(s, u.OnBehalfOf, u.Competition)
	return p.ID, err
}

// enter holds the gates of those whose end must not be acknowledged while the
// job is admitted, and says in it whose it is at this moment. whose is the name of
// another one that it is handed in for.
func (g *Grading) enter(s *policy.Subject, owner principal.ID, j *job.Job) (release func(), whose string, err error) {
	if owner == s.Principal.ID {
		release, err = g.Gate.Admit(s)
		return release, "", err
	}
	p, c, release, err := g.Gate.AdmitFor(s, owner, j.Competition)
	if err != nil {
		return nil, "", err
	}
	j.Owner, j.Person = p.ID, p.Epochs.Person
	j.Submitter, j.SubmitterEpoch, j.Consent = c.Taker, c.TakerEpoch, c.ID
	return release, p.Name, nil
}

// refused reports whether an error means that nothing was taken. After trouble
// of ours nobody knows: then what it needs stays.
func refused(err error) bool {
	return err != nil && fault.KindOf(err) != fault.Unavailable && fault.KindOf(err) != fault.Internal
}

// admit puts the job, its submission and its reservation into the store.
func (g *Grading) admit(ctx context.Context, s *policy.Subject, owner principal.ID, c Competition, sub Submission, id job.ID, u Upload, idem Idem, now time.Time) (Submitted, error) {
	key, request := submitKey(idem), submitDigest(c.Name, sub, u)
	if old, err := g.replay(ctx, key, request, idem); err != nil || old.Replayed {
		return old, err
	}
	handle, run := token.NewSecret(token.JobKind), token.NewSecret(token.Run)
	if err := g.files.writeRunToken(id, run); err != nil {
		return Submitted{}, err
	}
	h, r := handle.Presented(), run.Presented()
	j := job.Job{
		ID: id, Version: 1, Owner: s.Principal.ID, Competition: c.Name, Submission: sub.ID, Via: s.Token,
		Person: s.Principal.Epochs.Person, SubmittedBy: audit.Clean(u.SubmittedBy, 100), Labels: u.Labels, Args: u.Args,
		State: job.Queued, Resources: c.Resources, CreatedAt: now,
		Handle: h.Handle(g.Keys.Peppers()), Run: r.Handle(g.Keys.Peppers()),
	}
	var reply *JobReply
	if key != nil {
		reply = &JobReply{
			Key: *key, Request: request, Job: id, Until: now.Add(replyLife),
			Sealed: g.Keys.Seal([]byte(handle.Reveal()), idem.Key, idem.Presented.Reveal()),
		}
	}
	release, whose, err := g.enter(s, owner, &j)
	if err != nil {
		return Submitted{}, err
	}
	sub.Owner = j.Owner
	q := g.reservation(c, &j, whose, sub, now) // behind the gate: a budget that was lowered holds once that is acknowledged
	err = g.Store.InsertJob(ctx, j, sub, q, reply, g.submitEvent(s, j, sub, now))
	release()
	if err != nil && fault.CodeOf(err) == "reply_exists" {
		return g.replay(ctx, key, request, idem)
	}
	if err != nil {
		return Submitted{}, err
	}
	return Submitted{Detail: Detail{Job: j, Submission: sub}, Handle: handle, Warnings: append(warnings(s, c, now), g.low(ctx, q.Bounds, now)...)}, nil
}

func (g *Grading) submitEvent(s *policy.Subject, j job.Job, sub Submission, now time.Time) audit.Event {
	e := g.event(s, audit.JobSubmit, now)
	e.Target, e.Owner, e.Competition = string(j.ID), string(j.Owner), j.Competition
	e.Detail = map[string]string{"competition": j.Competition, "submission": sub.ID, "sha256": sub.Digest, "kind": sub.Kind}
	if j.SubmittedBy != "" {
		e.Detail["submitted_by"] = j.SubmittedBy
	}
	if j.Submitter != "" {
		e.Detail["on_behalf_of"], e.Detail["act"], e.Detail["consent"] = string(j.Owner), string(j.Submitter), j.Consent
	}
	return e
}

// warnings tells what may surprise later: a job outlives its token without
// harm, but its owner may want to know.
func warnings(s *policy.Subject, c Competition, now time.Time) []Warning {
	if s.Until.IsZero() || s.Until.After(now.Add(c.Resources.TimeLimit)) {
		return nil
	}
	return []Warning{{
		Code: "token_ends_before_job_limit",
		Detail: "The token ends at " + s.Until.Format(time.RFC3339) +
			", before the job's time limit. The job goes on; read it with another token of yours or with its handle.",
	}}
}

// replay answers a repeated submit. Its Replayed is false if it is none.
func (g *Grading) replay(ctx context.Context, key *[32]byte, request [32]byte, idem Idem) (Submitted, error) {
	if key == nil {
		return Submitted{}, nil
	}
	r, err := g.Store.JobReply(ctx, *key, g.Now())
	if err != nil {
		if fault.KindOf(err) == fault.NotFound {
			err = nil
		}
		return Submitted{}, err
	}
	if r.Request != request {
		return Submitted{}, fault.New(fault.Mismatched, "idempotency_key_reused", "This Idempotency-Key was used for another request.").
			WithFix("Use a fresh key for each request.")
	}
	text, err := g.Keys.Open(r.Sealed, idem.Key, idem.Presented.Reveal())
	if err != nil {
		return Submitted{}, err
	}
	handle, err := token.ReadSecret(string(text))
	if err != nil {
		return Submitted{}, err
	}
	d, err := g.detail(ctx, r.Job)
	return Submitted{Detail: d, Handle: handle, Replayed: err == nil}, err
}

func submitKey(idem Idem) *[32]byte {
	if idem.Key == "" || idem.Presented.IsZero() {
		return nil
	}
	d := idem.Presented.Presented().Digest
	key := sha256.Sum256(append(d.Sum[:], idem.Key...))
	return &key
}

func submitDigest(competition string, sub Submission, u Upload) [32]byte {
	text, _ := json.Marshal([]any{competition, sub.Digest, sub.Name, u.SubmittedBy, u.Labels, u.Entry, u.Args, u.OnBehalfOf}) // strings always encode
	return sha256.Sum256(text)
}

// QuotaDay is the start of the day, in UTC, in which the daily quota counts.
func QuotaDay(now time.Time) time.Time { return now.UTC().Truncate(24 * time.Hour) }

func checkLabels(u Upload) error {
	bad := fault.New(fault.Invalid, "labels_invalid", "At most 16 labels, with names and values of at most 63 printable characters.").
		WithFix("Use for example --label run=baseline")
	if len(u.Labels) > 16 || len(u.Args) > 64 {
		return bad
	}
	for k, v := range u.Labels {
		if k == "" || len(k) > 63 || len(v) > 63 || k != audit.Clean(k, 63) || v != audit.Clean(v, 63) {
			return bad
		}
	}
	return nil
}

func (g *Grading) event(s *policy.Subject, a audit.Action, now time.Time) audit.Event {
	e := audit.Event{
		ID: g.NewID("evt_"), At: now, Action: a, Outcome: audit.Done,
		Actor: s.Actor(), Token: string(s.Token), Request: s.Request, Agent: s.Agent,
	}
	if s.Kind != 0 {
		e.Kind = s.Kind.String()
	}
	if s.Addr.IsValid() {
		e.Addr = s.Addr.String()
	}
	return e
}
