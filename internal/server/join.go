package server

import (
	"context"
	"os"
	"syscall"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/httpapi"
	"gradegate/internal/principal"
	"gradegate/internal/trail"
)

// openAPI joins the HTTP layer with what it serves.
func (s *Server) openAPI(context.Context) error {
	proxies, err := s.cfg.Proxies()
	if err != nil {
		return err
	}
	m := s.newMetrics()
	var failed func(httpapi.Failure)
	if s.failures != nil {
		failed = s.failures.failed
	}
	m.registry.MustRegister(append(s.crowd.collectors(), s.growthMetrics())...)
	s.api, err = httpapi.New(httpapi.Deps{
		Table: s.table, Authority: s.authority, Grading: s.grading, Maintenance: s.maintenance, Recorder: s.trail, Now: s.clock.Now, Clock: s.clock, Logger: s.log,
		TrustedProxies: proxies, ProxyHeader: s.cfg.ProxyHeader, PublicURL: s.cfg.PublicURL, Version: Version,
		Limits: s.limits(), Blocks: s.blocks, Failed: failed, Metrics: m.handler(), Observe: m.observe,
		SeparateAdmin: s.cfg.AdminListen != "", Health: s.health,
		Name:     func(_ context.Context, id principal.ID) string { return s.table.NameOf(id) },
		TrailKey: s.trail.VerifierKey(), Search: s.search, Lines: s.lines, Checkpoint: s.trail.Latest, Retention: trims{s.trail},
	})
	return err
}

// limitKeys bounds how many tokens and users the limits remember at a time.
const limitKeys = 1 << 17

// limits are the rates that are configured; bursts are a sixth of a minute's worth.
func (s *Server) limits() *httpapi.Limits {
	r, l := httpapi.DefaultRates(), s.cfg.Limits
	for class, n := range map[httpapi.Class]int{
		httpapi.Reading: l.Reads, httpapi.Changing: l.Changes, httpapi.Submitting: l.Submits, httpapi.Canceling: l.Cancels, httpapi.Verifying: l.Verifies,
	} {
		r[class].Events = n
		r[class].Burst = max(r[class].Burst, n/6)
	}
	return httpapi.NewLimits(r, limitKeys)
}

func (s *Server) search(ctx context.Context, q httpapi.AuditQuery) ([]api.AuditEvent, error) {
	found, err := trail.Search(ctx, s.trail.Dir, trail.Query{
		Stream: q.Stream, Since: q.Since, Until: q.Until, User: q.User, Actor: q.Actor, Token: q.Token, Target: q.Target, Owner: q.Owner,
		Action: q.Action, Outcome: q.Outcome, Addr: q.Addr, Request: q.Request, Reason: q.Reason, Limit: q.Limit,
	})
	if err != nil {
		return nil, err
	}
	out := make([]api.AuditEvent, 0, len(found))
	for _, f := range found {
		out = append(out, WireEvent(f))
	}
	return out, nil
}

func (s *Server) lines(ctx context.Context, l httpapi.Lines, do func(*audit.Event) error) (time.Time, error) {
	return trail.Each(ctx, s.trail.Dir, trail.Pass{Stream: l.Stream, Since: l.Since, Until: l.Until, Slack: l.Slack, Text: l.Text}, do)
}

// WireEvent is a line of the trail as the API shows it.
func WireEvent(f trail.Found) api.AuditEvent {
	e := f.Event
	return api.AuditEvent{
		ID: e.ID, At: e.At, Stream: f.Stream, Action: string(e.Action), Outcome: string(e.Outcome), Actor: e.Actor, Token: e.Token, Kind: e.Kind,
		Target: e.Target, Owner: e.Owner, Reason: e.Reason, Mode: e.Mode, Addr: e.Addr, Agent: e.Agent, Route: e.Route, Request: e.Request,
		Status: e.Status, Scope: e.Scope, Competition: e.Competition, Count: e.Count, Seq: e.Seq, Detail: e.Detail,
	}
}

// sameDisk warns when ledger and database would be lost together.
func (s *Server) sameDisk() string {
	a, errA := os.Stat(s.cfg.Data)
	b, errB := os.Stat(s.cfg.Path(s.cfg.Ledger.Dir, "ledger"))
	if errA != nil || errB != nil {
		return ""
	}
	x, okA := a.Sys().(*syscall.Stat_t)
	y, okB := b.Sys().(*syscall.Stat_t)
	if okA && okB && x.Dev == y.Dev {
		return " (the same disk as the data: set ledger.dir to another one)"
	}
	return ""
}
