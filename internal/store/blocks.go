package store

import (
	"context"
	"net/netip"

	"gradegate/internal/block"
	"gradegate/internal/clock"
)

// blockRow is form v1 of a block by address. Members are never renamed or
// reordered.
type blockRow struct {
	ID      string `json:"id"`
	Version int64  `json:"version"`
	Prefix  string `json:"prefix"`
	Note    string `json:"note"`
	MadeBy  string `json:"made_by"`
	Since   int64  `json:"since"`
	Until   int64  `json:"until"`
	Lifted  int64  `json:"lifted"`
}

func (r *blockRow) spec() *table { return blocksTable }

func (r *blockRow) fields() []any {
	return []any{&r.ID, &r.Version, &r.Prefix, &r.Note, &r.MadeBy, &r.Since, &r.Until, &r.Lifted}
}

func blockToRow(b block.Block) *blockRow {
	r := &blockRow{
		ID: b.ID, Version: b.Version, Prefix: b.Prefix.String(), Note: b.Note, MadeBy: b.By, Since: clock.Micros(b.Since), Until: clock.Micros(b.Until),
	}
	if b.Lifted {
		r.Lifted = 1
	}
	return r
}

// block is the row's block. A network that cannot be read is none: what nobody
// can tell refuses nobody.
func (r *blockRow) block() block.Block {
	p, _ := netip.ParsePrefix(r.Prefix) // the zero one covers nothing
	return block.Block{
		ID: r.ID, Version: r.Version, Prefix: p, Note: r.Note, By: r.MadeBy, Since: clock.Micro(r.Since), Until: clock.Micro(r.Until), Lifted: r.Lifted != 0,
	}
}

// Blocks implements authority.Store.
func (t *Tokens) Blocks(ctx context.Context) ([]block.Block, error) {
	rows, err := many(ctx, t, blocksTable.selectAll+" ORDER BY id", blocksTable)
	if err != nil {
		return nil, err
	}
	out := make([]block.Block, len(rows))
	for i, r := range rows {
		out[i] = r.(*blockRow).block()
	}
	return out, nil
}
