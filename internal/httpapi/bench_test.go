package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/trail"
)

// busy is limits that a benchmark's one token does not reach.
func busy() *Limits {
	r := DefaultRates()
	for c := range r {
		r[c].Events, r[c].Burst = 1e9, 1e8
	}
	return NewLimits(r, 1<<12)
}

func withTrail(b *testing.B) func(*Deps) {
	var n atomic.Int64
	t, err := trail.Open(trail.Config{
		Dir: b.TempDir(), Key: keys.New([keys.Size]byte{7}), Now: clock.Wall, Log: slog.New(slog.DiscardHandler),
		NewID: func() string { return fmt.Sprintf("evt_%d", n.Add(1)) },
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = t.Close() })
	return func(d *Deps) { d.Recorder, d.Limits = t, busy() }
}

// load sends the same request over and over on 64 connections.
func load(b *testing.B, address string, headers ...string) {
	b.Helper()
	text := []byte("GET /authz/nginx HTTP/1.1\r\nHost: x\r\nUser-Agent: nginx\r\nX-Original-Method: GET\r\nX-Original-URI: /grade/1\r\n" +
		strings.Join(headers, "") + "\r\n")
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			b.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		r := bufio.NewReader(c)
		for p.Next() {
			if _, err := c.Write(text); err != nil {
				b.Error(err)
				return
			}
			line, err := r.ReadSlice('\n')
			if err != nil || !bytes.Contains(line, []byte(" 200 ")) {
				b.Errorf("%q %v", line, err)
				return
			}
			for len(line) > 2 { // neither has a body
				if line, err = r.ReadSlice('\n'); err != nil {
					b.Error(err)
					return
				}
			}
		}
	})
}

// BenchmarkAuthzNginx is the whole way of a proxy's question, over a socket,
// with the trail on disk. Compare it with BenchmarkEmpty of the same run.
func BenchmarkAuthzNginx(b *testing.B) {
	w := build(b, withTrail(b))
	load(b, strings.TrimPrefix(w.public.URL, "http://"), "Authorization: Bearer "+w.ann.Reveal()+"\r\n")
}

// BenchmarkEmpty is what net/http itself costs, asked and answered alike.
func BenchmarkEmpty(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	b.Cleanup(s.Close)
	load(b, strings.TrimPrefix(s.URL, "http://"), "Authorization: Bearer "+strings.Repeat("x", 67)+"\r\n")
}

// sink is a response that goes nowhere.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}

type deaf struct{}

func (deaf) Record(context.Context, audit.Event, bool) error { return nil }
func (deaf) Refused(context.Context, audit.Event) error      { return nil }

// BenchmarkAuthzHandler is our part of it alone: no socket and no disk.
func BenchmarkAuthzHandler(b *testing.B) {
	w := build(b, func(d *Deps) { d.Recorder, d.Limits = deaf{}, busy() })
	r := httptest.NewRequest(get, "/authz/nginx", nil)
	r.Header.Set("Authorization", "Bearer "+w.ann.Reveal())
	r.Header.Set("X-Original-Uri", "/grade/1")
	r = r.WithContext(context.WithValue(r.Context(), peerKey{}, &peer{addr: loopback()}))
	h, out := w.api.Public(), &sink{}
	b.ReportAllocs()
	for b.Loop() {
		out.h = make(http.Header, 12)
		h.ServeHTTP(out, r)
	}
}

// BenchmarkWhoami is a route that goes the long way.
func BenchmarkWhoami(b *testing.B) {
	w := build(b, func(d *Deps) { d.Recorder, d.Limits = deaf{}, busy() })
	r := httptest.NewRequest(get, "/v1/whoami", nil)
	r.Header.Set("Authorization", "Bearer "+w.ann.Reveal())
	h, out := w.api.Public(), &sink{}
	b.ReportAllocs()
	for b.Loop() {
		out.h = make(http.Header, 16)
		h.ServeHTTP(out, r)
	}
}

// BenchmarkAuthzNoTrail shows what of BenchmarkAuthzNginx is the trail.
func BenchmarkAuthzNoTrail(b *testing.B) {
	w := build(b, func(d *Deps) { d.Recorder, d.Limits = deaf{}, busy() })
	load(b, strings.TrimPrefix(w.public.URL, "http://"), "Authorization: Bearer "+w.ann.Reveal()+"\r\n")
}
