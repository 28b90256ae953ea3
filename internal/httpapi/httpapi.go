// Package httpapi is the JSON API: what a client says over HTTP becomes a call
// of a use case, and what the use case answers becomes a response.
//
// One request goes this way, and no route can leave a step out:
//
//	front      request id, canonical path, no token in the URL, panics
//	admit      credential → subject; limits; policy; body read and checked
//	begin      what changes something is written to the trail, durably, first
//	use case   a plain function of (ctx, subject, request)
//	decided    the line of the decision is written; then the answer
//
// A request that changes something has its allow line on disk before the use
// case runs, and so without a status; if the use case refuses after all, a
// deny line of the same request follows. Every other request has one line, and
// it is written between the decision and the first byte of the answer. When no
// line can be written the answer is 503 and nothing was carried out, except
// for what only takes rights away: a full disk must not protect a thief. The
// use case of a route without a credential runs before its line: what it
// changes has lines of its own, written by the store with the change.
//
// The routes are one table (routes.go), the mapping of faults to statuses is
// one function (problem.go), and the two routes that reverse proxies call for
// every request of theirs go round all of this for speed (authz.go).
package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/block"
	"gradegate/internal/clock"
	"gradegate/internal/grading"
	"gradegate/internal/maintenance"
	"gradegate/internal/principal"
	"gradegate/internal/ratelimit"
	"gradegate/internal/token"
)

// Recorder is the audit trail, as requests need it. It is safe for concurrent
// use. Record returns when the line is on disk: with the kernel, or, if
// durable, beyond a power cut. Refused is for refusals; of many alike, by the
// same token or from the same source, it may count instead of write. Errors are
// Unavailable faults.
type Recorder interface {
	Record(ctx context.Context, e audit.Event, durable bool) error
	Refused(ctx context.Context, e audit.Event) error
}

// Clock is a clock that may doubt the machine's.
type Clock interface {
	Ahead() time.Duration
	// Confirm believes the wall clock as it stands.
	Confirm()
}

// Deps is everything that the API needs. Members that say so may be nil.
type Deps struct {
	Table       *authn.Table
	Authority   *authority.Authority
	Grading     *grading.Grading
	Maintenance *maintenance.Maintenance // nil: there is no archive
	Recorder    Recorder
	Failures    *ratelimit.Failures
	Blocks      *block.List // nil: it follows no store
	Limits      *Limits
	Now         clock.Func
	Logger      *slog.Logger

	// TrustedProxies may speak for their clients, in ProxyHeader and in no
	// other header. By default nobody may.
	TrustedProxies []netip.Prefix
	ProxyHeader    string // default X-Forwarded-For
	PublicURL      string
	Version        string
	// SeparateAdmin leaves the administrators' routes off the public listener.
	SeparateAdmin bool

	Health  func(context.Context) api.Health // nil: always ok
	Clock   Clock                            // nil: it is always believed
	Metrics http.Handler                     // nil: no /metrics
	Observe func(Observation)                // nil: nobody counts; must not block
	Failed  func(Failure)                    // nil: nobody keeps a log; must not block
	// Name gives the name of a user for leaderboards; nil: the table is asked.
	Name func(context.Context, principal.ID) string

	TrailKey string // text of the verifying key
	Search   func(context.Context, AuditQuery) ([]api.AuditEvent, error)
	// Lines goes through the lines of a stream in the order in which they were
	// written, and tells when the oldest that is still there happened.
	Lines      func(context.Context, Lines, func(*audit.Event) error) (begins time.Time, err error)
	Checkpoint func(stream string) ([]byte, error)
	Retention  Retention // of the trail; nil: it is kept for ever
}

// Retention drops from the trail what is older than it is kept, and knows what
// was dropped.
type Retention interface {
	// Trim drops whole segments, in the name of an actor, or, if dry, says which
	// would be. It refuses while anything is in doubt.
	Trim(ctx context.Context, actor string, dry bool) ([]api.Trim, error)
	// Trims are the signed records, oldest first.
	Trims() ([]api.Trim, error)
}

// Observation is what metrics learn of one request.
type Observation struct {
	Route  string // the pattern, never the path
	Class  Class
	Status int
	Code   string // of the refusal
	Mode   string // of the subject: empty, quarantined, expired-read or replay
	Took   time.Duration
}

// AuditQuery selects lines of the trail; zero members do not select.
type AuditQuery struct {
	Stream, User, Actor, Token, Target, Owner, Action, Outcome, Addr, Request, Reason string
	Since, Until                                                                      time.Time
	Limit                                                                             int
}

// Lines selects what is read of a stream: from Since to before Until (zero: to
// the end), and, if Text is given, what has that in it.
type Lines struct {
	Stream       string
	Since, Until time.Time
	Slack        time.Duration // how much later than it happened a line may be written; 0: a day
	Text         string
}

// API serves the three listeners. It is safe for concurrent use.
type API struct {
	Deps
	mux     *http.ServeMux
	spec    *huma.OpenAPI
	text    []byte // of the specification
	routes  map[string]*route
	proxies *proxies
	known   identities
	needed  requirements

	alerts *ratelimit.Buckets[token.ID] // of rotated tokens that were presented

	readings    chan struct{} // taken by whoever may read all of the trail, and reads weeks of it
	ownReadings chan struct{} // and by whoever looks for their own in them
	lookups     chan struct{} // and by whoever looks for one request in it
	followEvery time.Duration // how often a followed log looks for more
	bodyTime    time.Duration // how long a client may take to send a small body
	closing     chan struct{} // closed when followed logs are to end
	closeOnce   sync.Once
}

// New makes the API. It panics when two routes collide, which no
// configuration can cause.
func New(d Deps) (*API, error) {
	if d.Limits == nil {
		d.Limits = NewLimits(DefaultRates(), 1<<17)
	}
	if d.Failures == nil {
		d.Failures = ratelimit.NewFailures(mostSources)
	}
	if d.Blocks == nil {
		d.Blocks = block.New(d.TrustedProxies)
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Name == nil {
		d.Name = func(_ context.Context, id principal.ID) string { return d.Table.NameOf(id) }
	}
	p, err := newProxies(d.TrustedProxies, d.ProxyHeader)
	if err != nil {
		return nil, err
	}
	a := &API{
		Deps: d, alerts: ratelimit.NewBuckets[token.ID](alertAgain, mostAlerts), mux: http.NewServeMux(), routes: map[string]*route{}, proxies: p,
		readings: make(chan struct{}, 2), ownReadings: make(chan struct{}, 1), lookups: make(chan struct{}, 8), followEvery: time.Second, bodyTime: 10 * time.Second, closing: make(chan struct{}),
	}
	a.known.init()
	return a, a.mount()
}

// Public serves everybody.
func (a *API) Public() http.Handler { return front{a, public} }

// Admin serves what Public does, the administrators' routes and /metrics.
func (a *API) Admin() http.Handler { return front{a, admin} }

// Local serves the server's own socket. Whoever may open it is the local
// administrator, known by the uid of the peer (see ConnContext).
func (a *API) Local() http.Handler { return front{a, local} }

// Server makes a server with limits that a slow or loud client cannot stretch.
// Reading a body and writing an answer have deadlines of their own, so that
// the answers to proxies, which fit any buffer, do without.
func (a *API) Server(h http.Handler) *http.Server {
	s := &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            5 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               16 << 10,
		ConnContext:                  a.ConnContext,
		ErrorLog:                     slog.NewLogLogger(a.Logger.Handler(), slog.LevelDebug),
		DisableGeneralOptionsHandler: true, // OPTIONS * is a path like any other: refused
		// Connections are counted, streams on them are not; 250 would be usual.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 32},
	}
	s.RegisterOnShutdown(a.Close)
	return s
}

// Close ends the logs that are being followed, so that a server can stop.
func (a *API) Close() { a.closeOnce.Do(func() { close(a.closing) }) }

// mostAlerts bounds for how many tokens it is remembered that an alert was raised.
const mostAlerts = 1 << 12

// answerTime is how long an answer may take, from the request's header to its
// last byte; streams extend it as they make progress.
const answerTime = time.Minute
