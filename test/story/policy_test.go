package story

import (
	"strings"
	"testing"
	"time"

	"gradegate/api"
)

// What an administrator demands of a group is previewed, holds for the people in
// it from then on, and every answer names whose demand it is.
func TestPolicyByHand(t *testing.T) {
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	w.must("ann", "token", "create", "--name", "laptop", "--save")
	w.must("ann", "whoami") // a token that was never used ends by another clock
	show := func() api.Token { return object[api.Token](t, w.must("ann", "token", "show", "self", "-o", "json")) }
	if k := show(); k.EffectivePolicy != "platform" {
		t.Fatalf("%+v", k)
	}
	if u := object[api.User](t, w.must("boss", "user", "set", "ann", "--group", "interns", "-o", "json")); len(u.Groups) != 1 || u.Groups[0] != "interns" {
		t.Errorf("%+v", u)
	}

	// A preview says whom it touches, and changes nothing.
	set := []string{"policy", "set", "interns", "--idle", "7d", "--max-lifetime", "90d", "--lifetime", "30d"}
	out, errs, exit := w.cli("boss", append(set, "--preview")...)
	if exit != 0 || !strings.Contains(out, "laptop of ann") || !strings.Contains(out, "ends earlier") || !strings.Contains(errs, "Nothing was changed.") {
		t.Errorf("exit %d %s%s", exit, out, errs)
	}
	if k := show(); k.EffectivePolicy != "platform" {
		t.Errorf("a preview took effect: %+v", k)
	}

	// Without a date it comes later, since a token ends earlier by it; with one, then.
	p := object[api.PolicySet](t, w.must("boss", append(set, "-o", "json")...))
	if p.Policy.Coming == nil || p.Policy.Coming.Idle != "7d" || p.Total != 1 {
		t.Errorf("%+v", p)
	}
	if k := show(); p.Policy.ComingAt == nil || k.EffectiveExpiresAt.Before(p.Policy.ComingAt.Add(-time.Minute)) {
		t.Errorf("it ends a token before its time: %+v", k)
	}
	w.must("boss", append(set, "--from", time.Now().UTC().Format(time.RFC3339))...)
	if k := show(); k.EffectivePolicy != "group:interns" || k.EffectiveReason != "idle_expires_at" || k.EffectiveExpiresAt.After(time.Now().Add(8*24*time.Hour)) {
		t.Errorf("%+v", k)
	}
	if out := w.must("ann", "token", "show", "laptop"); !strings.Contains(out, "policy of the group interns") {
		t.Errorf("the table does not name the group:\n%s", out)
	}
	if out := w.must("boss", "policy", "list"); !strings.Contains(out, "group:interns  lifetime 30d, max-lifetime 90d, idle 7d") {
		t.Error(out)
	}

	// A renewal goes as far as the group lets it.
	r := object[api.Renewed](t, w.must("ann", "token", "renew", "-o", "json"))
	if r.EffectiveEnd == nil || r.EffectiveEnd.After(time.Now().Add(8*24*time.Hour)) || r.Token.EffectivePolicy != "group:interns" {
		t.Errorf("%+v", r)
	}

	// Out of the group, the platform's demands hold again; and only an
	// administrator makes demands.
	w.must("boss", "user", "set", "ann", "--group", "none")
	if k := show(); k.EffectivePolicy != "platform" {
		t.Errorf("%+v", k)
	}
	if _, errs, exit := w.cli("ann", "policy", "set", "interns", "--idle", "30d"); exit != 5 {
		t.Errorf("ann: exit %d %s", exit, errs)
	}
	if out := w.local("clock", "show"); !strings.Contains(out, "believed            yes") {
		t.Error(out)
	}
}

// Two machines: by default a person has one token, which is copied; a policy
// allows more. Signing out of one machine leaves the other at work.
func TestTwoMachines(t *testing.T) {
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	w.must("ann", "token", "create", "--name", "laptop", "--save")
	secret := w.must("ann", "token", "print")
	w.must("ann-desktop", "login", "--token-file", w.file("copied", secret))
	_, errs, exit := w.cli("ann-desktop", "logout")
	if exit != 0 || !strings.Contains(errs, "stays active") {
		t.Errorf("exit %d %s", exit, errs)
	}
	if _, _, exit := w.cli("ann-desktop", "whoami"); exit != 4 {
		t.Errorf("signed out: exit %d", exit)
	}
	w.must("ann", "whoami")

	if _, _, exit := w.cli("ann", "token", "create", "--name", "desktop"); exit != 6 {
		t.Errorf("a second token: exit %d", exit)
	}
	w.must("boss", "policy", "set", "platform", "--max-per-user", "2")
	second := w.must("ann", "token", "create", "--name", "desktop", "-o", "secret")
	w.must("ann-desktop", "login", "--token-file", w.file("second", second))
	w.must("ann-desktop", "logout", "--revoke")
	w.must("ann", "whoami")
	if list := w.must("ann", "token", "list"); strings.Contains(list, "desktop") || !strings.Contains(list, "laptop") {
		t.Errorf("the living ones are:\n%s", list)
	}
	if list := w.must("ann", "token", "list", "--all"); !strings.Contains(list, "desktop") || !strings.Contains(list, "invite    used") {
		t.Errorf("all are:\n%s", list)
	}
}

// Whoever signs in where somebody else is signed in hears whose session ended.
func TestLoginOverSomebody(t *testing.T) {
	w := start(t)
	w.must("shared", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	old := object[api.Whoami](t, w.must("shared", "whoami", "-o", "json")).TokenID
	code := w.local("user", "invite", "joe", "-o", "secret")
	_, errs, exit := w.cli("shared", "login", "--invite", code)
	if exit != 0 || !strings.Contains(errs, "Ended the session "+old+", ann's,") {
		t.Errorf("exit %d %s", exit, errs)
	}
	if me := object[api.Whoami](t, w.must("shared", "whoami", "-o", "json")); me.User.Name != "joe" {
		t.Errorf("%+v", me)
	}
	if list := w.local("user", "tokens", "ann"); strings.Contains(list, old) {
		t.Errorf("ann's session lives on:\n%s", list)
	}
}
