package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gradegate/api"
	"gradegate/internal/trail"
)

// step is one sentence of the story. do returns a few words about how it went.
type step struct {
	what string
	do   func(*stage, context.Context) (string, error)
}

// story is the whole of it, in order.
var story = []step{
	{"a server starts with nothing configured", (*stage).begin},
	{"the administrator comes in by a one-time invite", (*stage).administrator},
	{"the invite works once", (*stage).inviteIsSpent},
	{"the Iris competition is made", (*stage).competition},
	{"ann is invited and signs in", (*stage).annSignsIn},
	{"ann makes a token; nobody sees it", (*stage).annMakesToken},
	{"ann's program learns, predicts and is graded", (*stage).annProgram},
	{"ann's predictions are graded", (*stage).annPredictions},
	{"both stand on the leaderboard", (*stage).onLeaderboard},
	{"a long job starts", (*stage).longJob},
	{"its token is rotated under it", (*stage).rotate},
	{"the successor follows the job", (*stage).follow},
	{"a stranger does not find the job", (*stage).stranger},
	{"the successor cancels it", (*stage).cancelLong},
	{"the predecessor is refused, and told why", (*stage).predecessor},
	{"a leaked token is reported and dead on the next request", (*stage).leak},
	{"the server is killed with -9 and started again", (*stage).crash},
	{"everything is still true", (*stage).stillTrue},
	{"the audit trail of it all proves itself", (*stage).proveTrail},
}

func (s *stage) begin(ctx context.Context) (string, error) {
	err := s.start(ctx, "127.0.0.1:0")
	return s.url, err
}

func (s *stage) administrator(ctx context.Context) (string, error) {
	c, made, err := s.redeem(ctx, s.invite, "demo")
	s.admin = c
	if err == nil && made.User.Role != "admin" {
		err = fmt.Errorf("the role is %s", made.User.Role)
	}
	return "", err
}

func (s *stage) inviteIsSpent(ctx context.Context) (string, error) {
	_, _, err := s.redeem(ctx, s.invite, "again")
	return "401", refused(err, 401, "invite_invalid")
}

func (s *stage) competition(ctx context.Context) (string, error) {
	dir := filepath.Join(s.dir, "iris")
	spec, err := readCompetition(dir)
	if err != nil {
		return "", err
	}
	pack, err := packCompetition(dir, spec.Files)
	if err != nil {
		return "", err
	}
	c, err := s.admin.ApplyCompetition(ctx, spec, pack)
	return strings.Join(c.Files, ", "), err
}

// enrol invites somebody and signs them in.
func (s *stage) enrol(ctx context.Context, name string) (*api.Client, error) {
	made, err := s.admin.InviteUser(ctx, name, api.Invite{})
	if err != nil {
		return nil, err
	}
	c, _, err := s.redeem(ctx, made.Code, name+"-laptop")
	return c, err
}

func (s *stage) annSignsIn(ctx context.Context) (string, error) {
	c, err := s.enrol(ctx, "ann")
	s.ann = c
	return "", err
}

func (s *stage) annMakesToken(ctx context.Context) (string, error) {
	made, err := s.ann.CreateToken(ctx, api.CreateToken{Name: "laptop"})
	if err != nil {
		return "", err
	}
	s.token = made
	s.ann, err = s.person(made.Secret)
	return made.Token.Ends, err
}

// hand hands something of the example in.
func (s *stage) hand(ctx context.Context, what string) (api.Submitted, error) {
	open, name, _, err := opener(filepath.Join(s.dir, "iris", what))
	if err != nil {
		return api.Submitted{}, err
	}
	return s.ann.Submit(ctx, "iris", api.Upload{Open: open, Name: name, Labels: map[string]string{"from": "demo"}})
}

// graded hands something in and waits for its grade.
func (s *stage) graded(ctx context.Context, what string) (api.Job, string, error) {
	made, err := s.hand(ctx, what)
	if err != nil {
		return api.Job{}, "", err
	}
	j, err := s.app.wait(ctx, s.ann, made.Job.ID, time.Minute)
	if err == nil && j.State != "succeeded" {
		err = fmt.Errorf("the job %s is %s: %s", j.ID, stateOf(j), j.Detail)
	}
	return j, scores(j.Scores), err
}

func (s *stage) annProgram(ctx context.Context) (detail string, err error) {
	s.program, detail, err = s.graded(ctx, "program")
	return detail, err
}

func (s *stage) annPredictions(ctx context.Context) (detail string, err error) {
	s.predictions, detail, err = s.graded(ctx, "predictions.csv")
	return detail, err
}

func (s *stage) onLeaderboard(ctx context.Context) (string, error) {
	b, err := s.ann.Leaderboard(ctx, "iris")
	if err != nil {
		return "", err
	}
	best := max(s.program.Scores["accuracy"], s.predictions.Scores["accuracy"])
	if len(b.Rows) != 1 || b.Rows[0].User != "ann" || b.Rows[0].Value != best || b.Rows[0].Submissions != 2 {
		return "", fmt.Errorf("the leaderboard is %+v", b.Rows)
	}
	return fmt.Sprintf("ann, best %s %.4f of 2", b.Metric, best), nil
}

func (s *stage) longJob(ctx context.Context) (string, error) {
	made, err := s.hand(ctx, "slow")
	if err != nil {
		return "", err
	}
	s.long = made
	err = s.until(ctx, func() (bool, error) {
		j, err := s.ann.JobByID(ctx, made.Job.ID)
		return j.State == "running" && j.Isolation != "", err
	})
	return made.Job.ID, err
}

// storyTime bounds every wait of the story.
const storyTime = 30 * time.Second

// until asks again and again until something holds.
func (s *stage) until(ctx context.Context, holds func() (bool, error)) error {
	for deadline := time.Now().Add(storyTime); ; {
		ok, err := holds()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it did not happen within %s", storyTime)
		}
		if err := s.ann.Wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *stage) rotate(ctx context.Context) (string, error) {
	made, err := s.ann.RotateToken(ctx, "self", api.RotateToken{Grace: s.grace.String()})
	if err != nil {
		return "", err
	}
	s.successor, s.rotatedAt = made, time.Now()
	return "grace period " + s.grace.String(), nil
}

func (s *stage) follow(ctx context.Context) (string, error) {
	c, err := s.person(s.successor.Secret)
	if err != nil {
		return "", err
	}
	s.ann = c
	body, err := c.JobLogs(ctx, s.long.Job.ID, 0, true)
	if err != nil {
		return "", err
	}
	defer func() { _ = body.Close() }()
	line := make([]byte, 6)
	if _, err := io.ReadFull(body, line); err != nil {
		return "", err
	}
	if string(line) != "step 0" {
		return "", fmt.Errorf("the log begins with %q", line)
	}
	return "its log: " + string(line), nil
}

func (s *stage) stranger(ctx context.Context) (string, error) {
	c, err := s.enrol(ctx, "joe")
	if err != nil {
		return "", err
	}
	s.joe = c
	_, err = c.JobByID(ctx, s.long.Job.ID)
	if err := refused(err, 404, ""); err != nil {
		return "", err
	}
	_, err = c.CancelJob(ctx, s.long.Job.ID)
	return "404 for reading and for cancelling", refused(err, 404, "")
}

func (s *stage) cancelLong(ctx context.Context) (string, error) {
	if _, err := s.ann.CancelJob(ctx, s.long.Job.ID); err != nil {
		return "", err
	}
	j, err := s.app.wait(ctx, s.ann, s.long.Job.ID, storyTime)
	if err == nil && j.State != "canceled" {
		err = fmt.Errorf("the job is %s", stateOf(j))
	}
	return j.State, err
}

func (s *stage) predecessor(ctx context.Context) (string, error) {
	old, err := s.person(s.token.Secret)
	if err != nil {
		return "", err
	}
	if err := s.ann.Wait(ctx, time.Until(s.rotatedAt.Add(s.grace+50*time.Millisecond))); err != nil {
		return "", err
	}
	_, err = old.Whoami(ctx)
	return "401 token_rotated", refused(err, 401, "token_rotated")
}

func (s *stage) leak(ctx context.Context) (string, error) {
	made, err := s.joe.CreateToken(ctx, api.CreateToken{Name: "pasted-into-a-chat"})
	if err != nil {
		return "", err
	}
	leaked, err := s.person(made.Secret)
	if err != nil {
		return "", err
	}
	if _, err := leaked.Whoami(ctx); err != nil {
		return "", err
	}
	finder, err := s.person("")
	if err != nil {
		return "", err
	}
	if _, err := finder.ReportLeaks(ctx, []string{made.Secret}); err != nil {
		return "", err
	}
	_, err = leaked.Whoami(ctx)
	return "401 token_revoked", refused(err, 401, "token_revoked")
}

func (s *stage) crash(ctx context.Context) (string, error) {
	u, err := url.Parse(s.url)
	if err != nil {
		return "", err
	}
	if err := s.stop(syscall.SIGKILL); err != nil {
		return "", err
	}
	return "the same address", s.start(ctx, net.JoinHostPort(u.Hostname(), u.Port()))
}

func (s *stage) stillTrue(ctx context.Context) (string, error) {
	old, err := s.person(s.token.Secret)
	if err != nil {
		return "", err
	}
	_, err = old.Whoami(ctx)
	if err := refused(err, 401, "token_rotated"); err != nil {
		return "", fmt.Errorf("the predecessor: %w", err)
	}
	for name, want := range map[string]api.Job{"program": s.program, "predictions": s.predictions} {
		j, err := s.ann.JobByID(ctx, want.ID)
		if err != nil || j.State != want.State || j.Scores["accuracy"] != want.Scores["accuracy"] {
			return "", errors.Join(fmt.Errorf("the job of the %s is %s", name, stateOf(j)), err)
		}
	}
	j, err := s.ann.JobByID(ctx, s.long.Job.ID)
	if err != nil || j.State != "canceled" {
		return "", errors.Join(fmt.Errorf("the canceled job is %s", stateOf(j)), err)
	}
	handle, err := s.person(s.long.Handle)
	if err != nil {
		return "", err
	}
	if _, err := handle.JobByID(ctx, s.long.Job.ID); err != nil {
		return "", fmt.Errorf("the job handle: %w", err)
	}
	return s.onLeaderboard(ctx)
}

func (s *stage) proveTrail(ctx context.Context) (string, error) {
	key, err := s.ann.TrailKey(ctx)
	if err != nil {
		return "", err
	}
	if err := s.ann.Wait(ctx, 1200*time.Millisecond); err != nil { // checkpoints are signed each second
		return "", err
	}
	dir := filepath.Join(s.data(), "audit")
	if _, err := os.Stat(dir); err != nil {
		return "", err
	}
	r, err := trail.Verify(ctx, dir, strings.TrimSpace(key), trail.Options{})
	if err != nil {
		return "", err
	}
	if !r.OK() {
		return "", errors.New(strings.Join(r.Problems, " "))
	}
	return fmt.Sprintf("%d uses, %d acts", r.Streams[0].Lines, r.Streams[1].Lines), nil
}
