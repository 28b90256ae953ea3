package httpapi

import (
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"

	"gradegate/api"
)

// TestClient: the client of package api and this server understand each other.
func TestClient(t *testing.T) {
	w := build(t)
	ctx := t.Context()
	as := func(secret string) *api.Client {
		c, err := api.NewClient(w.public.URL, secret)
		if err != nil {
			t.Fatal(err)
		}
		c.Retries = 0
		return c
	}
	try := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	root := as(w.root.Reveal())
	invited, err := root.InviteUser(ctx, "dora", api.Invite{Role: "user"})
	try("invite", err)
	session, err := as("").Redeem(ctx, api.Redeem{Code: invited.Code, Name: "pod"})
	try("redeem", err)
	dora := as(session.Secret)
	me, err := dora.Whoami(ctx)
	try("whoami", err)
	if me.User.Name != "dora" || me.Kind != "ses" {
		t.Errorf("%+v", me)
	}
	made, err := dora.CreateToken(ctx, api.CreateToken{Name: "laptop", ExpiresIn: "30d"})
	try("create", err)
	laptop := as(made.Secret)
	next, err := laptop.RotateToken(ctx, "self", api.RotateToken{Grace: "1h"})
	try("rotate", err)
	list, err := dora.Tokens(ctx)
	try("list", err)
	if len(list) != 5 { // invite, session, its refresh token, and two generations
		t.Errorf("%d tokens", len(list))
	}
	submitted, err := as(next.Secret).Submit(ctx, "iris", api.Upload{
		Name: "main.py", SubmittedBy: "me", Labels: map[string]string{"a": "b"}, Args: []string{"--fast", ""},
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("print(1)\n")), nil },
	})
	try("submit", err)
	handle := as(submitted.Handle)
	cancelled, err := handle.CancelJob(ctx, submitted.Job.ID)
	try("cancel", err)
	if cancelled.Job.State != "canceled" {
		t.Errorf("%+v", cancelled)
	}
	_, err = as(next.Secret).Submit(ctx, "nowhere", api.Upload{
		Name: "main.py", Open: func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, 8<<20)), nil },
	})
	var refused *api.Error
	if !errors.As(err, &refused) || refused.Status != 404 || refused.Code != "competition_not_found" {
		t.Errorf("a refusal in the middle of an upload: %v", err)
	}
	page, err := dora.Jobs(ctx, url.Values{"limit": {"1"}, "competition": {"iris"}})
	try("jobs", err)
	if len(page.Items) != 1 || page.Items[0].Submission.Name != "main.py" {
		t.Errorf("%+v", page)
	}
	spec, err := root.CompetitionByName(ctx, "iris")
	try("competition", err)
	spec.Title = "Irises"
	spec, err = root.ApplyCompetition(ctx, spec, nil)
	try("apply", err)
	if spec.Title != "Irises" || spec.ETag != `"2"` {
		t.Errorf("%+v", spec)
	}
	file, err := dora.CompetitionFile(ctx, "iris", "train.csv")
	try("file", err)
	_ = file.Close()
	if key, err := as("").TrailKey(ctx); err != nil || key != "gradegate-trail+key\n" {
		t.Errorf("%q %v", key, err)
	}
	if _, err := root.AuditEvents(ctx, url.Values{"limit": {"1000"}, "ip": {"127.0.0.1"}, "action": {"token."}}); err != nil {
		t.Error(err)
	}
	revoked, err := dora.RevokeToken(ctx, next.Token.ID, api.RevokeToken{Reason: "done", Jobs: "cancel-queued"})
	try("revoke", err)
	if revoked.Token.State != "revoked" {
		t.Errorf("%+v", revoked)
	}
	_, err = root.RevokeAllOfUser(ctx, "dora")
	try("revoke all", err)
	if _, err := dora.Whoami(ctx); !errors.As(err, &refused) || refused.Code != "token_revoked" || refused.Fix == "" {
		t.Errorf("%v", err)
	}
	if accepted, err := as("").ReportLeaks(ctx, []string{w.ann.Reveal()}); err != nil || accepted.Accepted != 1 {
		t.Errorf("%+v %v", accepted, err)
	}
	if h, err := as("").Health(ctx); err != nil || h.Status != "ok" {
		t.Errorf("%+v %v", h, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
