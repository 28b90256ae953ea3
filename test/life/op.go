package life

import (
	"fmt"
	"strings"
	"time"
)

// Op is one thing that somebody does, in terms that model and service share:
// tokens and jobs by the order in which they were made, people by number.
type Op struct {
	Do      string
	By, On  int // tokens: who asks, and about what; By may be local or nobody
	Who     int
	Job     int
	Span    time.Duration // of time that passes, of an outage, of a grace period
	Fixed   bool          // the lifetime asked for is an exact end
	Replace int           // token, or never
	Scopes  []string      // of a new token; empty: all that the asking one has
	Name    string
	Key     string // Idempotency-Key
	Groups  []string
	Role    string
	Level   string
	Rules   Rules
	Since   time.Duration // from now; zero: as the service thinks best

	Compromised, ReplaceUnused, Keep bool
}

// String is the op on one line, without what is zero.
func (o Op) String() string {
	var b strings.Builder
	b.WriteString(o.Do)
	add := func(name string, show bool, v any) {
		if show {
			fmt.Fprintf(&b, " %s=%v", name, v)
		}
	}
	add("by", o.By != local || o.Do == "leak", o.By)
	add("on", o.On != 0 || o.about(), o.On)
	add("who", o.personal(), o.Who)
	add("job", strings.HasPrefix(o.Do, "job") || strings.HasPrefix(o.Do, "handle"), o.Job)
	add("span", o.Span != 0, o.Span)
	add("fixed", o.Fixed, true)
	add("replace", o.Do == "create" && o.Replace != never, o.Replace)
	add("scopes", len(o.Scopes) > 0, o.Scopes)
	add("name", o.Name != "", o.Name)
	add("key", o.Key != "", o.Key)
	add("groups", o.Do == "groups", o.Groups)
	add("role", o.Role != "", o.Role)
	add("level", o.Level != "", o.Level)
	add("rules", o.Level != "", fmt.Sprintf("%+v", o.Rules))
	add("since", o.Since != 0, o.Since)
	add("compromised", o.Compromised, true)
	add("replace_unused", o.ReplaceUnused, true)
	add("keep", o.Keep, true)
	return b.String()
}

func (o Op) about() bool {
	switch o.Do {
	case "rotate", "revoke", "suspend", "resume", "renew", "leak", "redeem":
		return true
	}
	return false
}

func (o Op) personal() bool {
	switch o.Do {
	case "invite", "owners", "offboard", "suspend-user", "resume-user", "groups", "role":
		return true
	}
	return o.Do == "revoke-all" && o.By == local
}

// Answer is what came of an op: the code of the refusal, or what was made.
type Answer struct {
	Code string // empty: done
	Made int    // token or job, by order; never: none
	Note string // of a renewal: why it is no longer
}

func refused(code string) Answer { return Answer{Code: code, Made: never} }

var done = Answer{Made: never}
