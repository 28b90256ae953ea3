package bench

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/maintenance"
	"gradegate/internal/policy"
	"gradegate/internal/store"
	"gradegate/internal/token"
)

// batches is how many the sweep that is measured does before its work is taken
// from it, and batch is how many tokens are in one.
const (
	batches = 5
	batch   = 200
)

// turns lends the sweep's work out for some batches, as a node does that is slow.
type turns struct {
	*store.Tokens
	left int
}

func (t *turns) Archive(ctx context.Context, moves []maintenance.Move, e audit.Event) error {
	t.left--
	return t.Tokens.Archive(ctx, moves, e)
}

func (t *turns) Lease(ctx context.Context, name string, until time.Time) (bool, error) {
	if t.left <= 0 {
		_, err := t.Tokens.Lease(ctx, name, time.Now().Add(-time.Minute)) // it is given back
		return false, err
	}
	return t.Tokens.Lease(ctx, name, until)
}

// noJobs is a cluster where nothing runs.
type noJobs struct{}

func (noJobs) Vias(context.Context) ([]token.ID, error) { return nil, nil }

// sweep moves what some batches hold to the archive.
func (n *node) sweep(ctx context.Context) error {
	t := &turns{n.store, batches}
	now := func() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
	m, err := maintenance.New(maintenance.Config{
		Store: t, Table: n.table, Jobs: noJobs{}, Now: now, Doubt: func() string { return "" },
		NewID: func(prefix string) string { return prefix + authority.SortableID(now()) },
		Keep:  10 * 365 * 24 * time.Hour, Dir: n.Dir, Key: n.keys.Trail(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if _, err = m.Sweep(ctx, admin, false); fault.CodeOf(err) == "sweep_running" && t.left == 0 {
		return nil
	}
	return fmt.Errorf("%d batches fewer than there should be: %w", t.left, err)
}

// end puts as many tokens there as a sweep takes away: they ended long ago.
func (n *node) end(ctx context.Context) error {
	p, err := n.store.PrincipalByName(ctx, n.someone())
	if err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	at := now.Add(-2 * token.DefaultLifetime)
	var d authority.Decision
	for range batches * batch {
		s := token.NewSecret(token.Personal).Presented()
		d.Tokens = append(d.Tokens, authority.TokenChange{New: token.Token{
			ID: s.Public.ID(), Version: 1, Kind: token.Personal, Digest: s.Digest, Name: "bench", Owner: p.ID, Epochs: p.Epochs,
			Scopes: policy.UserScopes, Standing: token.Standard, Family: token.Family("fam_" + string(s.Public.ID())), Generation: 1,
			IssuedAt: at, IssuedBy: string(p.ID), BornAt: at, Renewal: token.Fixed, Lifetime: token.DefaultLifetime, FixedEnd: at.Add(token.DefaultLifetime),
		}})
	}
	e := audit.Event{ID: "evt_" + authority.SortableID(now), At: now, Action: audit.TokenIssue, Outcome: audit.Done, Actor: "system"}
	_, err = n.store.Commit(ctx, d, e)
	return err
}
