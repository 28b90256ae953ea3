package server

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
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

// keepUses stores last uses, notes that they could be recorded, and forgets job
// handles whose time is over.
func (s *Server) keepUses(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	p := pulse{able: s.clock.Now(), heard: s.clock.Now()}
	s.beat(ctx, &p)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.flushUses(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("last uses are kept in memory and the trail for now", "error", err)
		}
		s.hearUses(ctx, &p)
		s.beat(ctx, &p)
		s.rehash(ctx)
		s.table.DropHandles(s.clock.Now())
		s.watchClock(&p)
	}
}

// hearOverlap is how far back each look for other nodes' uses goes: their clocks
// may differ, and a transaction may be seen late. Hearing twice does no harm.
const hearOverlap = 30 * time.Second

// hearUses takes over the uses that other nodes have stored. A token that is in
// use at one node must not end unused at another, nor seem to rest there.
func (s *Server) hearUses(ctx context.Context, p *pulse) {
	if s.cfg.Database.Tokens == "" {
		return // there are no other nodes
	}
	now := s.clock.Now()
	err := s.tokens.UsesStored(ctx, p.heard.Add(-hearOverlap), func(u authn.LastUse) error {
		s.table.ApplyUse(u)
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("the uses at the other nodes cannot be read", "error", err)
		}
		return
	}
	p.heard = now
}

// rehash keeps the tokens that were used under the newest pepper.
func (s *Server) rehash(ctx context.Context) {
	for _, o := range s.table.TakeOutworn() {
		if err := s.authority.Rehash(ctx, o, s.newID("req_")); err != nil && ctx.Err() == nil {
			s.log.Warn("tokens stay under an older pepper for now", "error", err)
			return
		}
	}
}

// pulse is what keepUses remembers between two beats.
type pulse struct {
	able   time.Time // since when uses can be recorded; zero: they cannot
	beaten time.Time
	// outages are those that the table knows.
	outages token.Outages
	heard   time.Time // when it was asked last what other nodes have stored
	warned  time.Time // of the clock
}

// beatEvery is how often it is noted that uses can be recorded. What lies
// between two notes is an outage, for which the idle clocks stand still.
const beatEvery = 20 * time.Second

func (s *Server) beat(ctx context.Context, p *pulse) {
	now := s.clock.Now()
	switch able := s.trail.Records(); {
	case !able:
		p.able = time.Time{}
		return
	case p.able.IsZero():
		p.able = now
	case now.Sub(p.beaten) < beatEvery:
		return
	}
	outages, err := s.tokens.Beat(ctx, p.able, now)
	if err != nil {
		return // the next one tells what there is to tell
	}
	p.beaten = now
	if !slices.Equal(outages, p.outages) {
		p.outages = outages
		s.table.ApplyOutages(outages)
	}
}

// watchClock says, now and then, that the wall clock is not believed.
func (s *Server) watchClock(p *pulse) {
	if ahead := s.clock.Ahead(); ahead > 0 && s.clock.Now().Sub(p.warned) > time.Hour {
		p.warned = s.clock.Now()
		s.log.Error("the machine's clock has leapt ahead and is not believed: nothing expires by it", "ahead", ahead.Round(time.Second),
			"believed", s.clock.Now().Format(time.RFC3339), "fix", "set the clock right; if it is right: gradegate clock confirm --data "+s.cfg.Data)
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
