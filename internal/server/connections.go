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
	"golang.org/x/sys/unix"
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

// boundsFor shares out the descriptors that the process may have. A request
// may hold a file besides its connection, such as an upload or a log, so
// connections get half of what is not spared.
func boundsFor(descriptors uint64) bounds {
	n := int(min(descriptors, math.MaxInt32)) //nolint:gosec // it was just bounded
	all := min(max((n-max(spare, n/4))/2, 64), most)
	return bounds{all: all, each: max(all/4, 32)}
}

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
type crowd struct{ open, refused atomic.Int64 }

func (c *crowd) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "gradegate_connections", Help: "Open connections."},
			func() float64 { return float64(c.open.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "gradegate_connections_refused_total", Help: "Connections closed at once because there were too many."},
			func() float64 { return float64(c.refused.Load()) }),
	}
}

// bounded is a listener that closes at once whatever is beyond its bounds. One
// that waits for room instead (as netutil.LimitListener does) lets a few idle
// clients hold up everybody, and an error of Accept would end the server.
type bounded struct {
	*net.TCPListener
	bounds  bounds
	trusted []netip.Prefix // proxies: many clients behind one address
	crowd   *crowd

	mu      sync.Mutex
	open    int
	from    map[netip.Prefix]int
	refused refused
}

// refused is what there is to report since the last report.
type refused struct {
	n    int
	last netip.Addr // whose share was used up; zero if the listener was full
}

func newBounded(l *net.TCPListener, b bounds, trusted []netip.Prefix, c *crowd) *bounded {
	return &bounded{TCPListener: l, bounds: b, trusted: trusted, crowd: c, from: map[netip.Prefix]int{}}
}

// Accept gives the next connection that there is room for. It is safe for
// concurrent use.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.AcceptTCP()
		if err != nil {
			return nil, err
		}
		var peer netip.Addr
		if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			peer = tcp.AddrPort().Addr().Unmap().WithZone("")
		}
		source := b.source(peer)
		if b.enter(peer, source) {
			return &counted{TCPConn: c, leave: func() { b.leave(source) }}, nil
		}
		_ = c.SetLinger(0) // a reset: the kernel keeps nothing of it either
		_ = c.Close()
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

func (b *bounded) enter(peer netip.Addr, source netip.Prefix) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	full, tooMany := b.open >= b.bounds.all, source.IsValid() && b.from[source] >= b.bounds.each
	if full || tooMany {
		b.crowd.refused.Add(1)
		b.refused.n++
		if tooMany {
			b.refused.last = peer
		}
		return false
	}
	b.open++
	if source.IsValid() {
		b.from[source]++
	}
	b.crowd.open.Add(1)
	return true
}

func (b *bounded) leave(source netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	b.crowd.open.Add(-1)
	if b.from[source] > 1 {
		b.from[source]--
		return
	}
	delete(b.from, source) // what is remembered never outgrows what is open
}

// report logs what was refused since the last report, in one line.
func (b *bounded) report(log *slog.Logger) {
	b.mu.Lock()
	r, open := b.refused, b.open
	b.refused = refused{}
	b.mu.Unlock()
	if r.n == 0 {
		return
	}
	line := []any{"listener", b.Addr().String(), "closed", r.n, "open", open, "most", b.bounds.all, "most_per_address", b.bounds.each}
	if r.last.IsValid() {
		log.Warn("too many connections from one address were closed at once; if it is your proxy, say so",
			append(line, "from", r.last.String(), "fix", "trusted_proxies: ['"+r.last.String()+"']")...)
		return
	}
	log.Warn("too many connections were closed at once", append(line, "fix", "ulimit -n 65536, or LimitNOFILE=65536 in the unit")...)
}

// reportEvery is how often refused connections are logged at most.
const reportEvery = time.Minute

// reportRefused logs what the listeners refused, also when it is told to stop.
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

// counted is a connection that says when it is over. The rest of it is a plain
// TCP connection, whose CloseWrite and ReadFrom net/http looks for.
type counted struct {
	*net.TCPConn
	once  sync.Once
	leave func()
}

// Close closes the connection. Its place is free afterwards, not before.
func (c *counted) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(c.leave)
	return err
}

// unreadTime is how long answers may wait for a client that does not take
// them. Answers have deadlines of their own, but the small ones are sent when
// those are off again, and somebody may ask for thousands and read none.
const unreadTime = time.Minute

// impatient is a Control for sockets: the kernel ends connections whose other
// end takes nothing for the given time. Accepted sockets inherit it.
func impatient(d time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
		}); e != nil {
			return e
		}
		return err
	}
}
