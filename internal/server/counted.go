package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// counted is a connection of a bounded listener. The rest of it is a plain TCP
// connection, whose CloseWrite and ReadFrom net/http looks for.
type counted struct {
	*net.TCPConn
	source netip.Prefix
	once   sync.Once
	leave  func(*counted)

	mu      sync.Mutex
	running int       // requests under way; one whose header is not complete is none
	idle    time.Time // since when there is none
	evicted bool
	http2   bool
}

// Close closes the connection. Its place is free afterwards, not before.
func (c *counted) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { c.leave(c) })
	return err
}

// reset closes the connection, and the kernel keeps nothing of it either. Its
// server finds out at the next read or write.
func (c *counted) reset() {
	_ = c.SetLinger(0)
	_ = c.TCPConn.Close()
}

// begin reports whether a request may begin, which it may not when its
// connection is being closed.
func (c *counted) begin(http2 bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.evicted {
		return false
	}
	c.http2 = http2
	c.running++
	return true
}

func (c *counted) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running--; c.running == 0 {
		c.idle = time.Now()
	}
}

// answered ends the request of a connection that carries one at a time: the
// last of its answer leaves after the handler has returned.
func (c *counted) answered() {
	c.mu.Lock()
	one := !c.http2 && c.running > 0
	c.mu.Unlock()
	if one {
		c.end()
	}
}

// idleSince tells since when the connection carries nothing.
func (c *counted) idleSince() (t time.Time, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle, c.running == 0
}

// evict sees to it that nothing begins any more, unless something has.
func (c *counted) evict() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.evicted = c.running == 0
	return c.evicted
}

type countedKey struct{}

// countedOf finds the connection below TLS.
func countedOf(c net.Conn) *counted {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	found, _ := c.(*counted) // nil on the local socket
	return found
}

// watch lets a server tell its connections when they are busy.
func watch(s *http.Server) {
	h, with := s.Handler, s.ConnContext
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if with != nil {
			ctx = with(ctx, c)
		}
		return context.WithValue(ctx, countedKey{}, countedOf(c))
	}
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, _ := r.Context().Value(countedKey{}).(*counted); c != nil {
			if !c.begin(r.ProtoMajor == 2) {
				panic(http.ErrAbortHandler) // nobody would get the answer
			}
			if r.ProtoMajor == 2 {
				defer c.end()
			}
		}
		h.ServeHTTP(w, r)
	})
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if found := countedOf(c); found != nil && state == http.StateIdle {
			found.answered()
		}
	}
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
