package hindsight

import (
	"testing"

	"gradegate/internal/audit"
)

// Whatever the reason, one check failed, those before it passed, none behind it
// was reached, and there is a way on.
func TestEveryCause(t *testing.T) {
	known := map[string]bool{}
	for _, s := range steps {
		known[s.name] = true
	}
	reasons := map[string]bool{"": true, "bundle_empty": true, "quota_submissions": true}
	for r, c := range causes {
		reasons[r] = true
		if !known[c.check] {
			t.Errorf("%s fails a check that there is none of: %s", r, c.check)
		}
	}
	for r := range reasons {
		for _, status := range []int{400, 401, 403, 404, 409, 429, 503} {
			x := Explain(&audit.Event{Outcome: audit.Deny, Reason: r, Status: status, Token: "tok_1"})
			failed := 0
			for _, c := range x.Checks {
				want := Passed
				if failed > 0 {
					want = NotReached
				}
				if c.Result == Failed {
					failed++
				} else if c.Result != want {
					t.Errorf("%s: %+v", r, x.Checks)
				}
			}
			if failed != 1 || x.Fix == "" || x.Summary == "" || x.Allowed {
				t.Errorf("%s: %+v", r, x)
			}
		}
	}
}
