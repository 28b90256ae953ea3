package trail

import (
	"cmp"
	"context"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"gradegate/internal/audit"
)

// refusals keeps the trail short under an attack: of the refusals of unknown
// secrets, the first ten per source, reason and minute are lines of their own,
// as long as the minute has room for them; the rest is told by lines with a
// count. Whatever comes from wherever, a minute is at most minuteLines lines,
// and every refusal is in one of them. Refusals of secrets that are the right
// ones are counted apart, by holder (holders.go): no flood hides them.
type refusals struct {
	trail *Trail

	mu  sync.Mutex
	now minute

	// Of minutes that are over; of one goroutine alone.
	due  map[source]tally
	owed owed
}

// minute is what was refused since it began.
type minute struct {
	since time.Time
	own   int              // lines of their own
	seen  map[source]count // up to maxSources
	crowd map[source]tally // the others, by network
	met   *addresses       // who is in the crowd; nil without one

	holders map[holder]count // up to maxHolders
	beyond  owed             // the other holders
}

// source is an IPv4 address or an IPv6 /64, or a network of them, with what was wrong.
type source struct {
	net    netip.Prefix
	reason string
}

// count is the refusals of one source.
type count struct {
	all int64
	own int8 // that have a line
}

// tally is what a line with a count stands for.
type tally struct{ refusals, addresses int64 }

func (t tally) and(u tally) tally { return tally{t.refusals + u.refusals, t.addresses + u.addresses} }

const (
	ownLines = 10 // of one source
	// A minute has so many lines: 0.9 MB with what the journal adds, and 1.4 GB for
	// a whole day of an attack from everywhere. A client that makes its lines as
	// long as it can makes it three times that.
	ownOfAll    = 2048
	toldOfAll   = 512 // lines with a count
	minuteLines = ownOfAll + toldOfAll
	// maxSources bounds the memory of a minute, to about 10 MB.
	maxSources = 1 << 16
)

// others is the source of those that do not even share a network.
var others = source{reason: "many_sources"}

func newRefusals(t *Trail) *refusals {
	return &refusals{trail: t, now: newMinute(t.Now()), due: map[source]tally{}, owed: owed{}}
}

func newMinute(at time.Time) minute {
	return minute{since: at, seen: map[source]count{}, crowd: map[source]tally{}, holders: map[holder]count{}, beyond: owed{}}
}

// Refused records a refusal: of a credential that nobody here issued or that was
// not proven, or of something that its holder may not do. It costs nothing but
// memory once its source or its holder has had its lines. One that could not be
// written is counted, and told when the disk is back.
func (t *Trail) Refused(ctx context.Context, e audit.Event) error {
	r := t.refusals
	h, known := holderOf(&e)
	if known {
		if !r.ownOf(h, ownLines) {
			return nil
		}
	} else if !r.own(sourceOf(&e)) {
		return nil
	}
	err := t.Record(ctx, e, false)
	switch {
	case err == nil:
	case known:
		r.ownOf(h, 0)
	default:
		r.count(sourceOf(&e), 0)
	}
	return err
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

// own counts one more refusal of a source and says whether it is a line of its
// own.
func (r *refusals) own(k source) bool { return r.count(k, ownLines) }

// count does so for a source that may have so many lines.
func (r *refusals) count(k source, lines int8) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &r.now
	n, known := m.seen[k]
	if !known && len(m.seen) >= maxSources {
		m.join(k)
		return false
	}
	n.all++
	own := n.own < lines && m.own < ownOfAll
	if own {
		n.own++
		m.own++
	}
	m.seen[k] = n
	return own
}

// join counts a refusal of a source that has no room of its own.
func (m *minute) join(k source) {
	if m.met == nil {
		m.met = newAddresses()
	}
	t := tally{refusals: 1}
	if m.met.add(k) {
		t.addresses = 1
	}
	k = k.within(outermost)
	if _, known := m.crowd[k]; !known && len(m.crowd) >= toldOfAll {
		k = others
	}
	m.crowd[k] = m.crowd[k].and(t)
}

// tiers are the networks that share a line where there are too many sources;
// the same for all, each wider than the one before.
var tiers = [...]struct{ v4, v6 int }{{24, 56}, {16, 48}, {8, 32}, {0, 0}}

const outermost = 2 // the widest tier that still says something

// within is the network of a tier in which a source lies.
func (k source) within(tier int) source {
	if !k.net.IsValid() {
		return k
	}
	bits := tiers[tier].v4
	if k.net.Addr().Is6() {
		bits = tiers[tier].v6
	}
	if bits < k.net.Bits() {
		k.net, _ = k.net.Addr().Prefix(bits) // bits fit the address
	}
	return k
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
	if !now && at.Sub(r.now.since) < time.Minute {
		r.mu.Unlock()
		return
	}
	m := r.now
	r.now = newMinute(at)
	r.mu.Unlock()
	for k, n := range m.seen {
		if more := n.all - int64(n.own); more > 0 {
			r.due[k] = r.due[k].and(tally{more, 1})
		}
	}
	for k, t := range m.crowd {
		r.due[k] = r.due[k].and(t)
	}
	r.due = folded(r.due)
	r.owe(&m)
}

// folded makes few lines of many: the loudest sources keep theirs, and the
// others share one with their network.
func folded(all map[source]tally) map[source]tally {
	if len(all) <= toldOfAll {
		return all
	}
	loudest := slices.SortedFunc(maps.Keys(all), func(a, b source) int { return cmp.Compare(all[b].refusals, all[a].refusals) })
	out := map[source]tally{}
	for _, k := range loudest[:toldOfAll/2] {
		out[k] = all[k]
	}
	for k, t := range shared(all, loudest[toldOfAll/2:]) {
		out[k] = out[k].and(t)
	}
	return out
}

// shared gives half of the lines to the networks of some sources: the smallest
// ones for which that is enough.
func shared(all map[source]tally, keys []source) map[source]tally {
	for tier := range tiers {
		out := map[source]tally{}
		for _, k := range keys {
			wide := k.within(tier)
			out[wide] = out[wide].and(all[k])
		}
		if len(out) <= toldOfAll/2 {
			return out
		}
	}
	var sum tally
	for _, k := range keys {
		sum = sum.and(all[k])
	}
	return map[source]tally{others: sum}
}

// write writes the counts that are due. Those that cannot be written are kept
// for the next time; what a disk that hung writes after all is then told twice,
// which is better than never.
func (r *refusals) write() {
	if len(r.due)+len(r.owed) == 0 {
		return
	}
	var lines [][]byte
	for k, t := range r.due {
		lines = append(lines, r.line(k, t))
	}
	for h, n := range r.owed {
		lines = append(lines, r.lineOf(h, n))
	}
	ctx := r.trail.within()
	if err := r.trail.both(Use, len(lines), func(s *sink) error { return s.write(ctx, Use, lines, r.trail.Strict) }); err != nil {
		return // health tells
	}
	r.due, r.owed = map[source]tally{}, owed{}
}

// line tells how many refusals it stands for, and, if they are of several
// addresses, of how many: an IPv6 /64 is one, and each counts once a minute and
// for each reason.
func (r *refusals) line(k source, t tally) []byte {
	e := audit.Event{ID: r.trail.NewID(), At: r.trail.Now(), Action: audit.Aggregate, Outcome: audit.Deny, Reason: k.reason, Count: t.refusals}
	if k.net.IsValid() {
		e.Addr = k.net.String()
	}
	if k == others || k.net.IsValid() && k.within(0) == k {
		e.Detail = map[string]string{"addresses": strconv.FormatInt(t.addresses, 10)}
	}
	return scrubbed(&e).Encode()
}

// addresses counts how many different ones it was given, in a fixed megabyte.
// It may take two for the same: of a million it misses six in a hundred.
type addresses struct {
	seed maphash.Seed
	bits [1 << 17]uint64
}

func newAddresses() *addresses { return &addresses{seed: maphash.MakeSeed()} }

// add says whether the source is new.
func (a *addresses) add(k source) bool {
	h := maphash.Comparable(a.seed, k)
	word, bit := &a.bits[h>>6%uint64(len(a.bits))], uint64(1)<<(h&63)
	isNew := *word&bit == 0
	*word |= bit
	return isNew
}
