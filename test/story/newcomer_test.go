package story

import (
	"strings"
	"testing"
)

// A role that somebody is given waits for a new sign-in. Who gives it is told so
// at once, and what the refusal says works as it is written.
func TestRoleNeedsSignIn(t *testing.T) {
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("bob", "login", "--invite", w.local("user", "invite", "bob", "-o", "secret"))
	again := "gradegate user invite bob --re-enrol"
	if _, errs, code := w.cli("boss", "user", "set", "bob", "--role", "admin"); code != 0 || !strings.Contains(errs, again) {
		t.Errorf("exit %d %s", code, errs)
	}
	_, errs, code := w.cli("bob", "user", "list")
	if code != 5 || !strings.Contains(errs, "fix: ") || !strings.Contains(errs, again) {
		t.Fatalf("exit %d %s", code, errs)
	}
	w.must("bob", "login", "--invite", w.must("boss", append(strings.Fields(again)[1:], "-o", "secret")...))
	w.must("bob", "user", "list")
}
