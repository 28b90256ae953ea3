package cli

import (
	"testing"

	"gradegate/api"
	"gradegate/internal/policy"
	"gradegate/internal/token"
)

// The doctor says that a token is quarantined, what that leaves, and both ways on.
func TestDoctorQuarantined(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.on("GET /v1/whoami", api.Whoami{User: ptr(ann()), TokenID: "tok_1", Kind: "pat", Mode: policy.ModeQuarantined})
	f.on("GET /version", api.Version{Version: "1.0.0"})
	got := m.run("", "doctor", "--url", f.url)
	for _, want := range []string{"the token is quarantined", "gradegate token revoke self", "gradegate token resume tok_1"} {
		got.want(t, exitForbidden, want, "")
	}
}
