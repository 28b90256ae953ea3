package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// call is one request on its way: who asks, what was found out, and where the
// answer goes. It is the writer that handlers get, so that no byte of an
// answer leaves before the decision is in the trail.
type call struct {
	http.ResponseWriter
	api   *API
	door  listener
	route *route
	ctx   context.Context // of the request, for lines written with the answer

	id     string
	now    time.Time
	peer   *peer
	addr   netip.Addr
	agent  string
	extra  map[string]string // further facts for the line
	aim    string            // id of the thing that the path names
	about  string            // competition that it is about
	needs  string            // scope that a proxy asks for
	header http.Header       // of the request
	base   string            // the address by which the request came

	subject   policy.Subject
	ref       authn.Ref
	presented token.Secret // kept only where an answer may be asked for again
	shown     token.Presented

	tried     bool         // a credential was sent
	proven    bool         // the subject is known
	begun     bool         // the allow line is on disk already
	exchanges bool         // its form asks for a child of the token that it shows
	mute      bool         // the trail does not answer: it is not asked again
	refused   *fault.Error // why the answer is a refusal
	wrote     bool
	dropped   bool // what the handler writes goes nowhere
	upload    *patient
}

type callKey struct{}

// callOf finds the call of a context. Adapters use it; nothing behind them does.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// Unwrap gives http.ResponseController the real writer.
func (c *call) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// admit does what comes before any use case, in the order of cost and trust.
func (c *call) admit(r *http.Request) error {
	a, rt := c.api, c.route
	if rt.has(admins) && c.door == public && a.SeparateAdmin {
		return errNoRoute
	}
	if err := checkIdempotencyKey(r.Header); err != nil {
		return err
	}
	if rt.has(inForm) {
		return nil // the adapter of forms does the rest
	}
	if rt.has(open) {
		if err := c.limitAddress(); err != nil {
			return err
		}
		c.subject.Addr, c.subject.Agent, c.subject.Request = c.addr, c.agent, c.id
		return c.readJSON(r)
	}
	if err := c.authenticate(r.Header); err != nil {
		return err
	}
	c.tell()
	if err := c.limit(); err != nil { // before policy: what is refused counts as well
		return err
	}
	if rt.needs != nil {
		if err := policy.Decide(&c.subject, *rt.needs, policy.Resource{}); err != nil {
			return err
		}
	}
	return c.readJSON(r)
}

// begin is called when everything about the request is known to be in order
// and the use case is next: what changes something is written down first.
func (c *call) begin(ctx context.Context) error {
	if !c.route.has(changes) || !c.proven {
		return nil
	}
	err := c.api.Recorder.Record(ctx, c.event(audit.Request, audit.Allow), true)
	if err == nil {
		c.begun = true
		return nil
	}
	c.mute = true
	if c.route.has(tightens) {
		c.api.noted(err)
		return nil
	}
	return err
}

// decided writes the line of the decision, unless it is there already. An
// error means that the answer must not be given.
func (c *call) decided(status int) error {
	allowed := status < http.StatusBadRequest
	if c.route.has(unwritten) || !c.proven && !c.route.has(open) {
		return nil // about nobody, or counted as a refused credential
	}
	if !(allowed && c.begun) && !c.mute {
		e := c.event(audit.Request, outcome(allowed))
		e.Status = status
		if c.refused != nil {
			c.refusedFor(&e, c.refused)
		}
		if err := c.record(e, allowed); err != nil {
			c.mute = true
			if !c.route.has(tightens) {
				return err
			}
			c.api.noted(err)
		}
	}
	if allowed && c.proven {
		c.api.Table.Used(&c.ref, c.now, c.addr, c.agent)
	}
	return nil
}

// record writes a decision down. A refusal may be counted instead, unless the
// line that announced the request stands there already and would be believed.
func (c *call) record(e audit.Event, allowed bool) error {
	ctx := context.WithoutCancel(c.ctx) // the client may have gone; what was decided is written all the same
	if allowed || c.begun {
		return c.api.Recorder.Record(ctx, e, false)
	}
	return c.api.Recorder.Refused(ctx, e)
}

func outcome(allowed bool) audit.Outcome {
	if allowed {
		return audit.Allow
	}
	return audit.Deny
}

// aimed is the id in a path, if it is one: a name could be anything.
func aimed(s string) string {
	if len(s) > 40 || len(s) < 5 {
		return ""
	}
	switch s[:4] {
	case "tok_", "job_", "usr_":
	default:
		return ""
	}
	for _, b := range []byte(s[4:]) {
		if !unreserved(b) {
			return ""
		}
	}
	return s
}

// event is a line about this request.
func (c *call) event(a audit.Action, o audit.Outcome) audit.Event {
	e := audit.Event{
		ID: "evt_" + authority.SortableID(c.now), At: c.now, Action: a, Outcome: o,
		Addr: c.peer.text(c.addr), Agent: c.agent, Route: c.route.pattern(), Request: c.id, Detail: c.extra,
		Token: string(c.subject.Token), Mode: c.subject.Mode, Target: c.aim, Competition: c.about, Scope: c.needs,
	}
	if e.Target == "" {
		e.Target = c.subject.Job
	}
	if c.subject.Kind != 0 {
		e.Kind = c.subject.Kind.String()
	}
	if c.proven {
		e.Actor = c.subject.Actor()
	}
	e.Detail = observed(e.Detail, &c.subject)
	if job := c.subject.Job; job != e.Target && job != "" {
		e.Detail = with(e.Detail, "handle", job) // whose handle asked for another job
	}
	return e
}

// tell puts what a client should know of its credential into the answer.
func (c *call) tell() {
	h, s := c.Header(), &c.subject
	h["X-Auth-Mode"] = modeOf(s)
	if !s.Until.IsZero() {
		h["X-Token-Expires-In"] = []string{seconds(s.Until.Sub(c.now))}
		h["X-Token-Expires-Reason"] = []string{string(s.By)}
	}
	if !s.Due.IsZero() && !c.now.Before(s.Due) {
		h["X-Token-Rotate-By"] = []string{s.Due.UTC().Format(time.RFC3339)}
	}
	if g := c.api.Table.Guesses(s.Token); g.Count > 0 && c.now.Sub(g.Last) < guessNews {
		h["X-Token-Guesses"] = []string{strconv.FormatInt(g.Count, 10)}
	}
}

// guessNews is how long an owner is told of guesses with every answer.
const guessNews = 24 * time.Hour

var normal, quarantined = []string{"normal"}, []string{"quarantined"}

func modeOf(s *policy.Subject) []string {
	switch s.Mode {
	case "":
		return normal
	case "quarantined":
		return quarantined
	}
	return []string{s.Mode}
}

func seconds(d time.Duration) string { return strconv.FormatInt(max(0, int64(d/time.Second)), 10) }

// refuse turns an error into the problem that the client sees, and sets the
// header fields that go with it.
func (c *call) refuse(err error) *problem {
	f := fault.Of(err)
	switch f.Kind {
	case fault.Internal:
		c.api.Logger.Error("a request failed", "request", c.id, "route", c.route.pattern(), "error", scrub(err.Error()))
	case fault.Unavailable:
		c.api.Logger.Warn("a request met trouble of ours", "request", c.id, "route", c.route.pattern(), "error", scrub(err.Error()))
	}
	c.refused = f
	if h := c.Header(); f.RetryAfter > 0 && f.More[violated] == nil {
		// They are about a limit that was kept, and must not promise an earlier time.
		delete(h, "Ratelimit")
		delete(h, "Ratelimit-Policy")
	}
	setHeaders(c.Header(), f, c.tried, c.api.issuer(c))
	return &problem{fault: f, id: c.id}
}

// fail answers with a problem.
func (c *call) fail(err error) {
	if c.wrote {
		c.refuse(err)
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	p := c.refuse(err)
	c.Header().Set("Content-Type", problemType)
	c.WriteHeader(p.GetStatus())
	_ = json.NewEncoder(c).Encode(p) // a client that has gone needs no answer
}

// json answers with a value.
func (c *call) json(status int, v any) error {
	if tag := etag(v); tag != "" {
		c.Header().Set("ETag", tag)
	}
	c.Header().Set("Content-Type", "application/json")
	c.WriteHeader(status)
	if err := encode(c, v); err != nil {
		return fault.Of(err)
	}
	return nil
}

// WriteHeader lets an answer out, if its decision could be written down.
func (c *call) WriteHeader(status int) {
	if c.wrote {
		return
	}
	if status < http.StatusOK {
		c.ResponseWriter.WriteHeader(status)
		return
	}
	if c.route.has(long) {
		c.extend()
	}
	err := c.decided(status)
	c.wrote = true
	if err != nil {
		c.dropped = true
		p := c.refuse(err)
		status = p.GetStatus()
		h := c.Header()
		h.Del("Content-Length")
		h.Del("ETag")
		h.Set("Content-Type", problemType)
		c.ResponseWriter.WriteHeader(status)
		_ = json.NewEncoder(c.ResponseWriter).Encode(p) // a client that has gone needs no answer
	} else {
		c.ResponseWriter.WriteHeader(status)
	}
	c.observe(status)
}

func (c *call) Write(b []byte) (int, error) {
	if !c.wrote {
		c.WriteHeader(http.StatusOK)
	}
	if c.dropped {
		return len(b), nil
	}
	if c.route.has(long) {
		c.extend()
	}
	return c.ResponseWriter.Write(b)
}

// extend gives an answer, or the next bytes of a long one, time to leave.
func (c *call) extend() {
	_ = http.NewResponseController(c.ResponseWriter).SetWriteDeadline(time.Now().Add(answerTime)) // not every test writer has one
}

// rest takes the deadline off the connection, for what comes over it next.
func (c *call) rest() {
	_ = http.NewResponseController(c.ResponseWriter).SetWriteDeadline(time.Time{}) // as above
}

func (c *call) observe(status int) {
	if c.api.Observe == nil {
		return
	}
	o := Observation{Route: c.route.pattern(), Class: c.route.class, Status: status, Mode: c.subject.Mode, Took: c.api.Now().Sub(c.now)}
	if c.refused != nil {
		o.Code = c.refused.Code
	}
	c.api.Observe(o)
}

// checkIdempotencyKey refuses keys that could not be told apart later.
func checkIdempotencyKey(h http.Header) error {
	values := h["Idempotency-Key"]
	if len(values) == 0 {
		return nil
	}
	bad := len(values) > 1 || values[0] == "" || len(values[0]) > 255
	for _, b := range []byte(values[0]) {
		bad = bad || b <= ' ' || b >= 0x7f
	}
	if bad {
		return fault.New(fault.Invalid, "idempotency_key_invalid", "An Idempotency-Key has 1 to 255 visible ASCII characters, and there is one at most.").
			WithFix("Use a random one for each request, such as a UUID.")
	}
	return nil
}
