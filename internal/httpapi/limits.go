package httpapi

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/ratelimit"
)

// Class groups routes that share a limit. Canceling has its own, so that
// whoever floods with a stolen token cannot keep its owner from stopping jobs.
type Class uint8

// The classes. The last two are limited by address.
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

// Rates is what one token may do in each class (one address in the last two).
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
}

// NewLimits makes limits that remember at most the given number of keys in
// each class.
func NewLimits(r Rates, keys int) *Limits {
	l := &Limits{rates: r}
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

// limit holds a subject to its limits and tells it where it stands, in the
// fields of draft-ietf-httpapi-ratelimit-headers-11.
func (c *call) limit() error {
	s := &c.subject
	if s.Local {
		return nil
	}
	l, class := c.api.Limits, c.route.class
	d, by := l.take(class, s, c.now)
	h := c.Header()
	h["Ratelimit-Policy"] = []string{l.policyText(class, by)}
	h["Ratelimit"] = []string{stateText(class, by, d)}
	if d.Allowed {
		return nil
	}
	return limited(class, by, d)
}

// limitAddress holds a client without a credential to its address's limits.
func (c *call) limitAddress() error {
	if c.route.class != Reporting && c.route.class != Enrolling {
		return nil
	}
	bits := 64
	if c.addr.Is4() {
		bits = 32
	}
	p, _ := c.addr.Prefix(bits) // the zero prefix for an unknown address
	d := c.api.Limits.byAddr[c.route.class].Take(p, c.now)
	if d.Allowed {
		return nil
	}
	return limited(c.route.class, "address", d)
}

func limited(c Class, by string, d ratelimit.Decision) *fault.Error {
	return fault.New(fault.Limited, "rate_limited", "Too many requests of the kind %q with this %s.", c, by).
		With("class", c.String()).With("by", by).
		WithFix("Wait as long as Retry-After says.").WithRetry(max(time.Second, d.RetryAfter))
}

func (l *Limits) policyText(c Class, by string) string {
	events := l.rates[c].Events
	if by == "user" {
		events *= userTimes
	}
	return name(c, by) + ";q=" + strconv.Itoa(events) + ";w=" + seconds(l.rates[c].Per)
}

func stateText(c Class, by string, d ratelimit.Decision) string {
	return name(c, by) + ";r=" + strconv.Itoa(d.Remaining) + ";t=" + seconds(max(d.Reset, d.RetryAfter)+time.Second-1)
}

func name(c Class, by string) string {
	return strings.Join([]string{`"`, by, "-", c.String(), `"`}, "")
}
