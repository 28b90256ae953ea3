package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// reference is what encoding/json makes of an event.
func reference(e Event) string {
	e.At = e.At.UTC().Truncate(time.Microsecond)
	e.Agent, e.Route = Clean(e.Agent, agentMax), Clean(e.Route, agentMax)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(e)
	return strings.TrimSuffix(b.String(), "\n")
}

// R2.3, A28: one event is one line, the same as encoding/json writes, and it
// comes back as it was.
func FuzzEncode(f *testing.F) {
	f.Add("evt_1", "usr_1", "curl/8", "why", "k", "v", int64(7), int64(1764000000000000))
	f.Add("e\"\\\n", "\u2028\u2029", "\x1b[2J\u202e", "\xff\xfe", "", "\x7f\x00", int64(-1), int64(1))
	f.Fuzz(func(t *testing.T, id, actor, agent, reason, key, value string, count, us int64) {
		if us < 0 || us > 250_000_000_000_000_000 {
			return // outside of the years that RFC 3339 can write
		}
		e := Event{
			ID: id, At: time.UnixMicro(us), Action: TokenIssue, Outcome: Done, Actor: actor, Agent: agent,
			Reason: reason, Count: count, Scope: key, Competition: value, Detail: map[string]string{key: value, "z": "1", "a": agent},
		}
		line := e.Encode()
		if want := reference(e); string(line) != want {
			t.Fatalf("wrote %s\nwant  %s", line, want)
		}
		if bytes.ContainsAny(line, "\n\r\x1b") {
			t.Fatal("more than one line, or an escape")
		}
		// Invalid UTF-8 is replaced once; from then on nothing changes any more.
		back, err := Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(back.Encode())
		if err != nil || string(again.Encode()) != string(back.Encode()) {
			t.Fatalf("%v: %s came back as %s", err, back.Encode(), again.Encode())
		}
	})
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"curl/8": "curl/8", "a\x1b[31mb": "a?[31mb", "x\u202ey": "x?y", "é": "é", "\xff": "?", "a\r\nb": "a??b",
		strings.Repeat("é", 10): strings.Repeat("é", 4),
	} {
		if got := Clean(in, 9); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}
