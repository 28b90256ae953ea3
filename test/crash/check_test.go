package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gradegate/api"
)

// sample bounds how much of the history is checked after each start; the last
// checks look at all of it.
const sample = 60

// patient asks again when the server says that this token asked too often. A
// spent budget of failures is another thing: it is a refusal, which no active
// token ever meets.
func (s *server) patient(ask func() error) error {
	for {
		err := ask()
		var e *api.Error
		if !errors.As(err, &e) || e.Code != "rate_limited" {
			return err
		}
		if err := s.client("").Wait(context.Background(), e.RetryAfter); err != nil {
			return err
		}
	}
}

func (s *server) check() error {
	if err := s.checkSome(sample); err != nil {
		return err
	}
	return s.checkStates(sample, false)
}

func (s *server) checkTokens() error { return s.checkSome(1 << 30) }

// checkSome compares what clients know of tokens with what the server says.
func (s *server) checkSome(most int) error {
	s.model.mu.Lock()
	defer s.model.mu.Unlock()
	for secret, k := range s.model.tokens {
		if most--; most < 0 {
			break
		}
		err := s.patient(func() error {
			_, err := s.client(secret).Whoami(context.Background())
			return err
		})
		switch {
		case err != nil && !refusal(err):
			return nil // it died again, at a named point
		case k.revoked == known && err == nil:
			return fmt.Errorf("the revoked token %s is accepted", k.id)
		case k.revoked == untried && err != nil:
			return fmt.Errorf("the token %s was acknowledged and is refused: %w", k.id, err)
		case k.revoked == unknown && err != nil:
			k.revoked = known // it is final now, and must stay so
		}
	}
	return nil
}

// checkStates compares jobs: an acknowledged one exists, a final state and a
// grade never change.
func (s *server) checkStates(most int, openOnly bool) error {
	s.model.mu.Lock()
	defer s.model.mu.Unlock()
	for id, j := range s.model.jobs {
		if openOnly && j.state != "" {
			continue
		}
		if most--; most < 0 {
			break
		}
		var now api.Job
		err := s.patient(func() (err error) {
			now, err = s.client(s.sessions[j.owner]).JobByID(context.Background(), id)
			return err
		})
		if err != nil {
			if !refusal(err) {
				return nil // it died again
			}
			return fmt.Errorf("the job %s was acknowledged: %w", id, err)
		}
		scores := fmt.Sprint(now.Scores)
		if j.state != "" && (j.state != now.State || j.scores != scores) {
			return fmt.Errorf("the job %s was %s %s and is %s %s", id, j.state, j.scores, now.State, scores)
		}
		if now.State == "succeeded" || now.State == "failed" || now.State == "canceled" {
			j.state, j.scores = now.State, scores
		}
	}
	return nil
}

// settle waits until every job is over.
func (s *server) settle() {
	s.t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(3 * time.Minute)
	for {
		if err := s.checkStates(1<<30, true); err != nil {
			s.t.Fatal(err)
		}
		open := 0
		for _, j := range s.model.jobs {
			if j.state == "" {
				open++
			}
		}
		if open == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("%d jobs do not end", open)
		}
	}
}

// checkJobs looks at every program: it started once, or not at all and says so.
func (s *server) checkJobs() error {
	programs := 0
	for id, j := range s.model.jobs {
		if !j.runs {
			if j.state != "succeeded" {
				return fmt.Errorf("the predictions %s are %s", id, j.state)
			}
			continue
		}
		programs++
		var body io.ReadCloser
		err := s.patient(func() (err error) {
			body, err = s.client(s.sessions[j.owner]).JobLogs(context.Background(), id, 0, false)
			return err
		})
		if err != nil {
			if j.state == "succeeded" {
				return fmt.Errorf("the log of %s: %w", id, err)
			}
			continue
		}
		log, err := io.ReadAll(body)
		_ = body.Close()
		if err != nil {
			return err
		}
		if n := marks(string(log)); n > 1 || n == 0 && j.state == "succeeded" {
			return fmt.Errorf("the job %s (%s) started %d times", id, j.state, n)
		}
	}
	s.t.Logf("%d programs, none started twice; %d jobs in all", programs, len(s.model.jobs))
	return nil
}
