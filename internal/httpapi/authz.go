package httpapi

import (
	"hash/maphash"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// contract is how a reverse proxy wants to be answered.
//
// nginx knows 2xx, 401 and 403, and makes 500 of everything else. So a limit
// and a bad request are 403, with the real status in X-Auth-Status and its
// reason in X-Auth-Reason for an error_page; trouble of ours stays 503, since
// 500 to the client is then the truth. Traefik and Caddy pass on what they
// get, so they get the real status and the problem document.
type contract uint8

const (
	nginx contract = iota
	forward
)

func (k contract) path() string {
	if k == nginx {
		return "/authz/nginx"
	}
	return "/authz/forward"
}

// fields are the headers in which the proxies of a contract say what they were
// asked for. Those of the other contract are the client's own words.
func (k contract) fields() (method, uri string) {
	if k == nginx {
		return "X-Original-Method", "X-Original-Uri"
	}
	return "X-Forwarded-Method", "X-Forwarded-Uri"
}

var errFieldTwice = fault.New(fault.Invalid, "proxy_field_twice", "The proxy names the method or the URI that it was asked for more than once.").
	WithFix("Let the proxy replace what its clients send: X-Original-Method and X-Original-URI for /authz/nginx, X-Forwarded-Method and X-Forwarded-Uri for /authz/forward.")

// identityFields are what a proxy may hand on to what lies behind it. The ones
// that a request brings along are never read. X-Auth-Competitions is there
// when the token is limited to some. With Cache-Control an answer has eight
// fields as a rule: net/http handles a map of up to eight at half the cost.
var identityFields = []string{
	"X-Auth-User-Id", "X-Auth-Username", "X-Auth-Token-Id", "X-Auth-Scopes", "X-Auth-Competitions",
	"X-Auth-Mode", "X-Token-Expires-In", "X-Request-Id",
}

// visit is one question of a proxy. It stays on the stack: this path is taken
// for every request to everything behind the proxy.
type visit struct {
	contract contract
	now      time.Time
	id       string
	peer     *peer
	addr     netip.Addr
	agent    string
	tried    bool
	shown    token.Presented
	method   string // what the proxy was asked for
	uri      string
	need     requirement
}

func (a *API) authz(w http.ResponseWriter, r *http.Request, k contract) {
	now := a.Now()
	p := a.peerOf(r)
	v := visit{
		contract: k, now: now, id: "req_" + authority.SortableID(now), peer: p,
		addr: p.client(a.proxies, r.Header), agent: p.agentOf(r.Header),
	}
	s, ref, err := a.admitVisit(&v, r)
	if err == nil {
		err = a.Recorder.Record(r.Context(), v.line(&s, r.Header), false)
		if err != nil {
			a.answerTrouble(w, r, v, err)
			return
		}
		a.Table.Used(&ref, now, v.addr, v.agent)
		a.let(w, &v, &s)
		return
	}
	a.deny(w, r, v, s, err)
}

// admitVisit is the whole decision.
func (a *API) admitVisit(v *visit, r *http.Request) (s policy.Subject, ref authn.Ref, err error) {
	if r.Method == http.MethodTrace {
		return s, ref, methodNotAllowed(nil)
	}
	if err = a.asked(v, r); err != nil {
		return s, ref, err
	}
	text, err := credential(r.Header)
	v.tried = err != errMissing //nolint:errorlint // credential returns it as it is
	if err != nil {
		return s, ref, err
	}
	p, err := a.Table.Read(text)
	if err != nil {
		return s, ref, malformed(err, len(text))
	}
	v.shown = p
	if s, ref, err = a.Table.Authenticate(p, v.addr); err != nil {
		return s, ref, err
	}
	if d, by := a.Limits.take(Verifying, &s, v.now); !d.Allowed { // before policy: what is refused counts as well
		return s, ref, limited(Verifying, by, d)
	}
	v.need = anyUse
	if r.URL.RawQuery != "" {
		if v.need, err = a.needed.of(r.URL.RawQuery); err != nil {
			return s, ref, err
		}
	}
	return s, ref, policy.Decide(&s, v.need.action, policy.Resource{Competition: v.need.competition})
}

// asked reads what the proxy was asked for, once per field and contract, and
// ends tokens of ours in it, whoever sent them.
func (a *API) asked(v *visit, r *http.Request) error {
	method, uri := v.contract.fields()
	methods, uris := r.Header[method], r.Header[uri]
	if err := a.leakedBehind(v, r, uris); err != nil {
		return err
	}
	if len(methods) > 1 || len(uris) > 1 {
		return errFieldTwice
	}
	if len(methods) == 1 {
		v.method = methods[0]
	}
	if len(uris) == 1 {
		v.uri = uris[0]
	}
	return nil
}

// line is the record of an allowed visit. Its route is what the proxy was
// asked for, without the query.
func (v *visit) line(s *policy.Subject, h http.Header) audit.Event {
	detail := observed(theirs(h), s)
	uri, _, _ := strings.Cut(v.uri, "?")
	return audit.Event{
		ID: "evt" + v.id[len("req"):], At: v.now, Action: audit.Request, Outcome: audit.Allow, Status: http.StatusOK,
		Actor: string(s.Principal.ID), Token: string(s.Token), Kind: s.Kind.String(), Mode: s.Mode, Target: s.Job,
		Addr: v.peer.text(v.addr), Agent: v.agent, Request: v.id, Detail: detail, Scope: v.need.action.Scope, Competition: contestOf(v.need.competition),
		Route: v.contract.path() + " " + v.method + " " + scrub(uri),
	}
}

// let answers that the request may pass, and who sends it.
func (a *API) let(w http.ResponseWriter, v *visit, s *policy.Subject) {
	h := w.Header()
	a.known.of(s).put(h)
	own := &[2]string{v.id, ""}
	h["X-Request-Id"] = own[0:1:1]
	h["Cache-Control"] = noStore
	h["X-Auth-Mode"] = modeOf(s)
	if !s.Until.IsZero() {
		own[1] = seconds(s.Until.Sub(v.now))
		h["X-Token-Expires-In"] = own[1:2:2]
	}
	w.WriteHeader(http.StatusOK)
	if a.Observe != nil {
		a.Observe(Observation{Route: v.contract.path(), Class: Verifying, Status: http.StatusOK, Took: a.Now().Sub(v.now)})
	}
}

// deny records a refusal and gives it.
func (a *API) deny(w http.ResponseWriter, r *http.Request, v visit, s policy.Subject, err error) {
	c := a.callOfVisit(w, r, v)
	c.subject, c.tried, c.shown = s, v.tried, v.shown
	if s.Principal.ID == "" {
		err = c.turnedAway(err)
	} else {
		c.proven = true
		f := fault.Of(err)
		e := c.event(audit.Request, audit.Deny)
		c.refusedFor(&e, f)
		e.Status = statusOf(f)
		if bad := c.record(e, false); bad != nil {
			err = bad
		}
	}
	c.answerVisit(v.contract, err)
}

func (a *API) answerTrouble(w http.ResponseWriter, r *http.Request, v visit, err error) {
	a.callOfVisit(w, r, v).answerVisit(v.contract, err)
}

func (a *API) callOfVisit(w http.ResponseWriter, r *http.Request, v visit) *call {
	h := w.Header()
	h["X-Request-Id"], h["Cache-Control"] = []string{v.id}, noStore
	return &call{
		ResponseWriter: w, api: a, route: a.routes[v.contract.path()], ctx: r.Context(),
		id: v.id, now: v.now, peer: v.peer, addr: v.addr, agent: v.agent, extra: theirs(r.Header), mute: true,
		header: r.Header, about: contestOf(v.need.competition), needs: v.need.action.Scope,
	}
}

func (c *call) answerVisit(k contract, err error) {
	f := fault.Of(err)
	status := statusOf(f)
	h := c.Header()
	h["X-Auth-Status"] = []string{seconds(time.Duration(status) * time.Second)}
	h["X-Auth-Reason"] = []string{f.Code}
	if k == forward {
		c.fail(err)
		return
	}
	c.refuse(err)
	switch {
	case status >= http.StatusInternalServerError:
		status = http.StatusServiceUnavailable
	case status != http.StatusUnauthorized:
		status = http.StatusForbidden
	}
	c.ResponseWriter.WriteHeader(status)
	c.observe(status)
}

// requirement is what a proxy's location asks for, in the query of its own
// configuration: /authz/nginx?scope=jobs:submit&competition=iris.
type requirement struct {
	action      policy.Action
	competition string
}

var anyUse = requirement{action: policy.Action{Name: "use", Own: true}}

// requirements remembers the few queries that proxies are configured with.
type requirements struct {
	known sync.Map // string → requirement
	n     atomic.Int32
}

// mostRequirements bounds what somebody could make us remember.
const mostRequirements = 256

func (q *requirements) of(raw string) (requirement, error) {
	if r, ok := q.known.Load(raw); ok {
		return r.(requirement), nil
	}
	bad := fault.New(fault.Invalid, "query_invalid", "The query of an authz route holds scope and competition, each once.").
		WithFix("Mend the proxy's configuration.")
	values, err := url.ParseQuery(raw)
	if err != nil {
		return anyUse, bad
	}
	out := anyUse
	for name, v := range values {
		switch {
		case len(v) != 1:
			return anyUse, bad
		case name == "scope":
			if out.action, err = actionNamed(v[0]); err != nil {
				return anyUse, err
			}
		case name == "competition":
			out.competition = v[0]
		default:
			return anyUse, bad
		}
	}
	if q.n.Load() < mostRequirements {
		q.n.Add(1)
		q.known.Store(raw, out)
	}
	return out, nil
}

// identity is the header values that tell who somebody is, ready to be used.
type identity struct {
	token    token.ID
	kind     token.Kind
	owner    principal.ID
	version  int64
	scopes   *string // the lists are recognised by where they lie: they never change in place
	lists    [2]int
	contests *string
	values   [5]string
}

// identities remembers identities in a table of fixed size without locks: a
// token that falls on another's place takes it.
type identities struct {
	seed  maphash.Seed
	slots []atomic.Pointer[identity]
}

func (m *identities) init() {
	m.seed, m.slots = maphash.MakeSeed(), make([]atomic.Pointer[identity], 4096)
}

func (m *identities) of(s *policy.Subject) *identity {
	key := string(s.Token)
	if key == "" {
		key = s.Job
	}
	slot := &m.slots[maphash.String(m.seed, key)%uint64(len(m.slots))]
	if i := slot.Load(); i != nil && i.is(s) {
		return i
	}
	i := &identity{
		token: s.Token, kind: s.Kind, owner: s.Principal.ID, version: s.Principal.Version,
		scopes: unsafe.SliceData(s.Scopes), contests: unsafe.SliceData(s.Competitions), lists: [2]int{len(s.Scopes), len(s.Competitions)},
		values: [5]string{
			string(s.Principal.ID), s.Principal.Name, string(s.Token), strings.Join(s.Scopes, " "), strings.Join(s.Competitions, " "),
		},
	}
	slot.Store(i)
	return i
}

func (i *identity) is(s *policy.Subject) bool {
	return i.token == s.Token && i.kind == s.Kind && i.owner == s.Principal.ID && i.version == s.Principal.Version &&
		i.scopes == unsafe.SliceData(s.Scopes) && i.contests == unsafe.SliceData(s.Competitions) &&
		i.lists == [2]int{len(s.Scopes), len(s.Competitions)}
}

// put sets the fields. The values lie in the identity, which nobody changes.
func (i *identity) put(h http.Header) {
	for n, name := range identityFields[:len(i.values)] {
		if i.values[n] != "" {
			h[name] = i.values[n : n+1 : n+1]
		}
	}
}
