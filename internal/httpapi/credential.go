package httpapi

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/principal"
	"gradegate/internal/ratelimit"
	"gradegate/internal/token"
)

var (
	errMissing = fault.New(fault.Unauthenticated, "token_missing", "This needs a token, and none was sent.").
			WithFix("Sign in (gradegate login --invite CODE), or send the header: Authorization: Bearer TOKEN")
	errTwice = fault.New(fault.Invalid, "credential_twice", "The request has more than one Authorization header.").
			WithFix("Send one.")
	errScheme = fault.New(fault.Unauthenticated, "scheme_unknown", "The Authorization header is neither Bearer nor Basic.").
			WithFix("Authorization: Bearer TOKEN")
	errPeer = fault.New(fault.Denied, "peer_denied", "The local socket is for the server's own user and root.").
		WithFix("Run the command as the user that runs the server.")
)

// credential takes the token out of the Authorization header: the bearer, or
// the password of Basic for clients that know netrc only. It allocates nothing
// for a bearer.
func credential(h http.Header) (string, error) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", errMissing
	}
	if len(values) > 1 {
		return "", errTwice
	}
	v := values[0]
	if len(v) > 7 && strings.EqualFold(v[:7], "bearer ") {
		return strings.Trim(v[7:], " "), nil
	}
	if len(v) > 6 && strings.EqualFold(v[:6], "basic ") {
		text, err := base64.StdEncoding.DecodeString(strings.Trim(v[6:], " "))
		_, password, ok := strings.Cut(string(text), ":")
		if err == nil && ok {
			return unescaped(password), nil
		}
	}
	return "", errScheme
}

// unescaped is a password as OAuth clients send it: form-encoded before it is
// put into Basic (RFC 6749, section 2.3.1). A token of ours has no percent sign.
func unescaped(password string) string {
	if text, err := url.QueryUnescape(password); err == nil && strings.Contains(password, "%") {
		return text
	}
	return password
}

// authenticate finds out who asks. On the local socket that is whoever opened
// it, unless a token says otherwise.
func (c *call) authenticate(h http.Header) error {
	text, err := credential(h)
	if c.door == local && errors.Is(err, errMissing) {
		return c.authenticateLocal()
	}
	c.tried = !errors.Is(err, errMissing)
	if err != nil {
		return c.turnedAway(err)
	}
	return c.authenticateText(text, h)
}

// authenticateText finds out whose secret a text is.
func (c *call) authenticateText(text string, h http.Header) error {
	p, err := c.api.Table.Read(text)
	if err != nil {
		return c.turnedAway(malformed(err, len(text)))
	}
	c.shown = p
	c.subject, c.ref, err = c.api.Table.Authenticate(p, c.addr)
	if err == nil && c.subject.Mode == policy.ModeExpiredRead && !c.route.has(late) {
		err, c.subject.Mode = policy.Expired(&c.subject), ""
	}
	if err != nil && !c.asksAgain(h, p, text) && !c.asksWhy(p, err) {
		return c.turnedAway(c.reused(err))
	}
	c.proven = true
	c.subject.Agent, c.subject.Request = c.agent, c.id
	if c.route.has(creates) {
		c.presented = token.Shown(text)
	}
	return nil
}

// asksAgain lets a token that has ended, perhaps by this very request, fetch
// the answer that was lost on the way (R2.1).
func (c *call) asksAgain(h http.Header, p token.Presented, text string) bool {
	key := h.Get("Idempotency-Key")
	if key == "" || c.route.id != "rotateToken" && c.route.id != "createToken" {
		return false
	}
	s, ok := c.api.Table.Lapsed(p, c.addr)
	if !ok {
		return false
	}
	if !c.api.Authority.Answered(c.ctx, authority.Idem{Key: key, Presented: token.Shown(text)}) {
		return false
	}
	c.subject = s
	return true
}

// reused ends the family of a predecessor that is presented for another rotation
// after its grace period: its secret is in two hands.
func (c *call) reused(err error) error {
	if c.route.id != "rotateToken" || fault.CodeOf(err) != "token_rotated" {
		return err
	}
	s := c.subject
	s.Addr, s.Agent, s.Request = c.addr, c.agent, c.id
	if bad := c.api.Authority.Reused(c.ctx, &s); bad != nil {
		return bad
	}
	c.api.Logger.Warn("a rotated token was presented for rotation: its family was revoked", "token", s.Token, "request", c.id)
	c.api.nudge()
	return errReused
}

// alertAgain is how often one token's alert is repeated.
var alertAgain = ratelimit.Limit{Events: 1, Per: time.Hour, Burst: 1}

// alertRotated says that a rotated token was presented after its grace period:
// some machine was not changed over, or somebody else has its secret.
func (c *call) alertRotated() {
	if d := c.api.alerts.Take(c.subject.Token, c.now); d.Allowed {
		c.api.Logger.Warn("a rotated token was presented after its grace period: a machine was not changed over, or somebody else holds its secret",
			"token", c.subject.Token, "address", c.addr.String(), "request", c.id, "fix", "gradegate audit search --token "+string(c.subject.Token))
	}
}

var errReused = fault.New(fault.Unauthenticated, "token_reused",
	"The token was rotated before, and its grace period is over. Somebody else may hold its secret, so all of its family was revoked.").
	WithFix("Sign in again (gradegate login --invite CODE) and look at what was done: gradegate audit search --token ID")

// authenticateLocal trusts the kernel about who is at the other end.
func (c *call) authenticateLocal() error {
	if !c.peer.hasUID || c.peer.uid != 0 && int(c.peer.uid) != os.Geteuid() {
		return errPeer
	}
	c.proven = true
	c.subject = policy.Subject{
		Local: true, LocalUID: c.peer.uid, Agent: c.agent, Request: c.id,
		Principal: principal.Principal{Role: principal.Admin, Status: principal.Active},
	}
	return nil
}

// malformed tells what is wrong with the form of a token, without a character of it.
func malformed(err error, length int) *fault.Error {
	if errors.Is(err, token.WrongLength) {
		return fault.New(fault.Unauthenticated, "token_malformed", "The token has %d characters, a token has %d: it was cut off when it was copied, or something was added.", length, token.SecretLen).
			WithFix("Copy it again, whole.")
	}
	return fault.New(fault.Unauthenticated, "token_malformed", "The token is malformed: %v.", err).WithFix("Copy it again, whole; or sign in: gradegate login --invite CODE")
}

// turnedAway counts and records a failed authentication. Who has failed too
// often is told so, and not the reason; no valid token ever gets here.
func (c *call) turnedAway(err error) error {
	f := fault.Of(err)
	if f.Kind == fault.Unavailable || f.Kind == fault.Internal {
		return err
	}
	if f.Code == "token_rotated" && c.subject.Token != "" {
		c.alertRotated()
	}
	if c.tried {
		if instead := c.failed(f.Code); instead != nil {
			err = instead
		}
	}
	e := c.event(audit.Authenticate, audit.Deny)
	c.refusedFor(&e, f)
	e.Status = statusOf(fault.Of(err))
	if k, ok := c.api.Table.Token(c.subject.Token); ok {
		e.Actor = string(k.Owner) // the secret is the right one, so this is somebody
	} else {
		c.guessed(&e)
	}
	if bad := c.api.Recorder.Refused(c.ctx, e); bad != nil {
		return bad
	}
	return err
}

// rejected is for routes whose body is the credential: a wrong one counts like
// a wrong token in a header.
func (c *call) rejected(err error) error {
	if !c.route.has(open) || fault.KindOf(err) != fault.Unauthenticated {
		return err
	}
	c.tried, c.mute = true, true
	return c.turnedAway(err)
}
