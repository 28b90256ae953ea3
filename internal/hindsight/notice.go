package hindsight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gradegate/internal/principal"
)

// Notice is the draft of what a person is told before a policy changes.
type Notice struct {
	To   principal.Principal
	Text string
	uses int
}

// Notices drafts one for each person whose tokens were hit, who was hit most first.
func Notices(hits []Hit, since, until time.Time) []Notice {
	of := map[principal.ID][]Hit{}
	for _, h := range hits {
		of[h.Owner.ID] = append(of[h.Owner.ID], h)
	}
	var out []Notice
	for _, own := range of {
		n := Notice{To: own[0].Owner}
		var b strings.Builder
		fmt.Fprintf(&b, "Hello %s,\n\na change of what is demanded of tokens is planned. Between %s and %s it would have refused these uses of yours:\n",
			n.To.Name, since.Format(dayForm), until.Format(dayForm))
		for i, h := range own {
			n.uses += h.Uses
			if i >= mostOfHit {
				continue
			}
			fmt.Fprintf(&b, "- %s (%s): %d uses, %d of them submissions, last on %s%s: %s\n",
				h.Name, h.ID, h.Uses, h.Submits, h.Last.Format(dayForm), from(h.Addrs), demands(h.Rules))
		}
		if more := len(own) - mostOfHit; more > 0 {
			fmt.Fprintf(&b, "- and %d more tokens\n", more)
		}
		b.WriteString("\nYour jobs are not touched. To see what your tokens are like: gradegate token list\n")
		n.Text = b.String()
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Notice) int { return cmp.Or(cmp.Compare(b.uses, a.uses), cmp.Compare(a.To.ID, b.To.ID)) })
	return out
}

const dayForm = "2 Jan 2006"

func from(addrs []string) string {
	switch {
	case len(addrs) == 0 || addrs[0] == "":
		return ""
	case len(addrs) == 1:
		return ", from " + addrs[0]
	}
	return fmt.Sprintf(", from %s and %d more", addrs[0], len(addrs)-1)
}

// means is what a demand asks of people, and what they do about it.
var means = map[string]string{
	"networks":      "they came from outside the allowed networks (use it from inside, or tell us what you need)",
	"max_lifetime":  "the token would be too old (make another: gradegate token create)",
	"idle":          "it had not been used for too long (sign in again when you need it)",
	"service_idle":  "it had not been used for too long (use it more often, or make another when you need it)",
	"unused":        "it had never been used for too long (make a token when you need it)",
	"rotation":      "it was due for rotation (gradegate token rotate)",
	"sessions_only": "tokens that last would not be allowed any more (gradegate login keeps you signed in)",
}

func demands(rules []Rule) string {
	var out []string
	for _, r := range rules {
		text := means[r.Name]
		if text == "" {
			text = "it would have ended before (" + r.Name + ")"
		}
		out = keep(out, text)
	}
	return strings.Join(out, "; ")
}
