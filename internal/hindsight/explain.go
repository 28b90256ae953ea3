// Package hindsight is what recorded decisions tell afterwards: why a request
// was decided as it was, what another policy would have refused, and which of a
// token's rights were ever used.
//
// It reads lines of the trail and facts of tokens, and judges them with the same
// pure functions that decided then; it changes nothing.
package hindsight

import (
	"cmp"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// Result is how one check of a request went.
type Result string

// The results.
const (
	Passed     Result = "passed"
	Failed     Result = "failed"
	NotReached Result = "not_reached"
)

// Check is one step of the way of a request.
type Check struct {
	Name   string
	Result Result
	Detail string
}

// Explanation is a decision in a person's words and as facts.
type Explanation struct {
	Allowed bool
	Checks  []Check
	Failed  string // name of the check that failed; "" if none did
	Summary string
	Fix     string

	Required, Granted, Missing []string
	Clock, Level               string
	Ended                      time.Time
	LimitedBy, Class           string
	Peer, Via, Ignored         string // the proxy, its header, and one that nobody believed
}

// steps are the checks in the order in which a request meets them, and what it
// means to pass each.
var steps = []struct{ name, passed string }{
	{"path", "the path exists and is written in its one form"},
	{"form", "a credential was sent, and has the form of one"},
	{"secret", "its secret is one that was issued here"},
	{"standing", "nobody had ended or stopped it, and its owner was active"},
	{"clock", "none of its clocks had run out"},
	{"parent", "what it was made from was active, if it was made from another token"},
	{"network", "it may be used from that address"},
	{"limit", "neither its limits nor its owner's were spent"},
	{"right", "the token, and its owner at that moment, may do this"},
	{"request", "what was sent was in order"},
	{"record", "the decision could be written down"},
	{"outcome", "it was carried out"},
}

// cause is what a reason code means: which check it failed, and one sentence.
type cause struct {
	check, detail string
	plain         bool // detail is the code as words, and no sentence
}

var causes = map[string]cause{
	"route_not_found":         {check: "path", detail: "there is nothing at this path"},
	"method_not_allowed":      {check: "path", detail: "the path does not know this method"},
	"path_not_canonical":      {check: "path", detail: "the path was not in its one plain form"},
	"token_in_url":            {check: "path", detail: "the address held a token, which was ended for that"},
	"idempotency_key_invalid": {check: "path", detail: "the Idempotency-Key was malformed"},
	"proxy_field_twice":       {check: "path", detail: "the proxy named the method or the URI more than once"},
	"token_missing":           {check: "form", detail: "no token was sent"},
	"scheme_unknown":          {check: "form", detail: "the Authorization header was neither Bearer nor Basic"},
	"credential_twice":        {check: "form", detail: "there was more than one Authorization header"},
	"token_malformed":         {check: "form", detail: "what was sent is no whole token"},
	"peer_denied":             {check: "form", detail: "the local socket is for the server's own user"},
	"token_unknown":           {check: "secret", detail: "nobody was issued that secret here"},
	"invite_invalid":          {check: "secret", detail: "the one-time code is used up, too old, or was never made"},
	"token_revoked":           {check: "standing", detail: "the token was revoked"},
	"token_reused":            {check: "standing", detail: "a rotated token asked for another successor, so that its family was revoked"},
	"token_suspended":         {check: "standing", detail: "the token was suspended"},
	"token_unproven":          {check: "standing", detail: "after a restore nobody can prove that the token is good"},
	"owner_inactive":          {check: "standing", detail: "the token's owner was not active"},
	"token_expired":           {check: "clock", detail: "the token had expired"},
	"token_idle_expired":      {check: "clock", detail: "the token had not been used for too long"},
	"token_rotated":           {check: "clock", detail: "the token was rotated, and its grace period was over"},
	"token_parent_ended":      {check: "parent", detail: "the token that this one was made from was not active"},
	"ip_denied":               {check: "network", detail: "the token may not be used from that address"},
	"rate_limited":            {check: "limit", detail: "too many requests"},
	"too_many_failures":       {check: "limit", detail: "too many failed attempts from that address"},
	"too_many_uploads":        {check: "limit", detail: "too many uploads at a time"},
	"too_many_downloads":      {check: "limit", detail: "too many downloads at a time"},
	"too_many_followers":      {check: "limit", detail: "too many followed logs at a time"},
	"scope_missing":           {check: "right", detail: "the token lacked a scope"},
	"competition_missing":     {check: "right", detail: "the token is limited to other competitions"},
	"scope_widened":           {check: "right", detail: "a token cannot give more than it has"},
	"competition_widened":     {check: "right", detail: "a token cannot be for more competitions than what makes it"},
	"denied":                  {check: "right", detail: "the token or its owner may not do this"},
	"not_found":               {check: "right", detail: "there is no such thing, or it is not the owner's"},
	"job_not_found":           {check: "right", detail: "there is no such job, or it is not the owner's"},
	"token_not_found":         {check: "right", detail: "there is no such token, or it is not the owner's"},
	"service_ownerless":       {check: "right", detail: "nobody answers for the service, so that its tokens only read and cancel its own jobs"},
	"sessions_only":           {check: "right", detail: "policy allows sessions only"},
	"consent_missing":         {check: "right", detail: "whoever it was to be handed in for had given no consent that held at that moment, for that competition"},
	"audit_unavailable":       {check: "record", detail: "the trail could not be written, and without a record nothing is granted"},
}

// Known is what the service knows and a line does not tell.
type Known struct {
	Actor string // name of who asked; empty: nobody's
	// Means is what a reason code stands for in general, and what one does about it.
	// An ellipsis takes the place of what belongs to one occurrence. May be nil.
	Means func(code string) (detail, fix string)
}

func (k Known) means(code string) (detail, fix string) {
	if k.Means == nil {
		return "", ""
	}
	return k.Means(code)
}

// causeOf reads a reason that may be one of a use case.
func causeOf(e *audit.Event, k Known) cause {
	if c, ok := causes[e.Reason]; ok {
		return c
	}
	c := cause{"outcome", strings.ReplaceAll(e.Reason, "_", " "), true}
	if detail, _ := k.means(e.Reason); detail != "" {
		c.detail = strings.TrimSuffix(detail, ".")
	}
	switch e.Status {
	case 400, 408, 413, 415:
		c.check = "request"
	}
	return c
}

// Mended reports whether a later use shows that what a request was refused for is
// over: any use, if it was about the token; the same from the same address, if
// about the network; else the very thing that was refused.
func Mended(refused, later *audit.Event) bool {
	if later.Outcome == audit.Deny || later.Request == refused.Request || !policy.Counts(later.Mode) {
		return false
	}
	switch causeOf(refused, Known{}).check {
	case "form", "secret", "standing", "clock", "parent", "limit", "record":
		return true
	case "network":
		return later.Addr == refused.Addr
	}
	return later.Route == refused.Route && later.Competition == refused.Competition && later.Target == refused.Target
}

// Explain says how a request was decided, from its line.
func Explain(e *audit.Event, k Known) Explanation {
	x := Explanation{
		Allowed: e.Outcome != audit.Deny, Peer: e.Detail["peer"], Via: e.Detail["via"], Ignored: e.Detail["ignored"],
		Required: strings.Fields(e.Detail["required"]), Granted: strings.Fields(e.Detail["granted"]), Missing: strings.Fields(e.Detail["missing"]),
		Clock: e.Detail["clock"], Level: e.Detail["level"], LimitedBy: e.Detail["by"], Class: e.Detail["class"],
	}
	if e.Reason == "ip_denied" {
		x.Level = e.Detail["outside"]
	}
	x.Ended, _ = time.Parse(time.RFC3339, e.Detail["ended"]) // zero where none is said
	if x.Allowed {
		x.allowed(e)
		return x
	}
	c := causeOf(e, k)
	x.Failed = c.check
	detail := x.why(e, c.detail)
	result := Passed
	for _, s := range steps {
		check := Check{s.name, result, ""}
		switch {
		case s.name == x.Failed:
			check.Result, check.Detail, result = Failed, detail, NotReached
		case result == Passed:
			check.Detail = s.passed
		}
		x.Checks = append(x.Checks, check)
	}
	x.Summary = "It was refused, because " + detail + "."
	if c.plain {
		x.Summary = "It was refused: " + detail + "."
	}
	if e.Status == 429 && x.Failed != "limit" {
		x.Summary += " As there had been too many failed attempts from that address, the answer was to wait (429)."
	}
	x.Fix = x.wayOn(e, k)
	return x
}

func (x *Explanation) allowed(e *audit.Event) {
	for _, s := range steps {
		x.Checks = append(x.Checks, Check{s.name, Passed, s.passed})
	}
	x.Summary = "It was allowed, and carried out."
	if e.Status == 0 {
		last := &x.Checks[len(x.Checks)-1]
		last.Detail = "it was let through, and no refusal followed"
		x.Summary = "It was allowed: it was written down before it was carried out, and no refusal followed."
	}
	if level := e.Detail["outside"]; level != "" {
		x.Level = level
		x.Summary += " It came from outside the networks of " + levelWord(level) + ", which only observes so far."
	}
	if e.Mode != "" {
		x.Summary += " The token was in the mode " + e.Mode + "."
	}
}

// why is the cause with what only this request knows of it.
func (x *Explanation) why(e *audit.Event, detail string) string {
	switch x.Failed {
	case "clock":
		if !x.Ended.IsZero() {
			detail += ": its clock " + orUnknown(x.Clock) + " ended on " + x.Ended.Format("2 Jan 2006 at 15:04 MST")
			if x.Level != "" && x.Level != token.OwnLevel {
				detail += ", as the policy of " + levelWord(x.Level) + " says"
			}
		}
	case "network":
		detail += ", " + orUnknown(e.Addr)
		if x.Level != "" {
			detail += ": it is in none of the networks of " + levelWord(x.Level)
		}
	case "limit":
		if x.LimitedBy != "" {
			detail += " of the kind " + x.Class + " with that " + x.LimitedBy
		}
	case "right":
		if len(x.Missing) > 0 {
			detail += ": " + strings.Join(x.Missing, " ") + " (it had " + orNone(x.Granted) + ")"
		}
		if e.Mode == policy.ModeQuarantined {
			detail += ": it is quarantined"
		}
	}
	if x.Via != "" && x.Failed == "network" {
		detail += " (the proxy " + x.Peer + " named that address in " + x.Via + ")"
	}
	if x.Ignored != "" {
		detail += " (its header " + x.Ignored + " was ignored, since who sent it is no trusted proxy)"
	}
	return detail
}

const signIn = "Sign in: gradegate login --invite CODE (an administrator makes the code); or use another token of yours: --token-file FILE"

// wayOn is a command that works, or whom to ask.
func (x *Explanation) wayOn(e *audit.Event, k Known) string {
	id := fault.Word(e.Token)
	switch e.Reason {
	case "token_missing", "token_malformed", "token_unknown", "scheme_unknown", "credential_twice":
		return "gradegate doctor says which token is used, from where, and whether it is whole."
	case "token_suspended":
		return "With another token of yours: gradegate token resume " + id
	case "owner_inactive":
		return "Ask an administrator: gradegate user show " + fault.Word(e.Actor)
	case "token_idle_expired":
		return "Within seven days of that end, signed in: gradegate token resume " + id + "; later: gradegate login --invite CODE"
	case "token_rotated":
		return "Use its successor: gradegate token show " + id + " names it. If none of you rotated it: gradegate token revoke-all --keep-this"
	case "token_parent_ended":
		return "Make another one from a token that is active (POST /oauth2/token), or sign in: gradegate login --invite CODE"
	case "ip_denied":
		return x.otherNetwork(e)
	case "rate_limited", "too_many_failures":
		return "Wait as long as Retry-After says, and look for the program that asks so often."
	case "scope_missing":
		return x.otherScopes()
	case "competition_missing":
		return "Use a token that is for it: gradegate token create --competition " + fault.Word(strings.Join(x.Missing, " "))
	case "consent_missing":
		return "Ask them to run: gradegate consent give " + fault.Word(cmp.Or(k.Actor, e.Actor)) + " --competition " + fault.Word(e.Competition) + "; what you were given: gradegate consent list"
	case "audit_unavailable":
		return "Try again in a few seconds; if it lasts, tell the operator: gradegate status"
	}
	switch x.Failed {
	case "standing", "clock":
		return signIn
	case "right":
		if e.Mode == policy.ModeQuarantined {
			return "The token is quarantined, since somebody reported it leaked. If it has leaked: gradegate token revoke " + id + ". If not, ask an administrator to run: gradegate token resume " + id
		}
		if len(x.Missing) > 0 && e.Reason == "denied" {
			return x.otherScopes()
		}
		return "gradegate whoami shows who you are and what your token may do."
	case "path", "request", "outcome":
		if _, fix := k.means(e.Reason); fix != "" && !strings.Contains(fix, "…") {
			return fix
		}
		return "The answer to the request said more: its code was " + e.Reason + "."
	}
	return "gradegate doctor"
}

func (x *Explanation) otherNetwork(e *audit.Event) string {
	way := "Use it from one of its networks, or make a token for where you are: gradegate token create --cidr " + orUnknown(e.Addr)
	if x.Level != "" && x.Level != token.OwnLevel {
		way = "Use it from one of those networks, or ask an administrator: gradegate policy show " + fault.Word(x.Level)
	}
	if x.Ignored != "" {
		way += ". If " + e.Addr + " is your proxy, the operator adds to the configuration: trusted_proxies: ['" + e.Addr + "']"
	}
	return way
}

func (x *Explanation) otherScopes() string {
	for _, s := range x.Missing {
		if strings.HasPrefix(s, "admin:") || strings.HasPrefix(s, "audit:") {
			return "Ask an administrator: this needs the scope " + s + ", and a role that has it."
		}
	}
	way := "gradegate token create"
	for _, s := range append(x.Granted, x.Missing...) {
		way += " --scope " + s
	}
	return way + " (signed in; with --replace NAME if you have as many tokens as you may)"
}

func levelWord(level string) string {
	switch {
	case level == token.OwnLevel:
		return "the token itself"
	case level == token.Platform:
		return "the platform"
	case strings.HasPrefix(level, token.GroupLevel):
		return "the group " + strings.TrimPrefix(level, token.GroupLevel)
	}
	return level
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, " ")
}
