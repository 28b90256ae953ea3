package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"gradegate/api"
)

// TestCrowd: one address that opens connections and says as little as it can
// keeps neither others from being served nor the server from its files (A05).
func TestCrowd(t *testing.T) {
	const files = 512 // open files that the server may have
	g := start(t, "policy: {max_per_user: 10}", files)
	f := front{address: g.address, host: "x"}
	const opened = 2 * files // more than the server could ever have
	closed := make(chan struct{}, opened)
	for range opened {
		go func() {
			if loris(t, f) {
				closed <- struct{}{}
			}
		}()
	}
	until(t, "the crowd is there, and some of it was sent away", func() bool { return len(closed) > opened/4 }, g.log)
	for i := range 5 { // meanwhile: reading, deciding, and a file for a job's upload
		if a := f.send(t, friend, variant{}.raw(authz, f.host, g.bound)); a.status != http.StatusOK {
			t.Fatalf("friend gets %d in the crowd\n%s", a.status, g.log)
		}
		if _, err := g.ann.CreateToken(context.Background(), api.CreateToken{Name: fmt.Sprint("n", i)}); err != nil {
			t.Fatalf("in the crowd: %v", err)
		}
	}
	until(t, "most of the crowd was sent away at once", func() bool { return len(closed) > opened-files/4 }, g.log)
	if log := g.log.String(); strings.Contains(log, "too many open files") {
		t.Errorf("the server ran out of files:\n%s", log)
	}
	g.stop() // it says what it closed, at the latest now
	if log := g.log.String(); strings.Count(log, "too many connections from one address") != 1 || !strings.Contains(log, "from="+stranger) {
		t.Errorf("the log does not say so once:\n%s", log)
	}
}

// loris begins a request and does not go on, and reports whether the server
// ended it long before a header has to be complete.
func loris(t *testing.T, f front) bool {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(stranger)}}
	c, err := d.DialContext(t.Context(), "tcp", f.address)
	if err != nil {
		return true
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	_ = c.SetReadDeadline(time.Now().Add(4 * time.Second)) // a header may take 5 s
	_, err = c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}
