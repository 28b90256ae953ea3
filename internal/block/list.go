package block

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gradegate/internal/ratelimit"
)

// List is all blocks in memory: those of the store, which it follows, and the
// automatic ones, which are this node's own. Automatic ones are not stored: a
// stranger must not be able to make us write to the ledger. It is safe for
// concurrent use, and bounded whatever comes.
type List struct {
	spared []netip.Prefix

	mu       sync.Mutex
	made     map[string]Block // by place
	standing map[netip.Prefix]*standing
	grown    map[netip.Prefix]*grown
	bits     []int // lengths of the networks that anything is known of
	insists  *ratelimit.Buckets[netip.Prefix]
	loudest  offenders
}

// standing is a block of the store that is in force, or was.
type standing struct {
	Block
	tally
}

// grown is an automatic block, in force or remembered.
type grown struct {
	since, until time.Time
	times        int // in a row
	tally
}

// tally is the failures that a block refused.
type tally struct {
	failures int64
	last     time.Time
}

const (
	mostGrown = 4096
	// remembered is for how long after its end an automatic block makes the next
	// one longer.
	remembered = 24 * time.Hour
)

// insistence is how often a network may fail on after its budget of failures
// is spent, before it is blocked.
var insistence = ratelimit.Limit{Events: 100, Per: 10 * time.Minute}

// always are networks that are never blocked automatically: whoever is on this
// machine has other ways to be a nuisance, and no other way in.
var always = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// New makes an empty list. The spared networks, such as those of trusted
// proxies, are never blocked automatically, and nor is a network that holds
// any of them.
func New(spared []netip.Prefix) *List {
	l := &List{
		spared: append(slices.Clone(always), spared...), made: map[string]Block{}, standing: map[netip.Prefix]*standing{},
		grown: map[netip.Prefix]*grown{}, insists: ratelimit.NewBuckets[netip.Prefix](insistence, 1<<14),
	}
	l.measure()
	return l
}

// Apply takes over a block of the store, if it is newer than what is known.
func (l *List) Apply(b Block) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, known := l.made[b.ID]
	if known && old.Version >= b.Version {
		return
	}
	if was := l.standing[old.Prefix]; was != nil && was.ID == b.ID && old.Prefix != b.Prefix {
		delete(l.standing, old.Prefix)
	}
	l.made[b.ID] = b
	s := &standing{Block: b}
	if was := l.standing[b.Prefix]; was != nil && !b.Lifted {
		s.tally = was.tally
	}
	l.standing[b.Prefix] = s
	if b.Lifted {
		maps.DeleteFunc(l.grown, func(p netip.Prefix, g *grown) bool { return p.Overlaps(b.Prefix) && !g.since.After(b.Until) })
	}
	l.measure()
}

// measure finds the lengths of networks to look for: those of the tiers in
// which automatic blocks grow, and those of the store.
func (l *List) measure() {
	l.bits = []int{32, 48, 56, 64, 128}
	for p := range l.standing {
		l.bits = append(l.bits, p.Bits())
	}
	slices.Sort(l.bits)
	l.bits = slices.Compact(l.bits)
}

// Failed counts a failure of the address and says until when it is blocked;
// the zero time if it is not. An unknown address never is.
func (l *List) Failed(a netip.Addr, now time.Time) (until time.Time) {
	a = a.Unmap().WithZone("")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loudest.count(a, now)
	for _, bits := range l.bits {
		if bits > a.BitLen() {
			break // what follows is of the other family
		}
		p, _ := a.Prefix(bits)
		if s := l.standing[p]; s != nil && now.Before(s.Until) {
			s.failures, s.last, until = s.failures+1, now, later(until, s.Until)
		}
		if g := l.grown[p]; g != nil && now.Before(g.until) {
			g.failures, g.last, until = g.failures+1, now, later(until, g.until)
		}
	}
	return until
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Insists counts that a network fails although its budget of failures is
// spent, and blocks it if it does so again and again. It gives the block that
// begins with this, if one does.
func (l *List) Insists(p netip.Prefix, now time.Time) (Shown, bool) {
	if !l.blockable(p) || l.insists.Take(p, now).Allowed {
		return Shown{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.grown[p]
	if g != nil && now.Before(g.until) {
		return Shown{}, false // somebody else was faster
	}
	if g == nil {
		l.makeRoom(now)
		g = new(grown)
		l.grown[p] = g
	}
	if !now.Before(g.until.Add(remembered)) {
		g.times = 0
	}
	g.times++
	g.since, g.until, g.tally = now, now.Add(span(g.times)), tally{}
	return g.shown(p), true
}

// blockable reports whether a network may be blocked automatically: an
// address, or a network of version 6 that belongs to one customer. A network of
// version 4 is many customers'.
func (l *List) blockable(p netip.Prefix) bool {
	if !p.IsValid() || p.Addr().Is4() && !p.IsSingleIP() {
		return false
	}
	return !slices.ContainsFunc(l.spared, p.Overlaps)
}

// makeRoom drops what has least to say, if there are as many automatic blocks
// as there may be. It looks at all of them: to get here costs whoever it is
// hundreds of failures.
func (l *List) makeRoom(now time.Time) {
	if len(l.grown) < mostGrown {
		return
	}
	maps.DeleteFunc(l.grown, func(_ netip.Prefix, g *grown) bool { return !now.Before(g.until.Add(remembered)) })
	for len(l.grown) >= mostGrown {
		var first netip.Prefix
		var ends time.Time
		for p, g := range l.grown {
			if !first.IsValid() || g.until.Before(ends) {
				first, ends = p, g.until
			}
		}
		delete(l.grown, first)
	}
}

// Shown is a block that is in force.
type Shown struct {
	Prefix       netip.Prefix
	Automatic    bool
	Times        int // of an automatic one: which in a row
	By, Note     string
	Since, Until time.Time
	Failures     int64 // that it refused, on this node
	Last         time.Time
}

func (g *grown) shown(p netip.Prefix) Shown {
	return Shown{Prefix: p, Automatic: true, Times: g.times, By: "system", Since: g.since, Until: g.until, Failures: g.failures, Last: g.last}
}

func (s *standing) shown() Shown {
	return Shown{Prefix: s.Prefix, By: s.By, Note: s.Note, Since: s.Since, Until: s.Until, Failures: s.failures, Last: s.last}
}

// InForce lists the blocks that are in force, the newest first.
func (l *List) InForce(now time.Time) []Shown {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []Shown{}
	for _, s := range l.standing {
		if now.Before(s.Until) {
			out = append(out, s.shown())
		}
	}
	for p, g := range l.grown {
		if now.Before(g.until) {
			out = append(out, g.shown(p))
		}
	}
	slices.SortFunc(out, func(a, b Shown) int {
		return cmp.Or(b.Since.Compare(a.Since), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return out
}

// Count is how many blocks are in force.
func (l *List) Count(now time.Time) (made, automatic int) {
	for _, s := range l.InForce(now) {
		if s.Automatic {
			automatic++
		} else {
			made++
		}
	}
	return made, automatic
}

// Offenders lists the sources that fail most, the loudest first.
func (l *List) Offenders(now time.Time) []Offender {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loudest.top(now)
}
