package grading

import (
	"context"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/job"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// ReportLeak ends every job handle and run token in the list; other secrets are
// passed over. Possession is the proof, so anybody may report, and learns
// nothing. The jobs go on: a handle has submitted none of them. The subject
// may be the zero value.
func (g *Grading) ReportLeak(ctx context.Context, s *policy.Subject, secrets []string) error {
	for _, text := range secrets {
		p, err := token.Parse(text)
		if err != nil || p.Kind != token.JobKind && p.Kind != token.Run {
			continue
		}
		if id := g.Gate.HandleJob(p); id != "" {
			if err := g.leaked(ctx, s, job.ID(id), p.Kind); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Grading) leaked(ctx context.Context, s *policy.Subject, id job.ID, k token.Kind) error {
	return g.again(func() error {
		j, err := g.Store.Job(ctx, id)
		if err != nil {
			return err
		}
		next, changed := j.Leak(k)
		if !changed {
			return nil
		}
		e := g.event(s, audit.TokenLeak, g.Now())
		e.Target, e.Owner, e.Reason, e.Competition = string(id), string(j.Owner), string(token.Leaked), j.Competition
		e.Detail = map[string]string{"kind": k.String()}
		return g.Store.ReplaceJob(ctx, j, next, nil, e)
	})
}

// again repeats a change that met another one of the same job.
func (g *Grading) again(do func() error) (err error) {
	for range 5 {
		if err = do(); fault.KindOf(err) != fault.Conflict || err == nil {
			return err
		}
	}
	return err
}
