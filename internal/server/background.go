package server

import (
	"context"
	"net/netip"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/token"
)

// outbox is a store's events that the trail may not have yet.
type outbox interface {
	PendingEvents(ctx context.Context, limit int) ([]audit.Event, error)
	EventsWritten(ctx context.Context, ids []string) error
	Wake() <-chan struct{}
}

// drainBatch bounds how many events go to the trail at once.
const drainBatch = 500

// drain moves a store's events to the trail until none is left. An event is
// forgotten only when the trail has it durably; sent twice, it is there once.
func (s *Server) drain(ctx context.Context, o outbox) error {
	for {
		events, err := o.PendingEvents(ctx, drainBatch)
		if err != nil || len(events) == 0 {
			return err
		}
		if err := s.trail.Effects(ctx, events); err != nil {
			return err
		}
		ids := make([]string, len(events))
		for i := range events {
			ids[i] = events[i].ID
		}
		if err := o.EventsWritten(ctx, ids); err != nil {
			return err
		}
	}
}

func (s *Server) drainAll(ctx context.Context) {
	for _, o := range []outbox{s.tokens, s.jobs} {
		if err := s.drain(ctx, o); err != nil {
			s.log.Warn("effects wait to be copied to the trail", "error", err)
		}
	}
}

// pump drains whenever a store says that there is something, and now and then
// in any case.
func (s *Server) pump(ctx context.Context, o outbox) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		if err := s.drain(ctx, o); err != nil && ctx.Err() == nil {
			s.log.Warn("effects wait to be copied to the trail", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-o.Wake():
		case <-tick.C:
		}
	}
}

// flushEvery is how often last uses go to the database, in one transaction.
const flushEvery = 3 * time.Second

// keepUses stores last uses, and forgets job handles whose time is over.
func (s *Server) keepUses(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.flushUses(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("last uses are kept in memory and the trail for now", "error", err)
		}
		s.table.DropHandles(s.clock.Now())
	}
}

func (s *Server) flushUses(ctx context.Context) error {
	position := s.trail.Position() // before the uses are taken: they reach at least this far
	uses := s.table.TakeUses()
	if len(uses) == 0 {
		return nil
	}
	if err := s.tokens.RecordUses(ctx, uses, position); err != nil {
		s.table.KeepUses(uses)
		return err
	}
	return nil
}

// useOf reads a use out of a line of the trail.
func useOf(e audit.Event) token.Use {
	addr, _ := netip.ParseAddr(e.Addr) // none is recorded when it was unknown
	return token.Use{At: e.At, Addr: addr, Agent: e.Agent, Count: 1}
}
