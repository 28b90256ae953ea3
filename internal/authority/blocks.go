package authority

import (
	"context"
	"net/netip"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/block"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
)

// NewBlock asks for a block by address.
type NewBlock struct {
	Prefix netip.Prefix
	For    time.Duration // zero: a day
	Note   string
	// Force accepts a network in which the one who asks is.
	Force bool
}

const defaultBlock = 24 * time.Hour

var (
	errBlockSpan = fault.New(fault.Invalid, "block_span", "A block lasts a minute to %d days.", block.MaxSpan/(24*time.Hour)).WithFix("Say for example 7d.")
	errBlocksYou = fault.New(fault.Conflict, "blocks_you", "Your own address lies in that network: a mistyped token of yours would be answered like an attack.").
			WithFix("Take a narrower network (gradegate whoami shows your address), or say that you mean it: --force")
	errBlocksFull = fault.New(fault.Conflict, "too_many_blocks", "There are %d blocks, and no place for another.", block.Most).
			WithFix("Block wider networks, and remove blocks: gradegate block list")
)

// AddBlock refuses the failed attempts of a network until the block ends. A
// block of the same network is replaced.
func (a *Authority) AddBlock(ctx context.Context, s *policy.Subject, n NewBlock) (block.Block, error) {
	if err := policy.Decide(s, policy.BlockManage, policy.Resource{}); err != nil {
		return block.Block{}, err
	}
	if n.For == 0 {
		n.For = defaultBlock
	}
	if n.For < time.Minute || n.For > block.MaxSpan {
		return block.Block{}, errBlockSpan
	}
	if !n.Force && !s.Local && n.Prefix.Contains(s.Addr.Unmap().WithZone("")) {
		return block.Block{}, errBlocksYou
	}
	return retry(func() (block.Block, error) {
		now := a.now()
		b := block.Block{Prefix: n.Prefix, Note: audit.Clean(n.Note, noteMost), By: s.Actor(), Since: now, Until: now.Add(n.For)}
		e := a.event(s, audit.BlockAdd, now)
		e.Target, e.Detail = block.Text(b.Prefix), map[string]string{"until": b.Until.Format(time.RFC3339)}
		if b.Note != "" {
			e.Detail["note"] = b.Note
		}
		all, err := a.store.Blocks(ctx)
		if err != nil {
			return block.Block{}, err
		}
		return a.putBlock(ctx, s, all, b, e)
	})
}

const noteMost = 200

// RemoveBlock ends the block of a network, and on every node the automatic ones
// that cover it or lie in it. A wider block that somebody made stands, and is
// named.
func (a *Authority) RemoveBlock(ctx context.Context, s *policy.Subject, p netip.Prefix) (block.Block, error) {
	if err := policy.Decide(s, policy.BlockManage, policy.Resource{}); err != nil {
		return block.Block{}, err
	}
	return retry(func() (block.Block, error) {
		now := a.now()
		all, err := a.store.Blocks(ctx)
		if err != nil {
			return block.Block{}, err
		}
		b := block.Block{Prefix: p, Since: now}
		for i := range all {
			switch x := &all[i]; {
			case x.Over(now):
			case x.Prefix == p:
				b = *x
			case x.Prefix.Bits() < p.Bits() && x.Prefix.Contains(p.Addr()):
				return block.Block{}, fault.New(fault.Conflict, "block_wider", "It lies in %s, which somebody blocked as a whole.", block.Text(x.Prefix)).
					With("block", block.Text(x.Prefix)).WithFix("Remove that one: gradegate block remove %s", block.Text(x.Prefix))
			}
		}
		b.Until, b.Lifted, b.By = now, true, s.Actor()
		e := a.event(s, audit.BlockRemove, now)
		e.Target = block.Text(p)
		return a.putBlock(ctx, s, all, b, e)
	})
}

// putBlock gives a block its place and writes it.
func (a *Authority) putBlock(ctx context.Context, s *policy.Subject, all []block.Block, b block.Block, e audit.Event) (block.Block, error) {
	old, id := block.Place(all, b.Prefix, e.At)
	if id == "" {
		return block.Block{}, errBlocksFull
	}
	b.ID, b.Version = id, 1
	if old != nil {
		b.Version = old.Version + 1
	}
	_, err := a.commit(ctx, s, Decision{Blocks: []BlockChange{{Old: old, New: b}}}, e)
	return b, err
}
