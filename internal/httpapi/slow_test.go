package httpapi

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestSlow: a client that announces a body and does not send it holds nothing
// for long, whatever the route makes of the request (A05).
func TestSlow(t *testing.T) {
	w := build(t)
	w.api.bodyTime = 50 * time.Millisecond
	for _, c := range []struct{ line, body, want string }{
		{"GET /v1/whoami", "", " 200 "}, {"GET /authz/nginx", "", " 200 "}, {"GET /livez", "", " 200 "}, {"GET /nowhere", "", " 404 "},
		{"POST /v1/tokens", `{"na`, " 408 "}, {"POST /v1/users", "{", " 403 "}, {"POST /v1/leaks", "{", " 408 "},
		{"POST /v1/competitions/iris/jobs", "", " 415 "},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.public.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // the test's own patience
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n%s", c.line, w.ann.Reveal(), c.body)
		all, err := io.ReadAll(conn) // to the end: the server has to hang up
		if err != nil || !strings.Contains(string(all[:min(len(all), 20)]), c.want) {
			t.Errorf("%s: %.60q %v", c.line, all, err)
		}
		_ = conn.Close()
	}
}

// TestFlood: headers beyond any need are refused by net/http itself.
func TestFlood(t *testing.T) {
	w := build(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.public.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 30<<10))
	status := make([]byte, 12)
	if _, err := io.ReadFull(conn, status); err != nil || string(status) != "HTTP/1.1 431" {
		t.Errorf("%q %v", status, err)
	}
}
