package httpapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
)

// listener is the door that a request came in by.
type listener uint8

const (
	public listener = iota
	admin
	local
)

// front is what every request meets first, before any route is looked up.
type front struct {
	*API
	door listener
}

func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		// A body that nobody reads must not hold the connection either.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(f.bodyTime)) // not every test writer has one
	}
	if len(r.TransferEncoding) > 0 {
		// net/http hides whether a Content-Length stood beside it. RFC 9112 wants
		// the connection closed then (6.3); so nothing of this one is a next request.
		w.Header().Set("Connection", "close")
	}
	if k, ok := f.asks(r); ok {
		defer f.recovered(w, r, nil)
		f.authz(w, r, k)
		return
	}
	c := f.newCall(w, r, f.door)
	defer f.recovered(w, r, c)
	c.extend()
	defer c.rest()
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	if err := f.acceptable(c, r); err != nil {
		c.fail(err)
		return
	}
	f.mux.ServeHTTP(c, r)
}

// asks says whether the request is a proxy's question. A path in another
// encoding and a secret in the URL go the long way, and are refused there.
func (f front) asks(r *http.Request) (k contract, ok bool) {
	switch {
	case f.door == local || r.URL.RawPath != "":
		return k, false
	case r.URL.Path == nginx.path():
		k = nginx
	case r.URL.Path == forward.path():
		k = forward
	default:
		return k, false
	}
	return k, tokensIn(r.RequestURI) == nil
}

func (a *API) newCall(w http.ResponseWriter, r *http.Request, door listener) *call {
	now := a.Now()
	p := a.peerOf(r)
	c := &call{
		ResponseWriter: w, api: a, door: door, route: nowhere, now: now, peer: p,
		id: "req_" + authority.SortableID(now), addr: p.client(a.proxies, r.Header), agent: p.agentOf(r.Header), header: r.Header,
	}
	c.ctx, c.extra, c.base = r.Context(), theirs(r.Header), "http://"+r.Host
	if r.TLS != nil {
		c.base = "https://" + r.Host
	}
	h := w.Header()
	h["X-Request-Id"] = []string{c.id}
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	h["Referrer-Policy"] = noReferrer
	return c
}

// theirs is the id that a client gave its request: a fact for the line, and
// never the id that we go by.
func theirs(h http.Header) map[string]string {
	v := h["X-Request-Id"]
	if len(v) == 0 || v[0] == "" {
		return nil
	}
	return map[string]string{"client_request": scrub(audit.Clean(v[0], 64))}
}

// observed adds that a use came from outside the networks of a policy that only
// observes.
func observed(detail map[string]string, s *policy.Subject) map[string]string {
	if s.Outside == "" {
		return detail
	}
	return with(detail, "outside", s.Outside)
}

// with is the facts of a line and one more.
func with(detail map[string]string, name, value string) map[string]string {
	out := map[string]string{name: value}
	maps.Copy(out, detail)
	return out
}

// Header values that never change; nobody appends to them.
var (
	noStore    = []string{"no-store"}
	noSniff    = []string{"nosniff"}
	noReferrer = []string{"no-referrer"}
)

// recovered answers for a handler that gave up. Nothing of the request but its
// route is logged, since headers and bodies hold secrets.
func (a *API) recovered(w http.ResponseWriter, r *http.Request, c *call) {
	v := recover()
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	if c == nil {
		c = a.newCall(w, r, public)
	}
	a.Logger.Error("a handler panicked", "request", c.id, "route", c.route.pattern(), "panic", scrub(fmt.Sprint(v)), "stack", string(debug.Stack()))
	if c.wrote {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	c.fail(fault.Of(errors.New("panic")))
}

// acceptable refuses what no route should ever see.
func (a *API) acceptable(c *call, r *http.Request) error {
	// First of all, since a secret is out whatever else is wrong with the request.
	if secrets := tokensIn(r.RequestURI); secrets != nil || namesToken(r.URL) {
		a.leakedInURL(c, secrets)
		return errTokenInURL
	}
	if r.Method == http.MethodTrace || r.Method == http.MethodConnect {
		return methodNotAllowed(nil)
	}
	if !canonical(r.URL) {
		return errPath
	}
	return nil
}

var (
	errPath = fault.New(fault.Invalid, "path_not_canonical",
		"The path is not in its one plain form: no empty, . or .. segments, no ; or \\, and nothing encoded that need not be.").
		WithFix("Write the path as the documentation does; encode each segment by itself.")
)

// canonical reports whether the path has exactly one reading. Two programs
// that read a path differently are how access rules are got round.
func canonical(u *url.URL) bool {
	p := u.Path
	if p == "" || p[0] != '/' || strings.Contains(p, "//") || strings.ContainsAny(p, ";\\") {
		return false
	}
	for i := 0; i < len(p); i++ {
		if p[i] < ' ' || p[i] == 0x7f {
			return false
		}
		if p[i] == '/' && (at(p, i+1, "./") || at(p, i+1, "../") || p[i+1:] == "." || p[i+1:] == "..") {
			return false
		}
	}
	// RawPath is set only when the path came in an encoding of its own.
	for raw := u.RawPath; ; {
		_, rest, found := strings.Cut(raw, "%")
		if !found {
			return true
		}
		if len(rest) < 2 || unreserved(unhex(rest[0])<<4|unhex(rest[1])) {
			return false
		}
		raw = rest[2:]
	}
}

func at(s string, i int, prefix string) bool { return strings.HasPrefix(s[i:], prefix) }

// unreserved characters need no encoding, and a slash must have none.
func unreserved(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("-._~/\\;", c) >= 0
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0
}

// nowhere is the row of requests that no route was found for.
var nowhere = &route{is: open | unwritten, path: "(none)"}

// methods are those that some route has.
var methods = []string{get, http.MethodHead, post, put, http.MethodPatch, del}

// nowhere answers for paths that do not exist and methods that a path lacks.
func (a *API) nowhere(_ http.ResponseWriter, r *http.Request) {
	c := callOf(r.Context())
	var allowed []string
	for _, m := range methods {
		probe := &http.Request{Method: m, URL: r.URL, Host: r.Host}
		if _, pattern := a.mux.Handler(probe); pattern != "/" {
			allowed = append(allowed, m)
		}
	}
	e := c.event(audit.Request, audit.Deny)
	if len(allowed) > 0 {
		e.Reason = "method_not_allowed"
		a.noted(a.Recorder.Refused(c.ctx, e))
		c.fail(methodNotAllowed(allowed))
		return
	}
	e.Reason = errNoRoute.Code
	a.noted(a.Recorder.Refused(c.ctx, e))
	c.fail(errNoRoute)
}

var errNoRoute = fault.New(fault.NotFound, "route_not_found", "There is nothing at this path.").
	WithFix("GET /openapi.json lists all paths.")

func methodNotAllowed(allowed []string) *fault.Error {
	f := fault.New(fault.Invalid, "method_not_allowed", "The path does not know this method.")
	if len(allowed) > 0 {
		f = f.With("allow", allowed).WithFix("Use one of: %s", strings.Join(allowed, ", "))
	}
	return f
}

// noted logs that a refusal could not be written down. The refusal stands.
func (a *API) noted(err error) {
	if err != nil {
		a.Logger.Warn("a refusal was not recorded", "error", scrub(err.Error()))
	}
}
