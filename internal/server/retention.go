package server

import (
	"context"
	"strconv"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/config"
	"gradegate/internal/maintenance"
	"gradegate/internal/trail"
)

// trims is the trail's retention as the API shows it.
type trims struct{ *trail.Trail }

// Trim drops what is older than it is kept.
func (t trims) Trim(ctx context.Context, actor string, dry bool) ([]api.Trim, error) {
	all, err := t.Trail.Trim(ctx, actor, dry)
	return WireTrims(all), err
}

// Trims are the records of what was dropped.
func (t trims) Trims() ([]api.Trim, error) {
	all, err := t.Trail.Trims()
	return WireTrims(all), err
}

// WireTrims are trims as the API shows them.
func WireTrims(all []trail.Trimmed) []api.Trim {
	out := make([]api.Trim, 0, len(all))
	for _, t := range all {
		w := api.Trim{Sink: t.Sink, Stream: t.Stream, At: t.At, Why: t.Why, Stopped: t.Stopped, Note: t.Note}
		if t.Keep > 0 {
			w.Keep = config.FormatDuration(t.Keep)
		}
		if t.To > 0 {
			w.Lines, w.From, w.To, w.Segments, w.Root = t.To-t.From, t.From, t.To-1, []uint64{t.First, t.Last}, t.Root
		}
		if !t.Latest.IsZero() {
			w.Earliest, w.Latest = &t.Earliest, &t.Latest
		}
		out = append(out, w)
	}
	return out
}

// holding are the legal holds as the trail asks for them.
type holding struct{ *Server }

// Holding implements trail.Holds.
func (h holding) Holding(ctx context.Context) (judge func(*audit.Event) string, edition string, err error) {
	all, err := h.tokens.Holds(ctx)
	if err != nil {
		return nil, "", err
	}
	changes := int64(0)
	for _, x := range all {
		changes += x.Version // none is ever deleted
	}
	if held := maintenance.HeldAt(all, h.clock.Now()); held.Any() {
		judge = held.Line
	}
	return judge, strconv.FormatInt(changes, 10), nil
}

const (
	trimFirst = time.Hour // after the start: by then whoever set it up has seen what it says
	trimEvery = 24 * time.Hour
)

// trimDaily drops each day what is older than it is kept.
func (s *Server) trimDaily(ctx context.Context) {
	timer := time.NewTimer(trimFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(trimEvery)
		done, err := s.trail.Trim(ctx, "system", false)
		for _, t := range done {
			if t.To > 0 {
				s.log.Info("old lines of the audit trail were dropped", "sink", t.Sink, "stream", t.Stream, "lines", t.To-t.From, "latest", t.Latest)
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("nothing more is dropped from the audit trail for now", "error", err)
		}
	}
}
