package ratelimit

import (
	"net/netip"
	"time"
)

// Failures is the budget of failed authentications by address, in tiers: an
// attacker who owns a network gains little by using all of its addresses.
// Only failures are counted and only failures are refused: a valid token
// behind the same address is never held up, since callers authenticate first
// and come here afterwards (R8.2). Failures is safe for concurrent use.
type Failures struct {
	tiers4, tiers6 []tier
}

type tier struct {
	bits    int
	buckets *Buckets[netip.Prefix]
}

// PerMinute is what one address may fail; wider networks get a multiple: a /64
// is one household or host, a /56 or /48 one customer of a provider (RFC 6177),
// and a /24 the smallest network of version 4 that is routed.
const PerMinute = 100

// NewFailures makes the budget, remembering at most the given number of
// networks in each tier.
func NewFailures(keys int) *Failures {
	of := func(bits, times int) tier {
		return tier{bits, NewBuckets[netip.Prefix](Limit{Events: PerMinute * times, Per: time.Minute}, keys)}
	}
	return &Failures{
		tiers4: []tier{of(32, 1), of(24, 4)},
		tiers6: []tier{of(128, 1), of(64, 2), of(56, 4), of(48, 8)},
	}
}

// tiers gives the address as it is counted, and its tiers, the narrowest first.
// The same host has many ways to be written: mapped into version 6, with a zone.
func (f *Failures) tiers(a netip.Addr) (netip.Addr, []tier) {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a, f.tiers4
	}
	return a, f.tiers6
}

// Fail counts a failure of the address and says whether it was within the
// budget of every network that the address is in. A failure that a narrow tier
// refuses costs the wider ones nothing: one noisy host does not use up the
// budget of its neighbours. An unknown address shares one budget with all
// unknown ones. spent is the narrowest network whose budget is spent, of a
// failure that is refused.
func (f *Failures) Fail(a netip.Addr, now time.Time) (worst Decision, spent netip.Prefix) {
	a, tiers := f.tiers(a)
	worst = Decision{Allowed: true, Remaining: PerMinute}
	for _, t := range tiers {
		p, _ := a.Prefix(t.bits) // the zero prefix for an unknown address
		ask := t.buckets.Take
		if !worst.Allowed {
			ask = t.buckets.Peek
		}
		d := ask(p, now)
		if !d.Allowed && worst.Allowed {
			spent = p
		}
		if d.worseThan(worst) {
			worst = d
		}
	}
	return worst, spent
}

// worseThan orders by how long the caller must wait, then by what is left.
func (d Decision) worseThan(e Decision) bool {
	if d.Allowed != e.Allowed {
		return e.Allowed
	}
	return d.RetryAfter > e.RetryAfter || d.Allowed && d.Remaining < e.Remaining
}

// Len is the number of networks remembered.
func (f *Failures) Len() (n int) {
	for _, list := range [][]tier{f.tiers4, f.tiers6} {
		for _, t := range list {
			n += t.buckets.Len()
		}
	}
	return n
}
