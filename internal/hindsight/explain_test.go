package hindsight

import (
	"strings"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/policy"
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
			x := Explain(&audit.Event{Outcome: audit.Deny, Reason: r, Status: status, Token: "tok_1"}, Known{})
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

// A refusal is mended by what shows that it would not be refused any more, and by
// nothing else.
func TestMended(t *testing.T) {
	refused := audit.Event{Outcome: audit.Deny, Request: "req_1", Route: "POST /v1/tokens", Addr: "192.0.2.1", Competition: "iris", Target: "job_1"}
	use := refused
	use.Outcome, use.Request = audit.Allow, "req_2"
	elsewhere := use
	elsewhere.Route, elsewhere.Addr = "GET /v1/jobs", "192.0.2.2"
	for _, c := range []struct {
		reason         string
		same, whatever bool
	}{{"token_suspended", true, true}, {"rate_limited", true, true}, {"ip_denied", true, false}, {"token_limit", true, false}, {"consent_missing", true, false}} {
		r := refused
		r.Reason = c.reason
		if Mended(&r, &use) != c.same || Mended(&r, &elsewhere) != c.whatever {
			t.Errorf("%s: by the same %v, by something else %v", c.reason, Mended(&r, &use), Mended(&r, &elsewhere))
		}
		for name, change := range map[string]func(*audit.Event){
			"refused again": func(e *audit.Event) { e.Outcome = audit.Deny }, "its own announcement": func(e *audit.Event) { e.Request = "req_1" },
			"asked why": func(e *audit.Event) { e.Mode = "ended" }, "read within a day of its end": func(e *audit.Event) { e.Mode = "expired-read" },
		} {
			u := use
			change(&u)
			if Mended(&r, &u) {
				t.Errorf("%s is mended, though it was %s", c.reason, name)
			}
		}
	}
}

// Whose token is quarantined learns that, and not that a right is missing which the
// token had a moment ago.
func TestQuarantinedIsSaid(t *testing.T) {
	for mode, want := range map[string]bool{policy.ModeQuarantined: true, "": false} {
		x := Explain(&audit.Event{Outcome: audit.Deny, Reason: "denied", Status: 403, Token: "tok_1", Mode: mode}, Known{})
		said := strings.Contains(x.Summary, "it is quarantined") && strings.Contains(x.Fix, "gradegate token resume tok_1")
		if said != want {
			t.Errorf("in mode %q: %s %s", mode, x.Summary, x.Fix)
		}
	}
}
