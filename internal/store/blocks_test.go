package store

import (
	"net/netip"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/block"
	"gradegate/internal/store/storetest"
)

func (r *rig) block(b block.Block, old *block.Block) error {
	return r.commit(authority.Decision{Blocks: []authority.BlockChange{{Old: old, New: b}}}, audit.BlockAdd)
}

var noisy = block.Block{
	ID: "blk_0000", Version: 1, Prefix: netip.MustParsePrefix("203.0.113.0/24"), Since: storetest.T0, Until: storetest.T0.Add(time.Hour),
}

// R8.5: the ledger alone brings a block back.
func TestBlocksAreRebuilt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	r.must(r.block(noisy, nil))
	r.close()
	r.removeFiles()
	r.open()
	got, err := r.s.Blocks(t.Context())
	if err != nil || len(got) != 1 || !got[0].Until.Equal(noisy.Until) || got[0].Prefix != noisy.Prefix {
		t.Errorf("%+v, %v", got, err)
	}
}

// R8.5: a block that one node makes is in force on another, and one that it
// lifts is over there.
func TestNodesFollowBlocks(t *testing.T) {
	t.Parallel()
	a := newPostgresRig(t)
	b := a.second()
	list, seen := block.New(nil), make(chan block.Block, 10)
	a.open()
	b.open()
	b.s.Follow(func(c authn.Change) {
		for _, x := range c.Blocks {
			list.Apply(x)
			seen <- x
		}
	})
	until := func(version int64) {
		t.Helper()
		for {
			select {
			case x := <-seen:
				if x.Version == version {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the other node was not told")
			}
		}
	}
	at := netip.MustParseAddr("203.0.113.9")
	a.must(a.block(noisy, nil))
	until(1)
	if list.Failed(at, storetest.T0).IsZero() {
		t.Error("it is not in force there")
	}
	lifted := noisy
	lifted.Version, lifted.Until, lifted.Lifted = 2, storetest.T0, true
	a.must(a.block(lifted, &noisy))
	until(2)
	if !list.Failed(at, storetest.T0).IsZero() {
		t.Error("it is not over there")
	}
}
