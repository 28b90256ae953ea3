package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gradegate/api"
	"gradegate/internal/fault"
)

// Files in the data folder while the server runs: its own socket, and the URL at
// which others reach it, for whoever passes it on.
const (
	SocketName  = "admin.sock"
	AddressName = "address"
)

// door is one listener with its handler.
type door struct {
	listener net.Listener
	server   *http.Server
}

// serve opens the doors, says so, and works until ctx ends.
func (s *Server) serve(ctx context.Context, stdout, stderr io.Writer) error {
	doors, err := s.doors()
	if err != nil {
		return err
	}
	invite, err := s.firstAdministrator(ctx)
	if err != nil {
		return errors.Join(err, shut(doors))
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var background sync.WaitGroup
	background.Go(func() { s.grading.Run(work) })
	background.Go(func() { s.pump(work, s.tokens) })
	background.Go(func() { s.pump(work, s.jobs) })
	background.Go(func() { s.keepUses(work) })
	background.Go(func() { s.keepGuesses(work) })
	if s.failures != nil {
		background.Go(func() { s.failures.run(work) })
	}
	background.Go(func() { s.maintenance.Run(work) })
	background.Go(func() { s.maintenance.Watch(work) })
	background.Go(func() { s.reportRefused(work) })
	background.Go(func() { s.trimDaily(work) })

	failed := make(chan error, len(doors))
	for _, d := range doors {
		go func() { failed <- d.server.Serve(d.listener) }()
	}
	address := filepath.Join(s.cfg.Data, AddressName)
	if err := os.WriteFile(address, []byte(s.url(doors[0].listener.Addr())+"\n"), 0o600); err != nil {
		s.log.Warn("the address could not be left in the data folder", "error", err)
	}
	defer func() { _ = os.Remove(address) }() // it is a courtesy
	s.greet(stdout, doors[0].listener.Addr())
	if !invite.IsZero() {
		fmt.Fprintf(stderr, "\nThe first administrator comes in with this one-time code (24 h):\n  gradegate login --url %s --invite %s\n\n",
			s.url(doors[0].listener.Addr()), invite.Reveal())
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	}
	s.api.Close()
	err = errors.Join(err, shut(doors))
	stop()
	background.Wait()
	return err
}

// doors opens the listeners: the public one, the administrators' one if it is
// configured, and the local socket. Only the local one has no bound: whoever
// may open it could stop the server as well, and it has to work when the others
// are full.
func (s *Server) doors() ([]door, error) {
	var doors []door
	add := func(l net.Listener, h http.Handler) {
		server := s.api.Server(h)
		watch(server)
		doors = append(doors, door{l, server})
	}
	room := boundsFor(descriptors())
	l, err := s.tcp(s.cfg.Listen, room)
	if err != nil {
		return nil, err
	}
	add(l, s.api.Public())
	if s.cfg.AdminListen != "" {
		if l, err = s.tcp(s.cfg.AdminListen, room.beside()); err != nil {
			return nil, errors.Join(err, shut(doors))
		}
		add(l, s.api.Admin())
	}
	if l, err = s.socket(); err != nil {
		return nil, errors.Join(err, shut(doors))
	}
	add(l, s.api.Local())
	return doors, nil
}

func (s *Server) tcp(addr string, room bounds) (net.Listener, error) {
	proxies, err := s.cfg.Proxies()
	if err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: impatient(unreadTime)}
	socket, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "listen", fmt.Sprintf("Cannot listen on %s: %v.", addr, err), err).
			WithFix("Stop what uses the address, or take another: --listen 127.0.0.1:0")
	}
	l := newBounded(socket.(*net.TCPListener), room, proxies, &s.crowd)
	s.bounded = append(s.bounded, l)
	if s.cfg.TLS.Cert == "" {
		return l, nil
	}
	c := &certificate{cert: s.cfg.TLS.Cert, key: s.cfg.TLS.Key}
	if _, err := c.get(nil); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// socket opens the local socket. The data folder's lock is ours, so that a
// socket file that is there is one that a crash left behind.
func (s *Server) socket() (net.Listener, error) {
	path := filepath.Join(s.cfg.Data, SocketName)
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, "listen", fmt.Sprintf("Cannot make the socket %s: %v.", path, err), err).
			WithFix("Use a data folder with a path of less than 90 characters.")
	}
	// The folder is 0700, so that nobody gets in between.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// shutTime is how long requests under way may take when the server stops.
const shutTime = 10 * time.Second

func shut(doors []door) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutTime)
	defer cancel()
	var errs []error
	for _, d := range doors {
		if err := d.server.Shutdown(ctx); err != nil {
			errs = append(errs, d.server.Close())
		}
		_ = d.listener.Close() // a server that never served has not closed it
	}
	return errors.Join(errs...)
}

// certificate is read again when its file changes.
type certificate struct {
	cert, key string
	mu        sync.Mutex
	at        time.Time
	loaded    *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.cert)
	if err == nil && c.loaded != nil && info.ModTime().Equal(c.at) {
		return c.loaded, nil
	}
	pair, e := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil || e != nil {
		if c.loaded != nil {
			return c.loaded, nil // a half-replaced pair: the old one goes on
		}
		return nil, fault.Wrap(fault.Invalid, "tls", "The certificate cannot be read.", errors.Join(err, e)).WithFix("Check tls.cert and tls.key.")
	}
	c.loaded, c.at = &pair, info.ModTime()
	return c.loaded, nil
}

// url is how clients reach the public listener.
func (s *Server) url(a net.Addr) string {
	if s.cfg.PublicURL != "" {
		return s.cfg.PublicURL
	}
	scheme := "http://"
	if s.cfg.TLS.Cert != "" {
		scheme = "https://"
	}
	return scheme + a.String()
}

// greet says in a few lines what runs where, and what is worth doing next.
func (s *Server) greet(w io.Writer, a net.Addr) {
	say := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s "+format+"\n", append([]any{name}, args...)...)
	}
	say("gradegate", "%s on %s", Version, s.url(a))
	engine := "SQLite"
	if s.cfg.Database.Tokens != "" {
		engine = "PostgreSQL"
	}
	things := "tokens"
	if s.table.Len() == 1 {
		things = "token"
	}
	say("data", "%s (%s, %d %s)", s.cfg.Data, engine, s.table.Len(), things)
	say("ledger", "%s%s", s.cfg.Path(s.cfg.Ledger.Dir, "ledger"), s.sameDisk())
	say("audit", "%s, sync %s", s.cfg.Path(s.cfg.Audit.Dir, "audit"), s.cfg.Audit.Sync)
	say("jobs", "%s: %s", s.cfg.Executor.Kind, s.isolation)
	if r := s.tokens.Report(); r.Loud() {
		for _, note := range r.Notes[:min(len(r.Notes), 4)] {
			say("recovered", "%s", note)
		}
	}
	say("manage", "gradegate user invite NAME --data %s", s.cfg.Data)
}

// Health tells how each part is. What is degraded still serves.
func (s *Server) health(context.Context) api.Health {
	h := api.Health{Status: "ok", Checks: map[string]api.Check{}}
	put := func(name string, err error) {
		c := api.Check{Status: "ok", Since: s.started}
		if err != nil {
			c.Status, h.Status = "degraded", "degraded"
			c.Detail = "Not working; see the server's log."
		}
		h.Checks[name] = c
	}
	database, ledger := s.tokens.State()
	put("database", database)
	put("ledger", ledger)
	put("audit", s.trail.Health())
	var sandbox error
	if s.isolation.Kind == "" {
		sandbox = errors.New("programs are refused")
	}
	put("executor", sandbox)
	var leapt error
	if s.clock.Ahead() > 0 {
		leapt = errors.New("the wall clock is not believed")
	}
	put("clock", leapt)
	h.Checks["sweep"], h.Checks["growth"] = s.sweepHealth(), s.growthHealth()
	if h.Checks["growth"].Status != "ok" {
		h.Status = "degraded"
	}
	return h
}
