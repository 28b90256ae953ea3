package hindsight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"gradegate/internal/fault"
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
		fmt.Fprintf(&b, "Hello %s,\n\nthe rules for tokens are to be changed. Had the new ones been in force from %s to %s, these of your uses would have been refused:\n",
			n.To.Name, since.Format(dayForm), until.Format(dayForm))
		for i, h := range own {
			n.uses += h.Uses
			if i >= mostOfHit {
				continue
			}
			fmt.Fprintf(&b, "\n- token %s (%s): %s, the last on %s%s\n", h.Name, h.ID, uses(h), h.Last.Format(dayForm), from(h.Addrs))
			for _, text := range demands(h.Rules) {
				fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(text, "NAME", fault.Word(h.Name)))
			}
		}
		if more := len(own) - mostOfHit; more > 0 {
			fmt.Fprintf(&b, "\n- and %s\n", number(more, "more token"))
		}
		b.WriteString("\nNothing has changed yet, and your jobs stay yours whatever becomes of a token. To see your tokens: gradegate token list\n")
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

func uses(h Hit) string {
	text := number(h.Uses, "use")
	if h.Submits > 0 {
		text += " (" + number(h.Submits, "submission") + ")"
	}
	return text
}

func number(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// means is what a demand would have held against a use, and what people do about
// it before it is in force.
var means = map[string]string{
	"networks":      "It came from outside the networks that will be allowed. Use the token from inside, or tell us what you need.",
	"max_lifetime":  "The token would have been too old. Make another in its place: gradegate token create --replace NAME --save",
	"idle":          "It had not been used for too long before. Use it more often, or sign in when you need it: gradegate login --invite CODE (ask us for the code)",
	"service_idle":  "It had not been used for too long before. Use it more often, or make one when it is needed.",
	"unused":        "It had never been used for too long. Make a token when you need it.",
	"rotation":      "It would have been due for a new secret: gradegate token rotate NAME",
	"sessions_only": "Only sessions will be allowed. Sign in, and stay so: gradegate login --invite CODE (ask us for the code)",
}

func demands(rules []Rule) (out []string) {
	for _, r := range rules {
		text := means[r.Name]
		if text == "" {
			text = "It would have ended before (" + strings.ReplaceAll(r.Name, "_", " ") + ")."
		}
		out = keep(out, text)
	}
	return out
}
