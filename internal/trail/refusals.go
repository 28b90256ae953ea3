package trail

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"gradegate/internal/audit"
)

// refusals keeps the trail short under an attack: of the refusals of unknown
// secrets, the first ten per source, reason and minute are lines of their own;
// the rest is one line with a count.
type refusals struct {
	trail *Trail
	mu    sync.Mutex
	since time.Time
	seen  map[source]int64
	more  map[source]int64
}

type source struct {
	net    netip.Prefix
	reason string
}

const (
	ownLines  = 10
	maxSource = 1 << 16 // sources in a minute; the others share one
)

func newRefusals(t *Trail) *refusals {
	return &refusals{trail: t, since: t.Now(), seen: map[source]int64{}, more: map[source]int64{}}
}

// Refused records the refusal of a credential that nobody here issued, or that
// was not proven. It never holds up the answer by more than a line's time.
func (t *Trail) Refused(ctx context.Context, e audit.Event) error {
	if !t.refusals.own(ctx, e) {
		return nil
	}
	return t.Record(ctx, e, false)
}

func (r *refusals) own(ctx context.Context, e audit.Event) bool {
	k := source{reason: e.Reason}
	if a, err := netip.ParseAddr(e.Addr); err == nil {
		a = a.Unmap().WithZone("")
		bits := 32
		if a.Is6() {
			bits = 64
		}
		k.net, _ = a.Prefix(bits) // bits fit the address
	}
	if r.trail.Now().Sub(r.minute()) >= time.Minute {
		r.flush(ctx, true)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.seen[k]; !known && len(r.seen) >= maxSource {
		k = source{reason: "many_sources"}
	}
	r.seen[k]++
	if r.seen[k] <= ownLines {
		return true
	}
	r.more[k]++
	return false
}

func (r *refusals) minute() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since
}

// flush writes the counts when the minute is over, or now. Lines that cannot
// be written are kept for the next time.
func (r *refusals) flush(ctx context.Context, now bool) {
	r.mu.Lock()
	over := r.trail.Now().Sub(r.since) >= time.Minute
	if !over && !now {
		r.mu.Unlock()
		return
	}
	more := r.more
	r.more = map[source]int64{}
	if over {
		r.since, r.seen = r.trail.Now(), map[source]int64{}
	}
	r.mu.Unlock()
	for k, n := range more {
		e := audit.Event{ID: r.trail.NewID(), At: r.trail.Now(), Action: audit.Aggregate, Outcome: audit.Deny, Reason: k.reason, Count: n}
		if k.net.IsValid() {
			e.Addr = k.net.String()
		}
		if err := r.trail.Record(ctx, e, false); err != nil {
			r.mu.Lock()
			r.more[k] += n
			r.mu.Unlock()
		}
	}
}
