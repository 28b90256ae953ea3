// Package fault is the closed list of ways in which an operation can fail, and
// the one error type that carries them from any layer to the reader.
//
// A fault keeps two texts apart: what the reader may see (Detail and Fix) and
// what only the log may see (the wrapped error). An error that is no fault is
// Internal, and nothing of its text ever leaves the process.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind says what sort of failure this is. The list is closed: the HTTP layer
// maps each kind to one status in one place.
type Kind uint8

// The kinds. Internal is the zero value, so that a forgotten kind never reads
// as something milder than it is.
const (
	Internal        Kind = iota // our mistake
	Invalid                     // the request is wrong and will stay wrong
	Unauthenticated             // no credential, or none that is active
	Denied                      // known, but not allowed
	NotFound                    // absent, or not to be known by this subject
	Conflict                    // the state has moved on, or forbids it
	TooLarge                    // over a size limit
	Unsupported                 // a media type we do not read
	Limited                     // too many requests, or a quota is used up
	Unavailable                 // infrastructure trouble: try again later
	Mismatched                  // well-formed, but at odds with an earlier request
)

var kindNames = [...]string{
	"internal", "invalid", "unauthenticated", "denied", "not_found", "conflict",
	"too_large", "unsupported", "limited", "unavailable", "mismatched",
}

// String is the kind's stable name, as used in codes and metrics.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "internal"
}

// Word is s as a shell takes it in the place of one word, for fixes that can be
// typed.
func Word(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	// A word that begins with = is a command's path to some shells.
	if s != "" && s[0] != '=' && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Error is a failure that a reader can act on. Values are immutable after
// they were returned; the With methods work on a copy.
type Error struct {
	Kind Kind
	// Code is stable and machine readable, in snake case; clients switch on it.
	Code string
	// Detail is one sentence for the person who caused the request.
	Detail string
	// Fix is a command that works, or whom to ask. It may be empty only where
	// nothing can be done.
	Fix string
	// RetryAfter is set for Limited and Unavailable; zero means "not known".
	RetryAfter time.Duration
	// More holds further members of the problem document, such as "required"
	// and "granted" of a refused scope. Never a secret, never the input itself.
	More map[string]any

	cause error
}

// New makes a fault with a code and a sentence for the reader.
func New(kind Kind, code, detail string, args ...any) *Error {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return &Error{Kind: kind, Code: code, Detail: detail}
}

// Wrap makes a fault whose cause is kept for the log alone.
func Wrap(kind Kind, code, detail string, cause error) *Error {
	return &Error{Kind: kind, Code: code, Detail: detail, cause: cause}
}

// Error is the text for the log: code, detail and cause.
func (e *Error) Error() string {
	text := e.Code + ": " + e.Detail
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.cause }

// Is reports equality by code, so that a sentinel fault matches a copy of it
// that carries more members.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// WithFix returns a copy that tells how to go on.
func (e *Error) WithFix(fix string, args ...any) *Error {
	c := *e
	if len(args) > 0 {
		fix = fmt.Sprintf(fix, args...)
	}
	c.Fix = fix
	return &c
}

// WithRetry returns a copy that names when to try again.
func (e *Error) WithRetry(after time.Duration) *Error {
	c := *e
	c.RetryAfter = after
	return &c
}

// With returns a copy with one more member.
func (e *Error) With(key string, value any) *Error {
	c := *e
	c.More = make(map[string]any, len(e.More)+1)
	for k, v := range e.More {
		c.More[k] = v
	}
	c.More[key] = value
	return &c
}

// Lacking returns a copy that names what is required, what there is, and what of
// it is missing.
func (e *Error) Lacking(required, granted []string) *Error {
	missing := slices.DeleteFunc(slices.Clone(required), func(x string) bool { return slices.Contains(granted, x) })
	return e.With("required", required).With("granted", append([]string{}, granted...)).With("missing", missing)
}

// Caused returns a copy that keeps err for the log.
func (e *Error) Caused(err error) *Error {
	c := *e
	c.cause = err
	return &c
}

// KindOf is the kind of err: that of the fault in its chain, or Internal.
// It is undefined for nil.
func KindOf(err error) Kind {
	if f, ok := errors.AsType[*Error](err); ok {
		return f.Kind
	}
	return Internal
}

// CodeOf is the code of the fault in err's chain, or "internal".
func CodeOf(err error) string {
	if f, ok := errors.AsType[*Error](err); ok {
		return f.Code
	}
	return "internal"
}

// Of returns the fault in err's chain. An error that is no fault becomes an
// Internal one that keeps err for the log and says nothing of it.
func Of(err error) *Error {
	if f, ok := errors.AsType[*Error](err); ok {
		return f
	}
	return Wrap(Internal, "internal", "Something went wrong on our side; it has been logged.", err)
}
