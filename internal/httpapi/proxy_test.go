package httpapi

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/token"
)

// TestClientAddress: whose word is believed about where a request is from (A01, A02).
func TestClientAddress(t *testing.T) {
	const xff = "X-Forwarded-For"
	ours := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		peer   string
		header string
		h      http.Header
		want   string
	}{
		{"192.0.2.7", xff, http.Header{xff: {"203.0.113.9"}}, "192.0.2.7"}, // not a proxy: not believed
		{"10.0.0.1", xff, http.Header{xff: {"203.0.113.9"}}, "203.0.113.9"},
		{"::ffff:10.0.0.1", xff, http.Header{xff: {"203.0.113.9"}}, "203.0.113.9"},
		{"10.0.0.1", xff, http.Header{xff: {"1.2.3.4, 203.0.113.9"}}, "203.0.113.9"},
		{"10.0.0.1", xff, http.Header{xff: {"1.2.3.4, 203.0.113.9, 10.1.1.1"}}, "203.0.113.9"},
		{"10.0.0.1", xff, http.Header{xff: {"1.2.3.4", "203.0.113.9"}}, "203.0.113.9"},
		{"10.0.0.1", xff, http.Header{xff: {"::ffff:203.0.113.9"}}, "203.0.113.9"},
		{"10.0.0.1", xff, http.Header{xff: {"fe80::1%eth0"}}, "fe80::1"},
		{"10.0.0.1", xff, http.Header{xff: {"203.0.113.9:4711"}}, "203.0.113.9"},
		{"fd00::1", xff, http.Header{xff: {"[2001:db8::1]:80"}}, "2001:db8::1"},
		// From a proxy of ours, anything unclear is no address.
		{"10.0.0.1", xff, http.Header{}, ""},
		{"10.0.0.1", xff, http.Header{xff: {""}}, ""},
		{"10.0.0.1", xff, http.Header{xff: {"203.0.113.9, unknown"}}, ""},
		{"10.0.0.1", xff, http.Header{xff: {"203.0.113.9,"}}, ""},
		{"10.0.0.1", xff, http.Header{xff: {"0x7f000001"}}, ""},
		{"10.0.0.1", xff, http.Header{xff: {"010.0.0.1"}}, ""},
		{"10.0.0.1", xff, http.Header{xff: {"10.1"}}, ""},
		{"10.0.0.1", xff, http.Header{xff: {"0.0.0.0"}}, ""},
		{"10.0.0.1", xff, http.Header{xff: {"10.2.2.2, 10.3.3.3"}}, ""}, // proxies only
		{"10.0.0.1", xff, http.Header{"X_Forwarded_For": {"203.0.113.9"}}, ""},
		{"10.0.0.1", xff, http.Header{"X-Real-Ip": {"203.0.113.9"}, "Forwarded": {"for=203.0.113.9"}}, ""}, // other headers
		{"10.0.0.1", "X-Real-IP", http.Header{"X-Real-Ip": {"203.0.113.9"}}, "203.0.113.9"},
		{"10.0.0.1", "X-Real-IP", http.Header{"X-Real-Ip": {"203.0.113.9", "1.2.3.4"}}, ""},
		{"10.0.0.1", "X-Real-IP", http.Header{"X-Real-Ip": {"203.0.113.9, 1.2.3.4"}}, ""},
		{"10.0.0.1", "Forwarded", http.Header{"Forwarded": {`for=1.2.3.4, for="[2001:db8::1]:80";proto=https`}}, "2001:db8::1"},
	} {
		list, err := newProxies(ours, c.header)
		if err != nil {
			t.Fatal(err)
		}
		p := &peer{addr: plain(c.peer)}
		for range 2 { // the second time from what is remembered
			got := ""
			if a := p.client(list, c.h); a.IsValid() {
				got = a.String()
			}
			if got != c.want {
				t.Errorf("%s %v: %q, want %q", c.peer, c.h, got, c.want)
			}
		}
	}
}

// FuzzClientAddress: a client that no proxy vouches for cannot become another
// one, and no address has a second form.
func FuzzClientAddress(f *testing.F) {
	list, err := newProxies([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("203.0.113.9", "1.2.3.4, ::ffff:10.0.0.1")
	f.Fuzz(func(t *testing.T, one, two string) {
		h := http.Header{"X-Forwarded-For": {one, two}}
		p := &peer{addr: netip.MustParseAddr("192.0.2.7")}
		if a := p.client(list, h); a != p.addr {
			t.Fatalf("a stranger became %s", a)
		}
		p.addr = netip.MustParseAddr("10.0.0.1")
		if a := p.client(list, h); a.IsValid() && (a.Is4In6() || a.Zone() != "" || list.trust(a)) {
			t.Fatalf("%q %q: %s", one, two, a)
		}
	})
}

// TestBehindAProxy: an address rule sees the client that the proxy names.
func TestBehindAProxy(t *testing.T) {
	w := build(t, func(d *Deps) { d.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	p, _ := networks([]string{"203.0.113.0/24"})
	s := w.give("ann", func(k *token.Token) { k.CIDRs = p })
	for from, status := range map[string]int{"203.0.113.9": 200, "198.51.100.1": 403, "": 403, "junk": 403} {
		headers := []string{"X-Forwarded-For", from}
		if from == "" {
			headers = nil
		}
		if a := w.ask(t, get, "/v1/whoami", s, "", headers...); a.status != status {
			t.Errorf("%q: %d %s", from, a.status, a.body)
		}
	}
}

// TestStrayHeader: whoever forgot trusted_proxies learns of it from the log,
// with what to write, and nobody can fill the log with it (R2.2).
func TestStrayHeader(t *testing.T) {
	now := t0
	w := build(t, func(d *Deps) {
		d.TrustedProxies, d.ProxyHeader = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, "X-Real-IP"
		d.Now = func() time.Time { return now }
	})
	warned := func(peer string, path string, headers ...string) string {
		t.Helper()
		before := len(w.log.String())
		r := httptest.NewRequest(get, path, nil)
		r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(peer), 1).String()
		r.Header.Set("Authorization", "Bearer "+w.ann.Reveal())
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		a := httptest.NewRecorder()
		w.api.Public().ServeHTTP(a, r)
		if path == "/v1/whoami" && (a.Code != http.StatusOK || !strings.Contains(a.Body.String(), `"ip":"`+plain(peer).String()+`"`)) {
			t.Errorf("%s: %d %s", peer, a.Code, a.Body)
		}
		return w.log.String()[before:]
	}
	const whoami, fix = "/v1/whoami", `fix="trusted_proxies: ['192.0.2.7']"`
	if s := warned("192.0.2.7", whoami); s != "" {
		t.Errorf("without a header: %s", s)
	}
	if s := warned("10.0.0.1", "/livez", "X-Real-IP", "203.0.113.9"); s != "" {
		t.Errorf("of a proxy of ours: %s", s)
	}
	if s := warned("192.0.2.7", whoami, "X-Real-IP", "203.0.113.9"); !strings.Contains(s, fix) || !strings.Contains(s, "header=X-Real-Ip") || strings.Contains(s, "203.0.113.9") || strings.Contains(s, "fix_too") {
		t.Errorf("%s", s)
	}
	for _, peer := range []string{"192.0.2.7", "::ffff:192.0.2.7"} {
		if s := warned(peer, whoami, "X-Real-IP", "203.0.113.9"); s != "" {
			t.Errorf("again: %s", s)
		}
	}
	now = now.Add(time.Hour)
	if s := warned("192.0.2.7", "/authz/nginx", "Forwarded", "for=203.0.113.9"); !strings.Contains(s, fix) || !strings.Contains(s, `fix_too="proxy_header: Forwarded"`) {
		t.Errorf("an hour later, in another header: %s", s)
	}
	if s := warned("2001:db8::1", whoami, "X-Forwarded-For", "x"); !strings.Contains(s, `fix="trusted_proxies: ['2001:db8::1']"`) {
		t.Errorf("%s", s)
	}
	lines := 0
	for i := range 3 * mostTold {
		lines += strings.Count(warned(fmt.Sprintf("198.51.100.%d", i), "/livez", "X-Real-IP", "x"), "\n")
		lines += strings.Count(warned(fmt.Sprintf("2001:db8::%x", i), "/livez", "X-Real-IP", "x"), "\n")
	}
	if n := len(w.api.proxies.strays.told); lines != mostTold-2 || n != mostTold {
		t.Errorf("%d lines, %d networks remembered", lines, n)
	}
}

// TestAuthz: the two contracts, side by side.
func TestAuthz(t *testing.T) {
	w := build(t)
	limited := w.give("ann", func(k *token.Token) { k.Competitions = []string{"iris"} }, "jobs:read")
	revoked := w.give("ann", func(k *token.Token) { k.Standing = token.Revoked })
	w.trail.take()
	for _, c := range []struct {
		s       token.Secret
		query   string
		nginx   int
		forward int
		code    string
	}{
		{w.ann, "", 200, 200, ""}, {limited, "", 200, 200, ""},
		{token.Secret{}, "", 401, 401, "token_missing"},
		{revoked, "", 401, 401, "token_revoked"},
		{token.NewSecret(token.Personal), "", 401, 401, "token_unknown"},
		{w.ann, "?scope=jobs:submit&competition=iris", 200, 200, ""},
		{limited, "?scope=jobs:submit", 403, 403, "scope_missing"},
		{limited, "?scope=jobs:read&competition=cats", 403, 403, "competition_missing"},
		{w.ann, "?scope=fly", 403, 400, "action_unknown"},
		{w.ann, "?skope=x", 403, 400, "query_invalid"},
	} {
		for path, status := range map[string]int{"/authz/nginx": c.nginx, "/authz/forward": c.forward} {
			a := w.ask(t, get, path+c.query, c.s, "", "X-Auth-User-Id", "usr_evil", "X-Auth-Scopes", "admin:*",
				"X-Original-Method", "POST", "X-Original-URI", "/grade?x=1", "X-Forwarded-Method", "POST", "X-Forwarded-Uri", "/grade?x=1")
			if a.status != status || a.header.Get("X-Auth-Reason") != c.code || a.header.Get("X-Request-Id") == "" {
				t.Errorf("%s%s: %d %v %s", path, c.query, a.status, a.header, a.body)
			}
			if status == 200 && (a.header.Get("X-Auth-User-Id") != "usr_ann" || a.header.Get("X-Auth-Username") != "ann" ||
				a.header.Get("X-Auth-Mode") != "normal" || a.header.Get("X-Token-Expires-In") == "" ||
				strings.Contains(a.header.Get("X-Auth-Scopes"), "admin")) {
				t.Errorf("%v", a.header)
			}
			if status == 401 && a.header.Get("WWW-Authenticate") == "" || path == "/authz/nginx" && a.body != "" || path == "/authz/forward" && a.code() != c.code {
				t.Errorf("%s: %v %s", path, a.header, a.body)
			}
		}
	}
	lines, _, refused := w.trail.take()
	if len(lines) != 2*8 || len(refused) != 2*2 {
		t.Errorf("%d lines and %d refusals", len(lines), len(refused))
	}
	if l := lines[0]; l.Outcome != audit.Allow || !strings.HasSuffix(l.Route, " POST /grade") || l.Actor != "usr_ann" || l.Token == "" {
		t.Errorf("%+v", l)
	}
	if a := w.ask(t, get, "/authz/nginx", limited, ""); a.header.Get("X-Auth-Competitions") != "iris" || a.header.Get("X-Auth-Scopes") != "jobs:read" {
		t.Errorf("%v", a.header)
	}
	// A change of the token shows at once in what is remembered of it.
	k := w.tokens.tokens[limited.Presented().Public.ID()]
	k.Scopes, k.Version = []string{"tokens:self"}, 2
	w.table.Apply(changeOfToken(k))
	if a := w.ask(t, get, "/authz/nginx", limited, ""); a.header.Get("X-Auth-Scopes") != "tokens:self" {
		t.Errorf("%v", a.header)
	}
}

// TestAuthzLimits: what nginx cannot say is 403 with the truth beside it.
func TestAuthzLimits(t *testing.T) {
	rates := DefaultRates()
	rates[Verifying].Events, rates[Verifying].Burst = 60, 1
	w := build(t, func(d *Deps) { d.Limits = NewLimits(rates, 100) })
	w.ask(t, get, "/authz/nginx", w.ann, "")
	a := w.ask(t, get, "/authz/nginx", w.ann, "")
	if a.status != 403 || a.header.Get("X-Auth-Status") != "429" || a.header.Get("X-Auth-Reason") != "rate_limited" || a.header.Get("Retry-After") != "1" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := w.ask(t, get, "/authz/forward", w.ann, ""); a.status != 429 || a.code() != "rate_limited" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestProxyFields: a contract reads its own fields. A proxy replaces those; the
// ones of the other contract come from the client, and must not say what the
// trail says.
func TestProxyFields(t *testing.T) {
	w := build(t)
	names := map[contract][2]string{nginx: {"X-Original-Method", "X-Original-URI"}, forward: {"X-Forwarded-Method", "X-Forwarded-Uri"}}
	w.trail.take()
	for k, own := range names {
		other := names[nginx+forward-k]
		for want, headers := range map[string][]string{
			" PUT /truth": {own[0], "PUT", own[1], "/truth?x", other[0], "GET", other[1], "/lie"},
			"  ":          {other[0], "GET", other[1], "/lie"},
		} {
			a := w.ask(t, get, k.path(), w.ann, "", headers...)
			if lines, _, _ := w.trail.take(); a.status != 200 || len(lines) != 1 || lines[0].Route != k.path()+want {
				t.Errorf("%v: %d, %+v", headers, a.status, lines)
			}
		}
		for _, twice := range own {
			r, _ := http.NewRequestWithContext(t.Context(), get, w.public.URL+k.path(), nil)
			r.Header.Set("Authorization", "Bearer "+w.ann.Reveal())
			r.Header[http.CanonicalHeaderKey(twice)] = []string{"/one", "/two"}
			a := send(t, r)
			_, _, refused := w.trail.take()
			if want := map[contract]int{nginx: 403, forward: 400}[k]; a.status != want || a.header.Get("X-Auth-Reason") != "proxy_field_twice" ||
				len(refused) != 1 || refused[0].Reason != "proxy_field_twice" {
				t.Errorf("%s twice: %d %v, %+v", twice, a.status, a.header, refused)
			}
		}
	}
}

// TestAuthzLeak: a token of ours in a URL behind the proxy is dead (A20), in
// whatever way it is written, and whoever sends it.
func TestAuthzLeak(t *testing.T) {
	w := build(t)
	for k, name := range map[contract]string{nginx: "X-Original-URI", forward: "X-Forwarded-Uri"} {
		for _, by := range []token.Secret{w.ann, {}} {
			for form, write := range spellings {
				s := w.give("bob", nil)
				a := w.ask(t, get, k.path(), by, "", name, "/files?key="+write(s.Reveal()))
				if want := map[contract]int{nginx: 403, forward: 400}[k]; a.status != want || a.header.Get("X-Auth-Reason") != "token_in_url" ||
					w.tokens.tokens[s.Presented().Public.ID()].Reason != token.Leaked {
					t.Errorf("%s, %s: %d %v", k.path(), form, a.status, a.header)
				}
				for _, e := range w.everyLine() {
					if strings.Contains(fmt.Sprintf("%+v", e), s.Reveal()) {
						t.Errorf("the trail holds a secret: %+v", e)
					}
				}
			}
		}
		for _, uri := range []string{"/files?token=ggwp", "/a%20b?x=%zz", "/%"} {
			if a := w.ask(t, get, k.path(), w.ann, "", name, uri); a.status != 200 {
				t.Errorf("%s: somebody else's parameter: %d %v", uri, a.status, a.header)
			}
		}
	}
}

// spellings are ways to write a secret into a URL.
var spellings = map[string]func(string) string{
	"plain":               func(s string) string { return s },
	"with an end":         func(s string) string { return s + ".json" },
	"two letters":         func(s string) string { return "%67%67" + s[2:] },
	"all of it":           func(s string) string { return escaped(s) },
	"twice":               func(s string) string { return strings.ReplaceAll(escaped(s), "%", "%25") },
	"beside a broken one": func(s string) string { return "%zz%" + escaped(s) + "%6" },
}

func escaped(s string) (out string) {
	for _, b := range []byte(s) {
		out += fmt.Sprintf("%%%02x", b)
	}
	return out
}

func (w *world) everyLine() []audit.Event {
	lines, _, refused := w.trail.take()
	return append(lines, refused...)
}

// TestForwardedWord: raw bytes on the wire, since a client library would tidy
// them up: no spelling of a forwarding header moves an unproxied client (A01).
func TestForwardedWord(t *testing.T) {
	w := build(t)
	p, _ := networks([]string{"203.0.113.9"})
	s := w.give("ann", func(k *token.Token) { k.CIDRs = p })
	names := []string{"X-Forwarded-For", "x-forwarded-for", "X_Forwarded_For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Forwarded-For ", "X-Forwarded"}
	values := []string{"203.0.113.9", "for=203.0.113.9", "203.0.113.9, 127.0.0.1", "127.0.0.1, 203.0.113.9", `"203.0.113.9"`, "::ffff:203.0.113.9", "203.0.113.9:80"}
	address := strings.TrimPrefix(w.public.URL, "http://")
	for _, name := range names {
		for _, value := range values {
			for _, extra := range []string{"", "Connection: X-Forwarded-For\r\n", name + ": " + value + "\r\n"} {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(c, "GET /authz/nginx HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s: %s\r\n%s\r\n", s.Reveal(), name, value, extra)
				status := make([]byte, 12)
				_, _ = c.Read(status)
				_ = c.Close()
				if strings.HasSuffix(string(status), "200") {
					t.Errorf("%s: %s moved the client", name, value)
				}
			}
		}
	}
}

// TestCanary: no answer, line or log holds a secret that was presented or made.
func TestCanary(t *testing.T) {
	w := build(t)
	var secrets []string
	keep := func(s token.Secret) token.Secret {
		secrets = append(secrets, s.Reveal())
		return s
	}
	for _, s := range []token.Secret{w.ann, w.bob, w.root, token.NewSecret(token.Personal), w.give("ann", func(k *token.Token) { k.Standing = token.Revoked })} {
		keep(s)
		for _, r := range table() {
			path := pathOf(r, "x")
			a := w.ask(t, methodOf(r), path, s, "", "User-Agent", "curl "+s.Reveal(), "X-Request-Id", s.Reveal(), "Idempotency-Key", s.Reveal()[:60])
			if strings.Contains(a.body+fmt.Sprint(a.header), s.Reveal()) {
				t.Errorf("%s %s gave the token back", r.method, r.path)
			}
			a = w.ask(t, methodOf(r), path, s, `{"`+s.Reveal()+`":"`+s.Reveal()+`"}`)
			if strings.Contains(a.body+fmt.Sprint(a.header), s.Reveal()) {
				t.Errorf("%s %s gave the body back: %s", r.method, r.path, a.body)
			}
		}
	}
	made := keep(secretOf(t, w.ask(t, post, "/v1/tokens/"+string(w.give("eve", nil, "tokens:self").Presented().Public.ID())+"/rotate", w.eve, ""), "secret"))
	w.ask(t, get, "/v1/whoami", made, "", "User-Agent", made.Reveal())
	text := fmt.Sprintf("%+v", w.everyLine()) + w.log.String() + fmt.Sprintf("%+v %+v", w.tokens.events, w.table.LastUse(w.annToken.ID))
	for _, s := range secrets {
		if strings.Contains(text, s) || strings.Contains(text, s[12:40]) {
			t.Errorf("a secret of kind %.6s was written down", s)
		}
	}
}
