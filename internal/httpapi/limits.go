package httpapi

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/ratelimit"
	"gradegate/internal/token"
)

// Class groups routes that share a limit. Canceling has its own, so that
// whoever floods with a stolen token cannot keep its owner from stopping jobs.
type Class uint8

// The classes. Without a credential, which is always so when leaks are reported,
// a request is limited by address.
const (
	Reading Class = iota
	Changing
	Submitting
	Canceling
	Verifying
	Reporting // of leaks, without a credential
	Enrolling // with a one-time code
	classes
)

var classNames = [classes]string{"read", "change", "submit", "cancel", "verify", "report", "enrol"}

// String is the class's name in header fields and metrics.
func (c Class) String() string { return classNames[min(c, classes-1)] }

// Rates is what one token may do in each class, and one address without a token.
// All tokens of a user together may do three times that.
type Rates [classes]ratelimit.Limit

const userTimes = 3

// DefaultRates leaves room for scripts and holds up floods.
func DefaultRates() Rates {
	per := func(events, burst int, d time.Duration) ratelimit.Limit {
		return ratelimit.Limit{Events: events, Burst: burst, Per: d}
	}
	return Rates{
		Reading:    per(1200, 200, time.Minute),
		Changing:   per(600, 200, time.Minute),
		Submitting: per(120, 100, time.Minute),
		Canceling:  per(600, 200, time.Minute),
		Verifying:  per(120_000, 10_000, time.Minute), // a proxy asks for every file of a page
		Reporting:  per(60, 60, time.Hour),
		Enrolling:  per(60, 60, time.Minute),
	}
}

// Limits counts requests by token, user and address. It is safe for concurrent use.
type Limits struct {
	rates   Rates
	byToken [classes]*ratelimit.Buckets[string]
	byUser  [classes]*ratelimit.Buckets[string]
	byAddr  [classes]*ratelimit.Buckets[netip.Prefix]
	guesses *ratelimit.Buckets[guess]
}

// NewLimits makes limits that remember at most the given number of keys in
// each class.
func NewLimits(r Rates, keys int) *Limits {
	l := &Limits{rates: r, guesses: ratelimit.NewBuckets[guess](guessRate, keys)}
	for c := range classes {
		one := r[c]
		l.byToken[c] = ratelimit.NewBuckets[string](one, keys)
		l.byUser[c] = ratelimit.NewBuckets[string](ratelimit.Limit{Events: userTimes * one.Events, Per: one.Per, Burst: userTimes * one.Burst}, keys)
		l.byAddr[c] = ratelimit.NewBuckets[netip.Prefix](one, keys)
	}
	return l
}

// take takes one event of the token's and the user's budget, and tells the
// tighter of the two. A job handle is counted by its job.
func (l *Limits) take(c Class, s *policy.Subject, now time.Time) (d ratelimit.Decision, by string) {
	key := string(s.Token)
	if key == "" {
		key = s.Job
	}
	d, by = l.byToken[c].Take(key, now), "token"
	if !d.Allowed {
		return d, by
	}
	if u := l.byUser[c].Take(string(s.Principal.ID), now); !u.Allowed {
		return u, "user"
	}
	return d, by
}

// limit holds a subject to its limits and tells it where it stands.
func (c *call) limit() error {
	s := &c.subject
	if s.Local {
		return nil
	}
	return c.take(s)
}

// take takes one event of a subject's budgets.
func (c *call) take(s *policy.Subject) error {
	l, class := c.api.Limits, c.route.class
	d, by := l.take(class, s, c.now)
	c.stand(policyName(class, by), l.of(class, by), d)
	if d.Allowed {
		return nil
	}
	return limited(class, by, d)
}

// limitShown holds a token that was presented in a body to its limits. Each
// refresh gives a sign-in another token, so that its family counts as a whole.
func (c *call) limitShown() error {
	id, ok := c.api.Table.TokenOf(c.shown)
	if !ok {
		return nil // refused by what follows
	}
	k, _ := c.api.Table.Token(id)
	if k.Family != "" {
		id = token.ID(k.Family)
	}
	return c.take(&policy.Subject{Token: id, Principal: principal.Principal{ID: k.Owner}})
}

// limitCode holds a one-time code to its limits. One that was never made is a
// failed authentication and counted as that, so that nobody else at an address
// holds up who has the right one (R8.2).
func (c *call) limitCode(text string) error {
	p, err := c.api.Table.Read(strings.TrimSpace(text))
	if err != nil {
		return nil //nolint:nilerr // refused by what follows
	}
	c.shown = p
	return c.limitShown()
}

// limitAddress holds a client without a credential to its address's limits.
// Probes are not held up: a balancer must always learn how the server is. Nor
// is who brings a code, which is a credential: limitCode.
func (c *call) limitAddress() error {
	class := c.route.class
	if c.route.has(probe) || class == Enrolling {
		return nil
	}
	d := c.api.Limits.byAddr[class].Take(sourceOf(c.addr), c.now)
	c.stand(policyName(class, "address"), c.api.Limits.of(class, "address"), d)
	if d.Allowed {
		return nil
	}
	return limited(class, "address", d)
}

// violated is the member of a problem that names the limits it is about.
const violated = "violated-policies"

func limited(c Class, by string, d ratelimit.Decision) *fault.Error {
	return fault.New(fault.Limited, "rate_limited", "Too many requests of the kind %q with this %s.", c, by).
		With("class", c.String()).With("by", by).With(violated, []string{policyName(c, by)}).
		WithFix("Wait as long as Retry-After says.").WithRetry(max(time.Second, d.RetryAfter))
}

// of is the limit of a class for one token, user or address.
func (l *Limits) of(c Class, by string) ratelimit.Limit {
	one := l.rates[c]
	if by == "user" {
		one.Events *= userTimes
	}
	return one
}

// stand tells a client where it stands with a limit, in the fields of
// draft-ietf-httpapi-ratelimit-headers-11.
func (c *call) stand(name string, l ratelimit.Limit, d ratelimit.Decision) {
	h, quoted := c.Header(), `"`+name+`"`
	h["Ratelimit-Policy"] = []string{quoted + ";q=" + strconv.Itoa(l.Events) + ";w=" + seconds(l.Per)}
	h["Ratelimit"] = []string{quoted + ";r=" + strconv.Itoa(d.Remaining) + ";t=" + seconds(max(d.Reset, d.RetryAfter)+time.Second-1)}
}

// policyName is the limit's name in those fields and in problems.
func policyName(c Class, by string) string { return by + "-" + c.String() }
