package proxy

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gradegate/api"
)

// dial connects from an address of one's own.
func (f front) dial(t *testing.T, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := d.DialContext(t.Context(), "tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // the test's own patience
	if f.roots != nil {
		return tls.Client(c, &tls.Config{RootCAs: f.roots, ServerName: f.host})
	}
	return c
}

// answer is a response that is read; with status 0 there was none.
type answer struct {
	status int
	header http.Header
	body   string
}

func read(r *bufio.Reader) answer {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return answer{}
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// send sends raw bytes over a connection of their own.
func (f front) send(t *testing.T, from, raw string) answer {
	t.Helper()
	c := f.dial(t, from)
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, raw) // somebody may hang up in the middle; what was answered counts
	return read(bufio.NewReader(c))
}

// ip is the client's address as gradegate sees it; "" without an answer.
func (a answer) ip() string {
	var me api.Whoami
	if a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &me) != nil {
		return ""
	}
	return me.IP
}

const whoami, authz = "/v1/whoami", "/authz/nginx"

// way is how clients reach a server.
type way struct {
	name string
	open func(*testing.T) (*grader, front)
}

// ways are all of them, with the documented configurations. The subtests of
// those whose program is missing are skipped.
func ways(t *testing.T) []way {
	config := block(t, "# Behind nginx or HAProxy", "yaml")
	direct := func(config string) func(*testing.T) (*grader, front) {
		return func(t *testing.T) (*grader, front) {
			g := start(t, config, 0)
			return g, front{address: g.address, host: "grade.example.org"}
		}
	}
	behind := func(proxy func(*testing.T, *grader, ...string) front, changed ...string) func(*testing.T) (*grader, front) {
		return func(t *testing.T) (*grader, front) {
			g := start(t, config, 0)
			return g, proxy(t, g, changed...)
		}
	}
	return []way{
		{"direct", direct("")},
		{"direct past a proxy", direct(config)},
		{"nginx", behind(behindNginx)},
		{"nginx that appends", behind(behindNginx, "X-Forwarded-For $remote_addr;", "X-Forwarded-For $proxy_add_x_forwarded_for;")},
		{"haproxy", behind(behindHAProxy)},
		{"haproxy that appends", behind(behindHAProxy, "http-request set-header X-Forwarded-For %[src] ", "option forwardfor ")},
	}
}

// TestForged: whatever a client says about its address, it is where its
// connection comes from: nobody gets round a rule, and nobody is locked out by
// what it says (A01, A02, R2.2).
func TestForged(t *testing.T) {
	all := variants()
	orderly := 0
	for _, v := range all {
		if !v.broken {
			orderly++
		}
	}
	if len(all) < 250 || orderly < 200 {
		t.Fatalf("%d variants, %d of them orderly", len(all), orderly)
	}
	for _, way := range ways(t) {
		t.Run(way.name, func(t *testing.T) {
			g, f := way.open(t)
			nothing := variant{}
			if a := f.send(t, friend, nothing.raw(authz, f.host, g.bound)); a.status != http.StatusOK {
				t.Fatalf("friend is not let in: %+v", a)
			}
			served := 0
			for _, v := range append([]variant{{name: "nothing"}}, all...) {
				if f.try(t, g, v) {
					served++
				}
			}
			if served < orderly {
				t.Errorf("only %d were served", served)
			}
			// And the rule is still about friend, after all that.
			if a := f.send(t, friend, variant{lines: "X-Forwarded-For: " + stranger + "\r\n"}.raw(whoami, f.host, g.bound)); a.ip() != friend {
				t.Errorf("friend is taken for %q: %+v", a.ip(), a)
			}
		})
	}
}

// try sends a variant as stranger, and reports whether it was served.
func (f front) try(t *testing.T, g *grader, v variant) bool {
	t.Helper()
	a := f.send(t, stranger, v.raw(authz, f.host, g.bound))
	why := a.header.Get("X-Auth-Reason")
	refused := a.status == 0 || a.status >= 400
	if !refused || !v.broken && (a.status != http.StatusForbidden || why != "ip_denied" && why != "too_many_failures" && why != "address_blocked") {
		t.Errorf("%.80q: friend's token is answered %d %s", v.name, a.status, why)
	}
	a = f.send(t, stranger, v.raw(whoami, f.host, g.free))
	if a.status == http.StatusOK && a.ip() != stranger {
		t.Errorf("%.80q: stranger is taken for %q", v.name, a.ip())
	}
	if a.status != http.StatusOK && !v.broken {
		t.Errorf("%.80q: stranger's own token is answered %d %.200q", v.name, a.status, a.body)
	}
	return a.status == http.StatusOK
}

// TestShared: clients whose requests travel over the same connections between
// proxy and gradegate are not taken for each other.
func TestShared(t *testing.T) {
	for _, way := range ways(t) {
		t.Run(way.name, func(t *testing.T) {
			g, f := way.open(t)
			type client struct {
				from string
				conn net.Conn
				r    *bufio.Reader
			}
			var clients []client
			for i := range 8 {
				from := fmt.Sprintf("127.0.1.%d", i+1)
				c := f.dial(t, from)
				defer func() { _ = c.Close() }()
				clients = append(clients, client{from, c, bufio.NewReader(c)})
			}
			for i := range 160 {
				c := clients[i*i%8] // some twice in a row
				forged := variant{lines: "X-Forwarded-For: " + clients[(i+1)%8].from + "\r\n"}
				_, _ = io.WriteString(c.conn, forged.raw(whoami, f.host, g.free)) // the answer tells
				if a := read(c.r); a.ip() != c.from {
					t.Fatalf("request %d of %s is taken for one of %q: %+v", i, c.from, a.ip(), a)
				}
			}
		})
	}
}

// TestForgotten: a proxy that gradegate was not told of shows in the log, with
// the setting to add, and once.
func TestForgotten(t *testing.T) {
	g := start(t, "", 0)
	f := behindNginx(t, g)
	const fix = `fix="trusted_proxies: ['127.0.0.1']"`
	for range 5 {
		if a := f.send(t, stranger, variant{}.raw(whoami, f.host, g.free)); a.ip() != proxyIP {
			t.Errorf("a proxy that nobody trusts is believed: %+v", a)
		}
	}
	if n := strings.Count(g.log.String(), fix); n != 1 {
		t.Errorf("%d warnings:\n%s", n, g.log)
	}
}
