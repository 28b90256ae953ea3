package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gradegate/api"
	"gradegate/internal/fault"
	"gradegate/internal/grading"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
)

type jobsIn struct {
	Competition string `query:"competition" maxLength:"63"`
	State       string `query:"state" enum:"queued,dispatching,running,grading,canceling,canceled,succeeded,failed"`
	ForOthers   bool   `query:"for_others" doc:"Those that one handed in for others, by their consent, instead of one's own"`
	User        string `query:"user" maxLength:"200" doc:"Somebody's id or name, or * for everybody's; for administrators and auditors"`
	Paging
}

func (in *jobsIn) contest() string { return in.Competition }

func (a *API) listJobs(ctx context.Context, s *policy.Subject, in *jobsIn) (api.Page[api.Job], error) {
	page := api.Page[api.Job]{Items: []api.Job{}}
	f := grading.Filter{Competition: in.Competition, State: job.State(in.State), Before: job.ID(in.Cursor), Limit: in.Limit + 1}
	if in.Cursor != "" && !strings.HasPrefix(in.Cursor, "job_") {
		return page, errCursor
	}
	switch {
	case in.ForOthers && in.User != "":
		return page, fault.New(fault.Invalid, "query_invalid", "for_others and user exclude each other.").WithFix("Send one of them.")
	case in.ForOthers && s.Local:
		return page, nil // it hands in nothing
	case in.ForOthers:
		f.Submitter = s.Principal.ID
	case in.User == "" && s.Local:
		f.Owner = "*" // who has no jobs of his own means everybody's
	case in.User == "*":
		f.Owner = "*"
	default:
		owner, err := a.userOrService(ctx, s, in.User)
		if err != nil {
			return page, err
		}
		f.Owner = principal.ID(owner)
	}
	list, err := a.Grading.Jobs(ctx, s, f)
	if err != nil {
		return page, err
	}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		page.NextCursor = string(list[in.Limit-1].Job.ID)
	}
	for _, d := range list {
		page.Items = append(page.Items, a.viewJob(s, d))
	}
	return page, nil
}

func (a *API) getJob(ctx context.Context, s *policy.Subject, in *ByID) (api.Job, error) {
	d, err := a.Grading.Job(ctx, s, job.ID(in.ID))
	if err != nil {
		return api.Job{}, err
	}
	return a.viewJob(s, d), nil
}

func (a *API) cancelJob(ctx context.Context, s *policy.Subject, in *ByID) (api.CancelJob, error) {
	d, already, err := a.Grading.Cancel(ctx, s, job.ID(in.ID))
	if err != nil {
		return api.CancelJob{}, err
	}
	return api.CancelJob{Job: a.viewJob(s, d), Already: string(already)}, nil
}

func (a *API) result(ctx context.Context, s *policy.Subject, in *ByID) (api.Result, error) {
	d, err := a.Grading.Result(ctx, s, job.ID(in.ID))
	if err != nil {
		return api.Result{}, err
	}
	return api.Result{Job: string(d.Job.ID), State: string(d.Job.State), Scores: d.Job.Scores}, nil
}

// submit hands the upload to grading as it arrives; nothing is held in memory.
func (a *API) submit(c *call, r *http.Request) error {
	form, err := c.openForm(r, grading.UploadLimit)
	if err != nil {
		return err
	}
	f, err := form.fields("bundle")
	if err != nil {
		return err
	}
	if err := f.only("submitted_by on_behalf_of entry labels", "label", "arg"); err != nil {
		return err
	}
	if form.file == nil {
		return fault.New(fault.Invalid, "bundle_missing", "The form has no part named bundle.").WithFix("curl -F bundle=@FILE …")
	}
	labels, err := f.labels()
	if err != nil {
		return err
	}
	if err := c.begin(r.Context()); err != nil {
		return err
	}
	made, err := a.Grading.Submit(r.Context(), &c.subject, grading.Upload{
		Competition: r.PathValue("id"), Name: form.file.FileName(), Body: form,
		OnBehalfOf: f.one("on_behalf_of"), SubmittedBy: f.one("submitted_by"), Labels: labels, Entry: f.one("entry"), Args: f["arg"],
	}, grading.Idem{Key: r.Header.Get("Idempotency-Key"), Presented: c.presented})
	if err != nil {
		return err
	}
	out := api.Submitted{
		Job: a.viewJob(&c.subject, made.Detail), Handle: made.Handle.Reveal(), Warnings: []api.Warning{}, Replayed: made.Replayed,
	}
	for _, w := range made.Warnings {
		out.Warnings = append(out.Warnings, api.Warning{Code: w.Code, Detail: w.Detail})
	}
	c.Header().Set("Location", "/v1/jobs/"+out.Job.ID)
	return c.json(http.StatusAccepted, out)
}

// logs sends what a job has printed from an offset on; with follow it goes on
// until the job has ended, the credential has, or the client leaves.
func (a *API) logs(c *call, r *http.Request) error {
	q := r.URL.Query()
	offset, follow, err := logQuery(q.Get("offset"), q.Get("follow"))
	if err != nil {
		return err
	}
	l, err := a.Grading.Log(r.Context(), &c.subject, job.ID(r.PathValue("id")), follow)
	if err != nil {
		return err
	}
	defer l.Close()
	c.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.WriteHeader(http.StatusOK)
	control := http.NewResponseController(c.ResponseWriter)
	tick := time.NewTicker(a.followEvery)
	defer tick.Stop()
	for {
		over := !follow || l.Over() // asked before reading, so that nothing is left behind
		n, err := copyLog(c, l, offset)
		if err != nil {
			return err
		}
		offset += n
		c.extend()
		_ = control.Flush() // a client that has gone shows at the next write
		if over {
			return nil
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-a.closing:
			return nil
		case <-tick.C:
		}
		if !a.stillValid(c, r) {
			return nil
		}
	}
}

// logPiece is how much of a log is read at a time. It is in memory before it is
// sent, so that a client which takes nothing holds no file.
const logPiece = 16 << 10

// copyLog sends what there is from an offset on.
func copyLog(w io.Writer, l *grading.Log, offset int64) (sent int64, err error) {
	piece := make([]byte, logPiece)
	for {
		n, err := l.ReadAt(piece, offset+sent)
		if _, err := w.Write(piece[:n]); err != nil {
			return sent, err
		}
		sent += int64(n)
		if errors.Is(err, io.EOF) {
			return sent, nil
		}
		if err != nil {
			return sent, fmt.Errorf("reading a log: %w", err)
		}
	}
}

// stillValid asks again, since a stream outlives the moment of its decision.
func (a *API) stillValid(c *call, r *http.Request) bool {
	if c.subject.Local {
		return true
	}
	text, err := credential(r.Header)
	if err != nil {
		return false
	}
	p, err := a.Table.Read(text)
	if err != nil {
		return false
	}
	_, _, err = a.Table.Authenticate(p, c.addr)
	return err == nil
}

func logQuery(offset, follow string) (n int64, f bool, err error) {
	if offset != "" {
		n, err = strconv.ParseInt(offset, 10, 64)
	}
	if follow != "" && err == nil {
		f, err = strconv.ParseBool(follow)
	}
	if err != nil || n < 0 {
		return 0, false, fault.New(fault.Invalid, "query_invalid", "offset is a number of bytes, follow is true or false.").WithFix("?offset=0&follow=true")
	}
	return n, f, nil
}
