package httpapi

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/realclientip/realclientip-go"

	"gradegate/internal/audit"
)

// proxies says whose word about their clients is believed.
type proxies struct {
	trusted []netip.Prefix
	header  string // canonical
	list    realclientip.Strategy
	strays  strays
}

func newProxies(trusted []netip.Prefix, header string) (*proxies, error) {
	p := &proxies{header: http.CanonicalHeaderKey(header), strays: strays{told: map[netip.Prefix]time.Time{}}}
	if header == "" {
		p.header = "X-Forwarded-For"
	}
	var nets []net.IPNet
	for _, t := range trusted {
		if t.Addr().Is4In6() && t.Bits() >= 96 {
			t = netip.PrefixFrom(t.Addr().Unmap(), t.Bits()-96)
		}
		p.trusted = append(p.trusted, t.Masked())
		nets = append(nets, net.IPNet{IP: t.Addr().AsSlice(), Mask: net.CIDRMask(t.Bits(), t.Addr().BitLen())})
	}
	if p.header == "X-Forwarded-For" || p.header == "Forwarded" {
		s, err := realclientip.NewRightmostTrustedRangeStrategy(p.header, nets)
		if err != nil {
			return nil, fmt.Errorf("proxy header: %w", err)
		}
		p.list = s
	}
	return p, nil
}

func (p *proxies) trust(a netip.Addr) bool {
	for _, t := range p.trusted {
		if t.Contains(a) {
			return true
		}
	}
	return false
}

// claimed is the client that a trusted proxy names: the right-most hop that is
// no proxy of ours. Anything unclear is no address, and rules about addresses
// refuse that.
func (p *proxies) claimed(h http.Header) netip.Addr {
	if p.list != nil {
		return plain(p.list.ClientIP(h, ""))
	}
	values := h[p.header]
	if len(values) != 1 {
		return netip.Addr{}
	}
	return plain(strings.TrimSpace(values[0]))
}

// plain reads an address into its one form: unmapped, without zone.
func plain(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// peer is the other end of a connection. What is dear to work out is
// remembered here, since most requests on a connection are alike.
type peer struct {
	addr   netip.Addr
	uid    uint32
	hasUID bool

	noticed atomic.Bool // its first request was looked at
	written atomic.Pointer[written]
	proxied atomic.Pointer[client]
	agent   atomic.Pointer[agent]
}

type (
	written struct {
		addr netip.Addr
		text string
	}
	client struct {
		header string
		addr   netip.Addr
	}
	agent struct{ raw, clean string }
)

type peerKey struct{}

// ConnContext remembers the peer of a connection. Give it to http.Server.
func (a *API) ConnContext(ctx context.Context, c net.Conn) context.Context {
	p := new(peer)
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn() // beneath TLS
	}
	switch remote := c.RemoteAddr().(type) {
	case *net.TCPAddr:
		p.addr = remote.AddrPort().Addr().Unmap().WithZone("")
	case *net.UnixAddr:
		p.uid, p.hasUID = peerUID(c)
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// peerOf is the other end of the request's connection. A peer that speaks for
// clients without being trusted is warned of.
func (a *API) peerOf(r *http.Request) *peer {
	p, ok := r.Context().Value(peerKey{}).(*peer)
	if !ok {
		p = new(peer)
		if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			p.addr = ap.Addr().Unmap().WithZone("")
		}
	}
	if !p.noticed.Load() {
		p.noticed.Store(true) // a proxy does it in every request, so the first one tells
		a.noticeStray(p, r.Header)
	}
	return p
}

// noticeStray warns that a forwarding header is ignored. That is as it should
// be; but where trusted_proxies was forgotten, all clients of the proxy look
// like one, and share its limits and its address.
func (a *API) noticeStray(p *peer, h http.Header) {
	list := a.proxies
	name := list.strayHeader(h)
	if name == "" || !p.addr.IsValid() || list.trust(p.addr) || !list.strays.tell(p.addr, a.Now()) {
		return
	}
	line := []any{"peer", p.addr.String(), "header", name, "fix", "trusted_proxies: ['" + p.addr.String() + "']"}
	if name != list.header {
		line = append(line, "fix_too", "proxy_header: "+name)
	}
	a.Logger.Warn("a forwarding header is ignored, since its sender is no trusted proxy; if it is your proxy, all of its clients look like one", line...)
}

// strayHeader is the header in which somebody speaks for a client; "" if in none.
func (p *proxies) strayHeader(h http.Header) string {
	if len(h[p.header]) > 0 {
		return p.header
	}
	for _, name := range [...]string{"X-Forwarded-For", "X-Real-Ip", "Forwarded"} {
		if len(h[name]) > 0 {
			return name
		}
	}
	return ""
}

// strays remembers for which networks a warning was given, for an hour.
type strays struct {
	mu   sync.Mutex
	told map[netip.Prefix]time.Time
}

const (
	tellAgain = time.Hour
	// mostTold bounds the memory, and the lines that somebody with many
	// addresses can make us write. A forgotten setting shows in the first one.
	mostTold = 64
)

// tell reports whether it is time to warn of an address.
func (s *strays) tell(a netip.Addr, now time.Time) bool {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	network, err := a.Prefix(bits)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.told[network]; ok && now.Sub(last) < tellAgain {
		return false
	}
	maps.DeleteFunc(s.told, func(_ netip.Prefix, last time.Time) bool { return now.Sub(last) >= tellAgain })
	if len(s.told) >= mostTold {
		return false
	}
	s.told[network] = now
	return true
}

// client is who sent the request: the peer, or whom a trusted peer names.
func (p *peer) client(list *proxies, h http.Header) netip.Addr {
	if len(list.trusted) == 0 || !list.trust(p.addr) {
		return p.addr
	}
	values := h[list.header]
	if len(values) != 1 {
		return list.claimed(h)
	}
	if last := p.proxied.Load(); last != nil && last.header == values[0] {
		return last.addr
	}
	a := list.claimed(h)
	p.proxied.Store(&client{header: values[0], addr: a})
	return a
}

// text is the address as the trail writes it; "" if it is unknown.
func (p *peer) text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	if last := p.written.Load(); last != nil && last.addr == a {
		return last.text
	}
	s := a.String()
	p.written.Store(&written{addr: a, text: s})
	return s
}

// agentMax bounds what a client can call itself.
const agentMax = 200

// agentOf is what the client calls itself, fit to be written down: agents have
// been seen to carry tokens.
func (p *peer) agentOf(h http.Header) string {
	values := h["User-Agent"]
	if len(values) == 0 || values[0] == "" {
		return ""
	}
	if last := p.agent.Load(); last != nil && last.raw == values[0] {
		return last.clean
	}
	clean := audit.Scrub(audit.Clean(values[0], agentMax))
	p.agent.Store(&agent{raw: values[0], clean: clean})
	return clean
}

// scrub makes foreign text fit for a log.
func scrub(s string) string { return audit.Scrub(s) }
