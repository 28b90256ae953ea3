package audit

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Append appends the canonical form to dst. It is what encoding/json would
// write, without reflection: one line is written for every request.
func (e *Event) Append(dst []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, e.ID)
	dst = append(dst, `,"at":"`...)
	dst = e.At.UTC().Truncate(time.Microsecond).AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","action":`...)
	dst = appendString(dst, string(e.Action))
	dst = append(dst, `,"outcome":`...)
	dst = appendString(dst, string(e.Outcome))
	dst = appendMember(dst, "actor", e.Actor)
	dst = appendMember(dst, "token", e.Token)
	dst = appendMember(dst, "kind", e.Kind)
	dst = appendMember(dst, "target", e.Target)
	dst = appendMember(dst, "owner", e.Owner)
	dst = appendMember(dst, "reason", e.Reason)
	dst = appendMember(dst, "mode", e.Mode)
	dst = appendMember(dst, "addr", e.Addr)
	dst = appendMember(dst, "agent", cleaned(e.Agent))
	dst = appendMember(dst, "route", cleaned(e.Route))
	dst = appendMember(dst, "request", e.Request)
	dst = appendNumber(dst, "status", int64(e.Status))
	dst = appendMember(dst, "scope", e.Scope)
	dst = appendMember(dst, "competition", e.Competition)
	dst = appendNumber(dst, "count", e.Count)
	dst = appendNumber(dst, "seq", e.Seq)
	if len(e.Detail) > 0 {
		dst = e.appendDetail(dst)
	}
	return append(dst, '}')
}

// cleaned is Clean, and quick about what is clean already.
func cleaned(s string) string {
	if len(s) > agentMax {
		return Clean(s, agentMax)
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' {
			return Clean(s, agentMax)
		}
	}
	return s
}

func (e *Event) appendDetail(dst []byte) []byte {
	keys := make([]string, 0, len(e.Detail))
	for k := range e.Detail {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	dst = append(dst, `,"detail":{`...)
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, k)
		dst = append(dst, ':')
		dst = appendString(dst, e.Detail[k])
	}
	return append(dst, '}')
}

func appendMember(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return appendString(dst, value)
}

func appendNumber(dst []byte, name string, n int64) []byte {
	if n == 0 {
		return dst
	}
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return strconv.AppendInt(dst, n, 10)
}

const hexDigits = "0123456789abcdef"

// appendString quotes s as encoding/json does with HTML escaping off.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, s[start:i]...)
				dst = append(dst, `\ufffd`...)
				start = i + n
			case r == '\u2028' || r == '\u2029':
				dst = append(dst, s[start:i]...)
				dst = append(dst, `\u202`...)
				dst = append(dst, hexDigits[r&15])
				start = i + n
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscape(dst, c)
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
