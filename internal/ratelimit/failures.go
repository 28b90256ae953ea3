package ratelimit

import (
	"net/netip"
	"time"
)

// Failures is the budget of failed authentications by address, in tiers: an
// attacker who owns a network gains little by using all of its addresses.
// Only failures are counted and only failures are refused: a valid token
// behind the same address is never held up (R8.2).
type Failures struct {
	tiers4, tiers6 []tier
}

type tier struct {
	bits    int
	buckets *Buckets[netip.Prefix]
}

// perMinute is what one address may fail; wider networks get a multiple.
const perMinute = 100

// NewFailures makes the budget, remembering at most the given number of
// networks in each tier.
func NewFailures(keys int) *Failures {
	make := func(bits, times int) tier {
		return tier{bits, NewBuckets[netip.Prefix](Limit{Events: perMinute * times, Per: time.Minute}, keys)}
	}
	return &Failures{
		tiers4: []tier{make(32, 1), make(24, 4)},
		tiers6: []tier{make(128, 1), make(64, 2), make(56, 4), make(48, 8)},
	}
}

func (f *Failures) tiers(a netip.Addr) (netip.Addr, []tier) {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a, f.tiers4
	}
	return a, f.tiers6
}

// Fail counts a failure of the address and says whether it was within the
// budget of every network that the address is in. An unknown address shares
// one budget with all unknown ones.
func (f *Failures) Fail(a netip.Addr, now time.Time) Decision {
	a, tiers := f.tiers(a)
	worst := Decision{Allowed: true, Remaining: perMinute}
	for _, t := range tiers {
		p, _ := a.Prefix(t.bits) // the zero prefix for an unknown address
		d := t.buckets.Take(p, now)
		if !d.Allowed && (worst.Allowed || d.RetryAfter > worst.RetryAfter) || worst.Allowed && d.Remaining < worst.Remaining {
			worst = d
		}
	}
	return worst
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
