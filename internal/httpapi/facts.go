package httpapi

import (
	"fmt"
	"strings"
	"time"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/token"
)

// told are the members of a refusal that its line keeps, so that it can be
// explained afterwards. None of them is what the client sent.
var told = []string{"action", "required", "granted", "missing", "class", "by"}

// refusedFor puts into a line why it is a refusal: what only the moment knew.
func (c *call) refusedFor(e *audit.Event, f *fault.Error) {
	e.Reason = f.Code
	add := func(name, value string) {
		if value != "" {
			e.Detail = with(e.Detail, name, value)
		}
	}
	for _, name := range told {
		add(name, factText(f.More[name]))
	}
	s := &c.subject
	if s.By != "" && e.Action == audit.Authenticate || f.Kind == fault.Unauthenticated && !s.Ended.IsZero() {
		end := s.Until
		if !s.Ended.IsZero() { // Until is then the end of what R1.4 leaves
			end = s.Ended
		}
		add("clock", string(s.By))
		add("ended", end.UTC().Format(time.RFC3339))
		add("level", s.Level)
	}
	if c.peer.addr != c.addr {
		add("peer", c.peer.text(c.peer.addr))
		add("via", c.api.proxies.header)
	} else if f.Code == "ip_denied" {
		add("ignored", c.api.proxies.strayHeader(c.header))
	}
}

// factText writes a member of a refusal: a word, or some of them.
func factText(v any) string {
	text := ""
	switch v := v.(type) {
	case nil:
	case string:
		text = v
	case []string:
		text = strings.Join(v, " ")
	default:
		text = fmt.Sprint(v)
	}
	return audit.Clean(text, 300)
}

// contestOf is a competition's name as a path or a query has it, if it is one:
// anything else is not repeated.
func contestOf(s string) string {
	if len(s) > 63 {
		return ""
	}
	for i := 0; i < len(s); i++ {
		if b := s[i]; !(b >= 'a' && b <= 'z' || b >= '0' && b <= '9' || i > 0 && (b == '-' || b == '_' || b == '.')) {
			return ""
		}
	}
	return s
}

// contested is a request that is about a competition which the path does not name.
type contested interface{ contest() string }

// asksWhy lets whoever holds the secret of a token that is no good any more, or
// not from there, ask why it was refused (B16).
func (c *call) asksWhy(p token.Presented, err error) bool {
	if !c.route.has(ended) || fault.KindOf(err) == fault.Unavailable {
		return false
	}
	s, known := c.api.Table.Presenter(p)
	if known {
		s.Addr = c.addr
		c.subject = s
	}
	return known
}
