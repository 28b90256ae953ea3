package maintenance

import (
	"testing"
	"time"

	"gradegate/internal/audit"
)

// R9.7: a line about what is held, or by it, stays in the trail; one about
// anything else does not, nor one that a hold was on that is over.
func TestHeldLines(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	held := HeldAt([]Hold{
		{Kind: HoldUser, Subject: "usr_ann"}, {Kind: HoldToken, Subject: "tok_a"}, {Kind: HoldCompetition, Subject: "iris"},
		{Kind: HoldUser, Subject: "usr_bob", Until: now}, {Kind: HoldToken, Subject: "tok_b", RemovedAt: now},
	}, now)
	for name, c := range map[string]struct {
		line  audit.Event
		stays bool
	}{
		"what she did":           {audit.Event{Actor: "usr_ann"}, true},
		"what was hers":          {audit.Event{Actor: "usr_eve", Owner: "usr_ann"}, true},
		"what was done to her":   {audit.Event{Actor: "usr_eve", Target: "usr_ann"}, true},
		"a use of the token":     {audit.Event{Actor: "usr_eve", Token: "tok_a"}, true},
		"the end of the token":   {audit.Event{Actor: "usr_eve", Target: "tok_a"}, true},
		"a job of it":            {audit.Event{Actor: "usr_eve", Detail: map[string]string{"competition": "iris"}}, true},
		"the competition itself": {audit.Event{Actor: "usr_eve", Target: "iris"}, true},
		"a request about it":     {audit.Event{Actor: "usr_eve", Competition: "iris"}, true},
		"narrowed to it":         {audit.Event{Actor: "usr_eve", Detail: map[string]string{"competitions": "cats iris"}}, true},
		"a consent to her":       {audit.Event{Actor: "usr_eve", Target: "cns_1", Detail: map[string]string{"to": "usr_ann"}}, true},
		"handed in by her":       {audit.Event{Actor: "usr_eve", Target: "job_1", Detail: map[string]string{"act": "usr_ann"}}, true},
		"made from the token":    {audit.Event{Actor: "usr_eve", Target: "tok_e", Detail: map[string]string{"parent": "tok_a"}}, true},
		"archived with others":   {audit.Event{Actor: "system", Detail: map[string]string{"tokens": "tok_e tok_a tok_f"}}, true},
		"a token of that name":   {audit.Event{Actor: "usr_eve", Target: "tok_e", Detail: map[string]string{"name": "iris"}}, false},
		"another's":              {audit.Event{Actor: "usr_eve", Owner: "usr_eve", Token: "tok_e", Target: "job_1", Detail: map[string]string{"competition": "cats"}}, false},
		"of a hold that is over": {audit.Event{Actor: "usr_bob", Owner: "usr_bob", Token: "tok_b"}, false},
		"nobody's":               {audit.Event{}, false},
	} {
		if why := held.Line(&c.line); (why != "") != c.stays {
			t.Errorf("%s: %q", name, why)
		}
	}
}
