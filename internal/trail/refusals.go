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
	since time.Time        // when the minute began
	seen  map[source]int64 // in this minute

	due map[source]int64 // of minutes that are over; of one goroutine alone
}

// source is an IPv4 address or an IPv6 /64, with what was wrong.
type source struct {
	net    netip.Prefix
	reason string
}

const (
	ownLines  = 10
	maxSource = 1 << 16 // sources in a minute; the others share one
	// manyPerBatch bounds the lines that are written at once.
	manyPerBatch = 512
)

// others is the source of those that have no room.
var others = source{reason: "many_sources"}

func newRefusals(t *Trail) *refusals {
	return &refusals{trail: t, since: t.Now(), seen: map[source]int64{}, due: map[source]int64{}}
}

// Refused records the refusal of a credential that nobody here issued, or that
// was not proven. It costs nothing but memory once its source has had its lines.
func (t *Trail) Refused(ctx context.Context, e audit.Event) error {
	if !t.refusals.own(sourceOf(&e)) {
		return nil
	}
	return t.Record(ctx, e, false)
}

func sourceOf(e *audit.Event) source {
	k := source{reason: e.Reason}
	if a, err := netip.ParseAddr(e.Addr); err == nil {
		a = a.Unmap().WithZone("")
		bits := 32
		if a.Is6() {
			bits = 64
		}
		k.net, _ = a.Prefix(bits) // bits fit the address
	}
	return k
}

// own says whether one more refusal of a source is a line of its own.
func (r *refusals) own(k source) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, known := r.seen[k]
	if !known && len(r.seen) >= maxSource {
		k = others
		n = r.seen[k]
	}
	r.seen[k] = n + 1
	return n < ownLines
}

// run writes the counts of each minute that is over.
func (r *refusals) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.turn(false)
			r.write()
		}
	}
}

// turn begins a new minute, if this one is over or is to be.
func (r *refusals) turn(now bool) {
	at := r.trail.Now()
	r.mu.Lock()
	if !now && at.Sub(r.since) < time.Minute {
		r.mu.Unlock()
		return
	}
	seen := r.seen
	r.since, r.seen = at, map[source]int64{}
	r.mu.Unlock()
	for k, n := range seen {
		if n <= ownLines {
			continue
		}
		if _, known := r.due[k]; !known && len(r.due) >= maxSource {
			k = others
		}
		r.due[k] += n - ownLines
	}
}

// write writes the counts that are due. Those that cannot be written are kept
// for the next time; what a disk that hung writes after all is then told twice,
// which is better than never.
func (r *refusals) write() {
	for len(r.due) > 0 {
		var keys []source
		var lines [][]byte
		for k, n := range r.due {
			keys, lines = append(keys, k), append(lines, r.line(k, n))
			if len(keys) == manyPerBatch {
				break
			}
		}
		ctx := r.trail.within()
		err := r.trail.both(Use, len(lines), func(s *sink) error { return s.write(ctx, Use, lines, r.trail.Strict) })
		if err != nil {
			return // health tells
		}
		for _, k := range keys {
			delete(r.due, k)
		}
	}
}

func (r *refusals) line(k source, n int64) []byte {
	e := audit.Event{ID: r.trail.NewID(), At: r.trail.Now(), Action: audit.Aggregate, Outcome: audit.Deny, Reason: k.reason, Count: n}
	if k.net.IsValid() {
		e.Addr = k.net.String()
	}
	return scrubbed(&e).Encode()
}
