package httpapi

import (
	"context"
	"net/http"
	"testing"

	"gradegate/api"
	"gradegate/internal/fault"
)

// keepsAll is a trail of which nothing is old enough.
type keepsAll struct{}

func (keepsAll) Trim(context.Context, string, bool) ([]api.Trim, error) { return nil, nil }
func (keepsAll) Trims() ([]api.Trim, error)                             { return nil, nil }

// doubtful is a trail that drops nothing for now; it notes who asked.
type doubtful struct {
	keepsAll
	asked map[string]bool // by actor: was it a dry run
}

func (d doubtful) Trim(_ context.Context, actor string, dry bool) ([]api.Trim, error) {
	d.asked[actor] = dry
	return nil, fault.New(fault.Unavailable, "clock_in_doubt", "The clock is in doubt.").WithFix("gradegate clock confirm")
}

// R9.7: why nothing is dropped is an answer with its reason, and the trail's line
// names who asked.
func TestTrimRefused(t *testing.T) {
	d := doubtful{asked: map[string]bool{}}
	w := build(t, func(deps *Deps) { deps.Retention = d })
	for method, dry := range map[string]bool{get: true, post: false} {
		a := w.ask(t, method, "/v1/audit/trim", w.root, "")
		if was, asked := d.asked["usr_root"]; a.status != http.StatusServiceUnavailable || a.code() != "clock_in_doubt" || !asked || was != dry {
			t.Errorf("%s: %d %s %v", method, a.status, a.body, d.asked)
		}
	}
}
