package server

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// bounds is how many connections a listener has at a time: all together, and
// from one address.
type bounds struct{ all, each int }

const (
	// spare descriptors, at least, are for the databases, the ledger, the trail
	// and jobs.
	spare = 256
	// most connections take half a gigabyte when all of them are idle.
	most = 1 << 14
)

// boundsFor shares out the descriptors that the process may have. Requests hold
// files besides their connections (see filesFor), so connections get half of
// what is not spared.
func boundsFor(descriptors uint64) bounds {
	n := int(min(descriptors, math.MaxInt32)) //nolint:gosec // it was just bounded
	all := min(max((n-max(spare, n/4))/2, 64), most)
	return bounds{all: all, each: max(all/4, 32)}
}

// filesFor is about how many files clients may hold open by their requests,
// uploads and downloads each. A connection may carry many requests, so this is
// counted apart.
func filesFor(descriptors uint64) int { return int(min(max(descriptors/8, 16), most)) } //nolint:gosec // it was just bounded

// beside is for a second listener: small beside the first one, and its own, so
// that a crowd at the public door does not keep administrators out.
func (b bounds) beside() bounds { return bounds{all: b.each / 2, each: max(b.each/8, 16)} }

// descriptors is how many files the process may have open. Go has raised the
// soft limit to the hard one by now.
func descriptors() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024 // what systems give when nobody asks for more
	}
	return r.Cur
}

// crowd counts connections over all listeners.
type crowd struct{ open, refused, evicted atomic.Int64 }

func (c *crowd) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "gradegate_connections", Help: "Open connections."},
			func() float64 { return float64(c.open.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "gradegate_connections_refused_total", Help: "Connections closed at once because there were too many."},
			func() float64 { return float64(c.refused.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "gradegate_connections_evicted_total", Help: "Idle connections closed to make room for new ones."},
			func() float64 { return float64(c.evicted.Load()) }),
	}
}

// bounded is a listener with bounds. A source that has its share gets no
// further connection. When the listener is full, the connection that has been
// idle longest makes room, since somebody with a few addresses could keep it
// full of idle ones. What cannot be let in is closed at once: a listener that
// waits for room instead (as netutil.LimitListener does) lets a few clients
// hold up everybody, and an error of Accept would end the server.
type bounded struct {
	*net.TCPListener
	bounds  bounds
	trusted []netip.Prefix // proxies: many clients behind one address
	crowd   *crowd

	mu    sync.Mutex
	inner map[*counted]struct{} // those that are open
	from  map[netip.Prefix]int
	since tally
}

// tally is what there is to report since the last report.
type tally struct {
	refused, evicted int
	last             netip.Addr // whose share was used up; zero if the listener was full
}

func newBounded(l *net.TCPListener, b bounds, trusted []netip.Prefix, c *crowd) *bounded {
	return &bounded{TCPListener: l, bounds: b, trusted: trusted, crowd: c, inner: map[*counted]struct{}{}, from: map[netip.Prefix]int{}}
}

// Accept gives the next connection that there is room for. It is safe for
// concurrent use.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		tcp, err := b.AcceptTCP()
		if err != nil {
			return nil, err
		}
		var peer netip.Addr
		if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
			peer = a.AddrPort().Addr().Unmap().WithZone("")
		}
		c := &counted{TCPConn: tcp, source: b.source(peer), leave: b.leave, idle: time.Now()}
		in, instead := b.enter(c, peer)
		if instead != nil {
			instead.reset()
		}
		if in {
			return c, nil
		}
		_ = tcp.SetLinger(0) // a reset: the kernel keeps nothing of it either
		_ = tcp.Close()
	}
}

// source is how a peer is counted: by its address or, in version 6, by the
// network that one host has to itself. A trusted proxy is not counted.
func (b *bounded) source(peer netip.Addr) netip.Prefix {
	for _, t := range b.trusted {
		if t.Contains(peer) {
			return netip.Prefix{}
		}
	}
	bits := 64
	if peer.Is4() {
		bits = 32
	}
	p, _ := peer.Prefix(bits) // the zero prefix only for the zero address
	return p
}

// enter lets a connection in if it may, perhaps in place of another one, which
// the caller has to close.
func (b *bounded) enter(c *counted, peer netip.Addr) (in bool, instead *counted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tooMany := c.source.IsValid() && b.from[c.source] >= b.bounds.each
	if !tooMany && len(b.inner) >= b.bounds.all {
		if instead = b.evict(); instead != nil {
			b.forget(instead)
		}
	}
	if tooMany || len(b.inner) >= b.bounds.all {
		b.crowd.refused.Add(1)
		b.since.refused++
		if tooMany {
			b.since.last = peer
		}
		return false, nil
	}
	b.inner[c] = struct{}{}
	if c.source.IsValid() {
		b.from[c.source]++
	}
	b.crowd.open.Add(1)
	return true, instead
}

// evict chooses the connection that has been idle longest and sees to it that
// it carries no further request. Proxies keep theirs: many clients need them.
func (b *bounded) evict() *counted {
	for range 3 { // the choice may get busy at this moment
		var first *counted
		var since time.Time
		for c := range b.inner {
			if t, idle := c.idleSince(); idle && c.source.IsValid() && (first == nil || t.Before(since)) {
				first, since = c, t
			}
		}
		if first == nil {
			return nil
		}
		if first.evict() {
			b.crowd.evicted.Add(1)
			b.since.evicted++
			return first
		}
	}
	return nil
}

func (b *bounded) leave(c *counted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(c)
}

func (b *bounded) forget(c *counted) {
	if _, ok := b.inner[c]; !ok {
		return // it was evicted
	}
	delete(b.inner, c)
	b.crowd.open.Add(-1)
	if b.from[c.source] > 1 {
		b.from[c.source]--
		return
	}
	delete(b.from, c.source) // what is remembered never outgrows what is open
}

// report logs what was closed since the last report, in one line.
func (b *bounded) report(log *slog.Logger) {
	b.mu.Lock()
	r, open := b.since, len(b.inner)
	b.since = tally{}
	b.mu.Unlock()
	if r.refused+r.evicted == 0 {
		return
	}
	line := []any{
		"listener", b.Addr().String(), "closed", r.refused, "closed_idle", r.evicted,
		"open", open, "most", b.bounds.all, "most_per_address", b.bounds.each,
	}
	if r.last.IsValid() {
		log.Warn("too many connections from one address were closed at once; if it is your proxy, say so",
			append(line, "from", r.last.String(), "fix", "trusted_proxies: ['"+r.last.String()+"']")...)
		return
	}
	log.Warn("too many connections: idle ones made room, or new ones were closed at once", append(line, "fix", "ulimit -n 65536, or LimitNOFILE=65536 in the unit")...)
}

// reportEvery is how often closed connections are logged at most.
const reportEvery = time.Minute

// reportRefused logs what the listeners closed, also when it is told to stop.
func (s *Server) reportRefused(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-tick.C:
		}
		for _, b := range s.bounded {
			b.report(s.log)
		}
	}
}
