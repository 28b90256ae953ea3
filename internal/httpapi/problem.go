package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"gradegate/internal/fault"
)

const problemType = "application/problem+json"

// statusOf is the one place where a fault becomes an HTTP status.
func statusOf(f *fault.Error) int {
	if s, ok := statusByCode[f.Code]; ok {
		return s
	}
	switch f.Kind {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Denied:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Unsupported:
		return http.StatusUnsupportedMediaType
	case fault.Mismatched:
		return http.StatusUnprocessableEntity
	case fault.Limited:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// statusByCode are the few faults of HTTP itself, which no use case knows.
var statusByCode = map[string]int{
	"method_not_allowed":  http.StatusMethodNotAllowed,
	"not_acceptable":      http.StatusNotAcceptable,
	"precondition_failed": http.StatusPreconditionFailed,
	"body_timeout":        http.StatusRequestTimeout,
}

// problem is a refusal in the form of RFC 9457. It holds nothing of the
// request: what was refused may have been a secret.
type problem struct {
	fault *fault.Error
	id    string
}

// Error is the code alone: an error's text may end up in a log.
func (p *problem) Error() string { return p.fault.Code }

// GetStatus tells Huma the status.
func (p *problem) GetStatus() int { return statusOf(p.fault) }

// ContentType tells Huma the media type.
func (p *problem) ContentType(string) string { return problemType }

// MarshalJSON puts the fault's further members beside the standard ones.
func (p *problem) MarshalJSON() ([]byte, error) {
	f := p.fault
	m := make(map[string]any, len(f.More)+7)
	maps.Copy(m, f.More)
	m["type"], m["title"], m["status"] = typeOf(f), title(f.Code), statusOf(f)
	m["detail"], m["code"], m["request_id"] = f.Detail, f.Code, p.id
	if f.Fix != "" {
		m["fix"] = f.Fix
	}
	return json.Marshal(m)
}

// typeOf is the problem's type: one of our own, unless the draft of the
// RateLimit fields (limits.go) has one.
func typeOf(f *fault.Error) string {
	const registry = "https://iana.org/assignments/http-problem-types#"
	switch f.Code {
	case "rate_limited":
		return registry + "quota-exceeded"
	case errFailures.Code, errBlocked.Code:
		return registry + "abnormal-usage-detected"
	}
	return "/problems/" + f.Code
}

// Schema refers Huma to the one schema that all problems share.
func (p *problem) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Ref: "#/components/schemas/Problem"}
}

// title is the code as words: the same for every occurrence.
func title(code string) string {
	words := strings.ReplaceAll(code, "_", " ")
	if words == "" {
		return words
	}
	return strings.ToUpper(words[:1]) + words[1:]
}

// setHeaders sets the fields that go with a refusal.
func setHeaders(h http.Header, f *fault.Error, tried bool, issuer string) {
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10))
	}
	switch {
	case f.Kind == fault.Unauthenticated:
		h.Set("WWW-Authenticate", challenge(f, tried)+metadata(issuer))
	case f.Code == "scope_missing":
		if scopes, ok := f.More["required"].([]string); ok {
			h.Set("WWW-Authenticate", realm+`, error="insufficient_scope", scope="`+strings.Join(scopes, " ")+`"`+metadata(issuer))
		}
	case f.Code == errTwice.Code || f.Code == errTokenInURL.Code:
		h.Set("WWW-Authenticate", realm+`, error="invalid_request"`+metadata(issuer))
	case f.Code == "method_not_allowed":
		allowed, _ := f.More["allow"].([]string)
		h.Set("Allow", strings.Join(allowed, ", "))
	}
}

const realm = `Bearer realm="gradegate"`

// challenge is that of RFC 6750: no error when no credential was sent, or one of
// another kind.
func challenge(f *fault.Error, tried bool) string {
	if !tried || f.Code == errScheme.Code {
		return realm
	}
	description := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, f.Detail)
	return realm + `, error="invalid_token", error_description="` + description + `"`
}

// metadata points to the description of the resource (RFC 9728, section 5.1).
func metadata(issuer string) string {
	if issuer == "" {
		return ""
	}
	host, path := issuer, ""
	if u, err := url.Parse(issuer); err == nil {
		path = u.EscapedPath()
		host = strings.TrimSuffix(issuer, path)
	}
	return `, resource_metadata="` + host + `/.well-known/oauth-protected-resource` + path + `"`
}

// tameHuma sets what Huma keeps in package variables. Its own refusals repeat
// the rejected value, which may be a secret; ours name the place only.
var tameHuma = sync.OnceFunc(func() {
	huma.DefaultArrayNullable = false
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return &problem{fault: humaFault(status, errs)}
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, _ string, errs ...error) huma.StatusError {
		return callOf(ctx.Context()).refuse(humaFault(status, errs))
	}
})

// humaFault is what a refusal by Huma says to the client.
func humaFault(status int, errs []error) *fault.Error {
	switch status {
	case http.StatusNotAcceptable:
		return fault.New(fault.Invalid, "not_acceptable", "Answers are JSON.").WithFix("Accept: application/json")
	case http.StatusInternalServerError:
		if len(errs) > 0 {
			return fault.Of(errs[0])
		}
		return fault.Of(fmt.Errorf("huma: status %d", status))
	}
	type mistake struct {
		Location string `json:"location"`
		Message  string `json:"message"`
	}
	var list []mistake
	for _, err := range errs {
		d, ok := err.(huma.ErrorDetailer)
		if !ok {
			continue
		}
		e := d.ErrorDetail()
		list = append(list, mistake{place(e.Location), unvalued(e)})
		if len(list) == 20 { // enough to go on with
			break
		}
	}
	if len(list) == 0 {
		return fault.New(fault.Invalid, "body_missing", "The request needs a JSON body.").WithFix("See /openapi.json for its members.")
	}
	return fault.New(fault.Invalid, "request_invalid", "The request has a mistake at %s: %s.", list[0].Location, list[0].Message).
		With("errors", list).WithFix("See /openapi.json for what the request may hold.")
}

var locationRE = regexp.MustCompile(`[^A-Za-z0-9_.\[\]-]`)

// place is where a mistake is. Unknown members are part of it, and those come
// from the request: they are cut short and cleaned.
func place(location string) string {
	if len(location) > 80 {
		location = location[:80]
	}
	return scrub(locationRE.ReplaceAllString(location, "?"))
}

// unvalued is Huma's message, unless it repeats the value.
func unvalued(e *huma.ErrorDetail) string {
	var value string
	switch v := e.Value.(type) {
	case nil:
	case string:
		value = v
	default:
		switch reflect.TypeOf(v).Kind() {
		case reflect.Map, reflect.Slice: // its messages quote no such values
		default:
			value = fmt.Sprint(v)
		}
	}
	if len(value) > 2 && strings.Contains(e.Message, value) {
		return "the value is not allowed"
	}
	return strings.TrimSuffix(scrub(e.Message), ".")
}
