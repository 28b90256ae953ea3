package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// lies are the header fields of the orderly variants, as far as they have a form
// in HTTP/2, and some that need more than one field.
func lies() (all []http.Header) {
	for _, v := range variants() {
		name, value, ok := strings.Cut(strings.TrimSuffix(v.lines, "\r\n"), ": ")
		if ok && !v.broken && v.first == "" && !strings.Contains(value, "\r\n") && !strings.EqualFold(name, "Connection") && v.body == "" {
			all = append(all, http.Header{name: {value}})
		}
	}
	return append(all,
		http.Header{"x-forwarded-for": {friend}, "X-Forwarded-For": {friend}, "X-FORWARDED-FOR": {friend}},
		http.Header{"X-Forwarded-For": {friend, "", stranger, friend}},
		http.Header{"X-Forwarded-For": {strings.Repeat(friend+", ", 20), friend}, "X_Forwarded_For": {friend}, "Forwarded": {"for=" + friend}},
		http.Header{"Forwarded": {`for="` + friend + `:1";by=` + proxyIP, "for=" + friend}, "Via": {"2 " + friend}},
	)
}

// TestForgedOverHTTP2: what clients say about their address in HTTP/2 is believed
// as little (R2.2).
func TestForgedOverHTTP2(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (*grader, front){
		"direct": func(t *testing.T) (*grader, front) {
			cert, key := certify(t)
			t.Setenv("GRADEGATE_CA_FILE", cert)
			g := start(t, "tls: {cert: "+cert+", key: "+key+"}", 0)
			return g, front{address: g.address, roots: trusting(t, cert).TLSClientConfig.RootCAs, host: g.address}
		},
		"haproxy": func(t *testing.T) (*grader, front) {
			g := start(t, block(t, "# Behind nginx or HAProxy", "yaml"), 0)
			return g, behindHAProxy(t, g)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, f := open(t)
			if a := f.ask2(t, f.over2(friend), authz, g.bound, nil); a.status != http.StatusOK {
				t.Fatalf("friend is not let in: %+v", a)
			}
			client, sent := f.over2(stranger), 0
			for _, lie := range lies() {
				a := f.ask2(t, client, whoami, g.free, lie)
				if a.status == 0 {
					continue // it has no form in HTTP/2
				}
				sent++
				if a.ip() != stranger {
					t.Errorf("%.80q: stranger is taken for %q: %d %.200q", lie, a.ip(), a.status, a.body)
				}
				if a := f.ask2(t, client, authz, g.bound, lie); a.status != http.StatusForbidden {
					t.Errorf("%.80q: friend's token is answered %d", lie, a.status)
				}
			}
			if sent < 200 {
				t.Errorf("only %d were sent", sent)
			}
		})
	}
}

// over2 is a client that speaks HTTP/2 from an address of its own.
func (f front) over2(from string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	return &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: f.roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", f.address)
		},
	}}
}

// ask2 sends one request; status 0: the client cannot say that.
func (f front) ask2(t *testing.T, client *http.Client, path, secret string, lie http.Header) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+f.host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, lie)
	r.Header.Set("Authorization", "Bearer "+secret)
	resp, err := client.Do(r)
	if err != nil {
		if strings.Contains(err.Error(), "invalid header") {
			return answer{}
		}
		t.Fatalf("%.80q: %v", lie, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ProtoMajor != 2 {
		t.Fatal("not over HTTP/2")
	}
	body, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}
}
