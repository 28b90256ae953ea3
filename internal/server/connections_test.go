package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// TestBoundsFor: connections never take what the rest of the server needs.
func TestBoundsFor(t *testing.T) {
	for n, want := range map[uint64]bounds{
		64: {64, 32}, 1024: {384, 96}, 4096: {1536, 384}, 20_000: {7500, 1875}, 1 << 20: {16384, 4096}, math.MaxUint64: {16384, 4096},
	} {
		got := boundsFor(n)
		if got != want {
			t.Errorf("%d: %+v, want %+v", n, got, want)
		}
		// Downloads hold a file each, half as many uploads some four.
		if left := int(min(n, 1<<20)) - got.all - got.beside().all - 3*filesFor(n); n >= 1024 && left < spare/2 {
			t.Errorf("%d: %d descriptors are left", n, left)
		}
	}
}

// TestSource: one host has one share, however many addresses it has.
func TestSource(t *testing.T) {
	b := newBounded(nil, bounds{}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}, new(crowd))
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1": "fe80::/64",
		"10.1.2.3": "", "fd00::7": "", // proxies
	} {
		got := b.source(netip.MustParseAddr(addr))
		if got.IsValid() != (want != "") || got.IsValid() && got.String() != want {
			t.Errorf("%s is counted as %s, want %q", addr, got, want)
		}
	}
}

// yard is a listener with bounds and a server behind it.
type yard struct {
	t     *testing.T
	b     *bounded
	crowd crowd
}

func open(t *testing.T, b bounds, unread time.Duration, trusted ...netip.Prefix) *yard {
	t.Helper()
	y := &yard{t: t}
	config := net.ListenConfig{Control: impatient(unread)}
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	y.b = newBounded(l.(*net.TCPListener), b, trusted, &y.crowd)
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			_ = http.NewResponseController(w).Flush() // its header shows that it is under way
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 1000))
	})}
	watch(s)
	go func() { _ = s.Serve(y.b) }()
	t.Cleanup(func() {
		_ = s.Close()
		y.until("everybody has left", func() bool { return y.crowd.open.Load() == 0 })
		y.b.mu.Lock()
		defer y.b.mu.Unlock()
		if len(y.b.inner) != 0 || len(y.b.from) != 0 {
			t.Errorf("%d connections and %v are remembered of nobody", len(y.b.inner), y.b.from)
		}
	})
	return y
}

func (y *yard) until(what string, holds func() bool) {
	y.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			y.t.Fatalf("never: %s", what)
		}
	}
}

// knock opens a connection from an address of its own. A refusal may already
// show here; then it gives none.
func (y *yard) knock(from string) net.Conn {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(y.t.Context(), "tcp", y.b.Addr().String())
	if err != nil {
		return nil
	}
	y.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second)) // the test's own patience
	return c
}

// dial is knock for what has to be let in.
func (y *yard) dial(from string) net.Conn {
	y.t.Helper()
	c := y.knock(from)
	if c == nil {
		y.t.Fatalf("%s was not let in", from)
	}
	return c
}

// admits reports whether a new connection of the address is served.
func (y *yard) admits(from string) bool {
	y.t.Helper()
	c := y.knock(from)
	return c != nil && y.serves(c)
}

// serves reports whether the connection is answered; if not, it has to be closed.
func (y *yard) serves(c net.Conn) bool {
	y.t.Helper()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // a refused one may take it or not
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		y.t.Fatal("neither answered nor closed")
	}
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// busy opens a connection with a request that is under way until it is closed.
func (y *yard) busy(from string) net.Conn {
	y.t.Helper()
	c := y.dial(from)
	_, _ = io.WriteString(c, "GET /long HTTP/1.1\r\nHost: x\r\n\r\n") // the answer tells
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
		y.t.Fatalf("no request is under way: %v", err)
	}
	return c
}

// alive reports whether a connection on which nothing is to come is open.
func (y *yard) alive(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // a closed one has said so by now
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// TestBounded: one source cannot use up the room of others, what is open stays
// open, and a place that is left is free again (A05).
func TestBounded(t *testing.T) {
	y := open(t, bounds{all: 7, each: 3}, time.Minute, netip.MustParsePrefix("127.0.0.9/32"))
	var mine []net.Conn
	for range 3 {
		mine = append(mine, y.busy("127.0.0.2"))
	}
	for range 20 {
		if y.admits("127.0.0.2") {
			t.Fatal("a fourth connection of one address was served")
		}
	}
	y.busy("127.0.0.3")
	for range 3 { // the proxy has as many as there is room for, and keeps them
		if !y.admits("127.0.0.9") {
			t.Fatal("the proxy was not served")
		}
	}
	if y.admits("127.0.0.4") || y.admits("127.0.0.9") {
		t.Fatal("an eighth connection was served")
	}
	for _, c := range mine { // those that are there are never hurt
		if !y.alive(c) {
			t.Fatal("an older connection was hurt")
		}
	}
	if n := y.crowd.refused.Load(); n != 22 {
		t.Errorf("%d were counted as refused", n)
	}
	_ = mine[0].Close()
	y.until("the place is free again", func() bool { return y.admits("127.0.0.2") })
}

// TestIdleMakesRoom: idle connections of any number of addresses, also such as
// begin a request and do not go on, keep nobody out. The one that has been idle
// longest goes, and never one with a request under way (A05).
func TestIdleMakesRoom(t *testing.T) {
	y := open(t, bounds{all: 8, each: 2}, time.Minute)
	long := y.busy("127.0.0.2") // the oldest of all
	var idle []net.Conn
	for _, from := range []string{"127.0.0.3", "127.0.0.3", "127.0.0.4", "127.0.0.4"} {
		c := y.dial(from)
		if !y.serves(c) {
			t.Fatal("not served")
		}
		idle = append(idle, c)
	}
	for _, from := range []string{"127.0.0.5", "127.0.0.5", "127.0.0.6"} {
		c := y.dial(from)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHo") // as slow as it gets
		idle = append(idle, c)
	}
	y.until("all are there", func() bool { return y.crowd.open.Load() == 8 })
	if !y.serves(idle[0]) { // the second has been idle longest now
		t.Fatal("a connection was closed without need")
	}
	y.busyOnes(1)
	if !y.admits("127.0.0.7") {
		t.Fatal("idle connections keep a newcomer out")
	}
	if y.alive(idle[1]) || !y.alive(idle[0]) || !y.alive(idle[2]) {
		t.Error("not the one that has been idle longest had to go")
	}
	for i := range 20 { // newcomers by the dozen
		if !y.admits(fmt.Sprintf("127.0.1.%d", i)) {
			t.Fatalf("newcomer %d was not served", i)
		}
		y.busyOnes(1)
	}
	if !y.alive(long) {
		t.Error("a request under way was ended")
	}
	if n, e := y.crowd.open.Load(), y.crowd.evicted.Load(); n != 8 || e == 0 {
		t.Errorf("%d are open, %d had to go", n, e)
	}
}

// busyOnes fails unless so many requests are under way.
func (y *yard) busyOnes(want int) {
	y.t.Helper()
	y.until("requests under way are known", func() bool {
		y.b.mu.Lock()
		defer y.b.mu.Unlock()
		n := 0
		for c := range y.b.inner {
			if _, idle := c.idleSince(); !idle {
				n++
			}
		}
		return n == want
	})
}

// TestRefusedReport: one line for any number, and none for none.
func TestRefusedReport(t *testing.T) {
	y := open(t, bounds{all: 2, each: 1}, time.Minute)
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, nil))
	y.b.report(log)
	if text.Len() > 0 {
		t.Errorf("nothing happened: %s", text.String())
	}
	if !y.admits("127.0.0.2") || y.admits("127.0.0.2") || y.admits("127.0.0.2") {
		t.Fatal("not one of three was served")
	}
	y.b.report(log)
	if n := strings.Count(text.String(), "\n"); n != 1 || !strings.Contains(text.String(), "closed=2 closed_idle=0 ") || !strings.Contains(text.String(), "from=127.0.0.2 ") ||
		!strings.Contains(text.String(), `fix="trusted_proxies: ['127.0.0.2']"`) {
		t.Errorf("%s", text.String())
	}
	text.Reset()
	if !y.admits("127.0.0.3") || !y.admits("127.0.0.4") { // 127.0.0.2 makes room
		t.Fatal("idle connections keep a newcomer out")
	}
	y.b.report(log)
	y.b.report(log)
	if n := strings.Count(text.String(), "\n"); n != 1 || !strings.Contains(text.String(), "closed=0 closed_idle=1 ") || !strings.Contains(text.String(), "LimitNOFILE") {
		t.Errorf("%s", text.String())
	}
}

// TestUnread: whoever asks and asks and takes no answer does not hold a place
// for ever, also without any deadline of a handler (A05, slow reading).
func TestUnread(t *testing.T) {
	y := open(t, bounds{all: 2, each: 2}, 300*time.Millisecond)
	greedy, patient := y.dial("127.0.0.2"), y.dial("127.0.0.3")
	if !y.serves(patient) {
		t.Fatal("not served")
	}
	go func() {
		many := strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1000)
		for { // until the other end hangs up
			if _, err := io.WriteString(greedy, many); err != nil {
				return
			}
		}
	}()
	y.until("the greedy one was cut off", func() bool { return y.crowd.open.Load() == 1 })
	if !y.serves(patient) {
		t.Error("an idle connection was cut off with it")
	}
}
