package httpapi

import (
	"context"
	"net/netip"

	"gradegate/api"
	"gradegate/internal/authority"
	"gradegate/internal/block"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
)

type (
	addBlockIn struct {
		Body api.AddBlock
	}
	removeBlockIn struct {
		Prefix string `path:"prefix" maxLength:"100" doc:"An address or a network, such as 192.0.2.0/24"`
	}
)

func (a *API) listBlocks(ctx context.Context, _ *policy.Subject, _ *None) (api.Blocks, error) {
	now := a.Now()
	out := api.Blocks{Items: []api.Block{}, Offenders: []api.Offender{}}
	for _, b := range a.Blocks.InForce(now) {
		out.Items = append(out.Items, a.viewBlock(ctx, b))
	}
	for _, o := range a.Blocks.Offenders(now) {
		out.Offenders = append(out.Offenders, api.Offender{Address: block.Text(o.Prefix), Failures: o.Failures, Since: o.Since, Last: o.Last})
	}
	return out, nil
}

func (a *API) addBlock(ctx context.Context, s *policy.Subject, in *addBlockIn) (api.Block, error) {
	p, err := block.Parse(in.Body.Address)
	if err != nil {
		return api.Block{}, err
	}
	span, err := duration(in.Body.ExpiresIn)
	if err != nil {
		return api.Block{}, err
	}
	b, err := a.Authority.AddBlock(ctx, s, authority.NewBlock{Prefix: p, For: span, Note: in.Body.Note, Force: in.Body.Force})
	if err != nil {
		return api.Block{}, err
	}
	return a.viewBlock(ctx, block.Shown{Prefix: b.Prefix, By: b.By, Note: b.Note, Since: b.Since, Until: b.Until}), nil
}

func (a *API) removeBlock(ctx context.Context, s *policy.Subject, in *removeBlockIn) (api.Unblocked, error) {
	p, err := block.Parse(in.Prefix)
	if err != nil {
		return api.Unblocked{}, err
	}
	before := a.Blocks.InForce(a.Now())
	if _, err := a.Authority.RemoveBlock(ctx, s, p); err != nil {
		return api.Unblocked{}, err
	}
	out := api.Unblocked{Address: block.Text(p), Removed: []api.Block{}}
	for _, b := range before {
		if liftedWith(b, p) {
			out.Removed = append(out.Removed, a.viewBlock(ctx, b))
		}
	}
	return out, nil
}

// liftedWith reports whether a block ends when that of a network is removed.
func liftedWith(b block.Shown, p netip.Prefix) bool {
	return b.Prefix == p || b.Automatic && b.Prefix.Overlaps(p)
}

func (a *API) viewBlock(ctx context.Context, b block.Shown) api.Block {
	return api.Block{
		Address: block.Text(b.Prefix), Automatic: b.Automatic, Times: b.Times, Note: b.Note, CreatedBy: b.By,
		Creator: a.Name(ctx, principal.ID(b.By)),
		Since:   b.Since, Until: b.Until, Failures: b.Failures, LastFailure: instant(b.Last),
	}
}
