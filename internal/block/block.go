// Package block is the networks whose failed attempts are refused: because an
// administrator says so, or because they went on failing after their budget of
// failures was spent. A block never touches whoever holds a valid credential:
// callers authenticate first, and ask here about failures alone (R8.5).
package block

import (
	"net/netip"
	"strings"
	"time"

	"gradegate/internal/fault"
)

// Block is a network that an administrator blocked, as the store keeps it. It
// stands in one of Most places, which are used again: the list cannot grow.
type Block struct {
	ID      string // of its place
	Version int64
	Prefix  netip.Prefix
	Note    string
	By      string // who made it, as in the audit trail
	Since   time.Time
	Until   time.Time
	// Lifted is set if somebody ended it, at Until. It then also ends every
	// automatic block of the network that began before, wherever that stands.
	Lifted bool
}

const (
	// Most is how many blocks there are place for.
	Most = 1024
	// MaxSpan is the longest that one may last.
	MaxSpan = 365 * 24 * time.Hour
	// settled is how long a place is kept after the end of its block, so that
	// every node has seen it end.
	settled = time.Minute
)

// Over reports whether the block has ended.
func (b *Block) Over(now time.Time) bool { return !now.Before(b.Until) }

// Place finds where a block of the network is to stand: where one of the same
// network stands or stood, else where one has ended. nil and an id mean a place
// that was never used; no id means that there is none left.
func Place(all []Block, p netip.Prefix, now time.Time) (taken *Block, id string) {
	var free *Block
	for i := range all {
		b := &all[i]
		if b.Prefix == p {
			return b, b.ID
		}
		if b.Over(now.Add(-settled)) && (free == nil || b.Until.Before(free.Until)) {
			free = b
		}
	}
	switch {
	case len(all) < Most:
		return nil, placeID(len(all))
	case free != nil:
		return free, free.ID
	}
	return nil, ""
}

func placeID(n int) string {
	const digits = "0123456789"
	return "blk_" + string([]byte{digits[n/1000%10], digits[n/100%10], digits[n/10%10], digits[n%10]})
}

// Parse reads an address or a network into its one form: unmapped, without
// zone, and without bits behind the mask.
func Parse(text string) (netip.Prefix, error) {
	bad := fault.New(fault.Invalid, "address_invalid", "That is neither an address nor a network.").WithFix("Write it as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48.")
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, bad
		}
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, bad
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, bad // version 4 and something more
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// Text is the network as people write it: a single address without its length.
func Text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// span is how long an automatic block lasts, the nth of its network in a row.
func span(n int) time.Duration {
	const first, most = 15 * time.Minute, 24 * time.Hour
	return min(most, first<<min(n-1, 10))
}
