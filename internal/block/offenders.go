package block

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Offender is a source of failures: an IPv4 address, or an IPv6 /64.
type Offender struct {
	Prefix      netip.Prefix
	Failures    int64 // at least so many, since then
	Since, Last time.Time
}

const (
	mostOffenders = 128
	// silent is how long a source is remembered after its last failure.
	silent = 24 * time.Hour
)

// offenders finds the loudest of any number of sources with so many counters
// (Metwally et al., Space-Saving): a new source takes the counter of the one
// that failed least, and what was counted before it is not its own.
type offenders struct {
	at       map[netip.Prefix]int
	counters []counter
}

type counter struct {
	of          netip.Prefix
	all, before int64
	since, last time.Time
}

func (o *offenders) count(a netip.Addr, now time.Time) {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	if !a.IsValid() {
		return // unknown: nobody could block it
	}
	p, _ := a.Prefix(bits)
	i, known := o.at[p]
	if !known {
		i = o.place(now)
		c := &o.counters[i]
		delete(o.at, c.of)
		*c = counter{of: p, all: c.all, before: c.all, since: now}
		o.at[p] = i
	}
	o.counters[i].all++
	o.counters[i].last = now
}

// place is the counter that a new source takes: a fresh one, one whose source
// has long been silent, or that of the source that failed least.
func (o *offenders) place(now time.Time) (least int) {
	if o.at == nil {
		o.at = map[netip.Prefix]int{}
	}
	if n := len(o.counters); n < mostOffenders {
		o.counters = append(o.counters, counter{})
		return n
	}
	long := now.Add(-silent)
	for i := range o.counters {
		c := &o.counters[i]
		if c.last.Before(long) {
			c.all = 0
			return i
		}
		if c.all < o.counters[least].all {
			least = i
		}
	}
	return least
}

func (o *offenders) top(now time.Time) []Offender {
	out := []Offender{}
	for _, c := range o.counters {
		if now.Sub(c.last) < silent {
			out = append(out, Offender{Prefix: c.of, Failures: c.all - c.before, Since: c.since, Last: c.last})
		}
	}
	slices.SortFunc(out, func(a, b Offender) int {
		return cmp.Or(cmp.Compare(b.Failures, a.Failures), a.Prefix.Addr().Compare(b.Prefix.Addr()))
	})
	return out
}
