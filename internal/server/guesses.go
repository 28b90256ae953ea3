package server

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
)

const (
	// guessEvery is how often guesses at tokens are told and stored.
	guessEvery = time.Minute
	// guessLines is how many tokens the trail tells of at a time: the loudest
	// ones. The others wait, and their counts grow.
	guessLines = 256
)

// keepGuesses tells the trail and the database of wrong secrets that were tried
// with the ids of tokens.
func (s *Server) keepGuesses(ctx context.Context) {
	tick := time.NewTicker(guessEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.flushGuesses(ctx)
		}
	}
}

func (s *Server) flushGuesses(ctx context.Context) {
	s.tellGuesses(ctx)
	fresh := s.table.TakeGuesses(authn.ToStore)
	if len(fresh) == 0 {
		return
	}
	if err := s.tokens.RecordGuesses(ctx, fresh); err != nil {
		s.table.KeepGuesses(authn.ToStore, fresh)
		s.log.Warn("guesses at tokens are kept in memory for now", "error", err)
	}
}

// tellGuesses writes one line for each token, with its owner.
func (s *Server) tellGuesses(ctx context.Context) {
	fresh := s.table.TakeGuesses(authn.ToTell)
	slices.SortFunc(fresh, func(a, b authn.Guessed) int { return cmp.Compare(b.Count, a.Count) })
	for i, g := range fresh {
		var err error
		if i < guessLines {
			err = s.trail.Record(ctx, audit.Event{
				ID: s.newID("evt_"), At: s.clock.Now(), Action: audit.TokenGuess, Outcome: audit.Deny, Target: string(g.Token), Owner: string(g.Owner),
				Reason: authn.ErrUnknown.Code, Count: g.Count, Detail: map[string]string{"sources": strconv.Itoa(g.Sources.Count())},
			}, false)
		}
		if i >= guessLines || err != nil {
			s.table.KeepGuesses(authn.ToTell, fresh[i:])
			return
		}
	}
}
