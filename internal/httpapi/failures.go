package httpapi

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/block"
	"gradegate/internal/fault"
	"gradegate/internal/ratelimit"
	"gradegate/internal/token"
)

// Failure is one failed authentication that was counted, as the log for
// programs such as fail2ban has it.
type Failure struct {
	At      time.Time
	Addr    netip.Addr // invalid: unknown
	Reason  string
	Request string
}

// The policies that a refused failure may have violated, besides those of
// requests that are in order.
const (
	policyFailures = "address-failures"
	policyGuesses  = "guesses"
	policyBlock    = "address-block"
)

var (
	errFailures = fault.New(fault.Limited, "too_many_failures", "Too many failed attempts from this address. A valid token is not held up.").
			WithFix("Wait as long as Retry-After says, and look for the program that sends a wrong token.")
	errBlocked = fault.New(fault.Limited, "address_blocked", "Failed attempts from this address are not looked into for now. A valid token is not held up.").
			With(violated, []string{policyBlock}).
			WithFix("Look for the program that sends a wrong token; then an administrator can unblock the address: gradegate block remove ADDRESS")
)

// guess is who tries secrets with the id of which token. Ids that exist and
// ids that do not are counted alike, so that nobody learns which is which.
type guess struct {
	id     token.PublicID
	source netip.Prefix
}

// guessRate is how many wrong secrets one source may try with one id (R8.3).
var guessRate = ratelimit.Limit{Events: 10, Per: time.Minute}

// mostSources bounds for how many networks of each width failures are remembered.
const mostSources = 1 << 16

// mostRetry bounds Retry-After: a block of a year may be lifted tomorrow.
const mostRetry = 24 * time.Hour

// failed counts a failed authentication, of the given reason, and gives what is
// answered instead of it to who has failed too often; nil: the reason itself.
// Nobody whose credential is valid ever gets here.
func (c *call) failed(reason string) error {
	a := c.api
	if a.Failed != nil {
		a.Failed(Failure{At: c.now, Addr: c.addr, Reason: reason, Request: c.id})
	}
	if until := a.Blocks.Failed(c.addr, c.now); !until.IsZero() {
		return errBlocked.WithRetry(min(mostRetry, max(time.Second, until.Sub(c.now))))
	}
	d, spent := a.Failures.Fail(c.addr, c.now)
	if !d.Allowed {
		if b, began := a.Blocks.Insists(spent, c.now); began {
			c.tellBlock(b)
		}
		return c.tooMany(policyFailures, ratelimit.Limit{Events: ratelimit.PerMinute, Per: time.Minute}, d)
	}
	if c.shown.Public == (token.PublicID{}) || reason != "token_unknown" {
		return nil
	}
	if d := a.Limits.guesses.Take(guess{c.shown.Public, sourceOf(c.addr)}, c.now); !d.Allowed {
		return c.tooMany(policyGuesses, guessRate, d)
	}
	return nil
}

// tooMany refuses a failure and says which budget is spent.
func (c *call) tooMany(name string, l ratelimit.Limit, d ratelimit.Decision) error {
	c.stand(name, l, d)
	return errFailures.With(violated, []string{name}).WithRetry(max(time.Second, d.RetryAfter))
}

// tellBlock writes down that an automatic block begins.
func (c *call) tellBlock(b block.Shown) {
	network, until := block.Text(b.Prefix), b.Until.UTC().Format(time.RFC3339)
	c.api.Logger.Warn("an address goes on failing and is blocked; valid tokens from there are served", "address", network, "until", until,
		"times", b.Times, "fix", "gradegate block remove "+network)
	e := audit.Event{
		ID: "evt_" + authority.SortableID(c.now), At: c.now, Action: audit.BlockAdd, Outcome: audit.Done, Actor: b.By, Target: network, Request: c.id,
		Reason: policyFailures, Detail: map[string]string{"until": until, "times": strconv.Itoa(b.Times)},
	}
	c.api.noted(c.api.Recorder.Record(context.WithoutCancel(c.ctx), e, false))
}

// guessed marks the line of a refusal that was a guess at somebody's token.
func (c *call) guessed(e *audit.Event) {
	if c.shown.Public == (token.PublicID{}) {
		return
	}
	if id, owner, ok := c.api.Table.Guess(c.shown, c.addr, c.now); ok {
		e.Owner, e.Detail = string(owner), with(e.Detail, "guessed", string(id))
	}
}

// sourceOf is the network that counts as one source; the zero one if unknown.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}
