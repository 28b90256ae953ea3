package story

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gradegate/api"
)

type doctorSays struct {
	Status string
	Checks []struct{ Name, Status, Detail, Fix string }
}

// of is the worst of the checks of a name, with its text.
func (d doctorSays) of(name string) (status, text string) {
	for _, c := range d.Checks {
		if c.Name == name && status != "problem" && (status != "warning" || c.Status == "problem") {
			status, text = c.Status, c.Detail+" "+c.Fix
		}
	}
	return status, text
}

func (w *world) doctor(who string, exit int, args ...string) doctorSays {
	w.t.Helper()
	out, errs, code := w.cli(who, append([]string{"doctor", "-o", "json"}, args...)...)
	var d doctorSays
	if err := json.Unmarshal([]byte(out), &d); err != nil || code != exit {
		w.t.Fatalf("doctor %v: exit %d, want %d, %v\n%s%s", args, code, exit, err, out, errs)
	}
	if strings.Contains(out+errs, "ggpat_") || strings.Contains(out+errs, "ggses_") {
		w.t.Errorf("a secret is shown: %s%s", out, errs)
	}
	return d
}

// B16: the doctor finds what is wrong, whatever that is, and names a way on.
func TestDoctor(t *testing.T) {
	w := start(t)
	expect := func(d doctorSays, want map[string]string, texts ...string) {
		t.Helper()
		all := ""
		for _, c := range d.Checks {
			all += c.Name + " " + c.Detail + " " + c.Fix + "\n"
			if c.Status != "ok" && c.Status != "skipped" && c.Fix == "" {
				t.Errorf("no way on: %+v", c)
			}
		}
		for name, status := range want {
			if got, _ := d.of(name); got != status {
				t.Errorf("%s is %q, want %q:\n%s", name, got, status, all)
			}
		}
		for _, s := range texts {
			if !strings.Contains(all, s) {
				t.Errorf("%q is not said:\n%s", s, all)
			}
		}
	}
	// A new user, with nothing.
	expect(w.doctor("ann", 4), map[string]string{"credential": "problem", "server": "ok", "clock": "ok"}, "login --url "+w.url)
	expect(w.doctor("ann", 4, "--url", "http://127.0.0.1:1"), map[string]string{"server": "problem"}, "gradegate serve")
	expect(w.doctor("ann", 2, "--url", "ftp://x", "--token-file", w.file("some", "x")), map[string]string{"credential": "problem"})

	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	expect(w.doctor("ann", 0), map[string]string{
		"program": "ok", "address": "ok", "credential": "ok", "files": "ok", "token form": "ok", "proxy": "ok", "server": "ok", "clock": "ok",
		"whoami": "ok", "end": "ok", "scopes": "ok", "network": "ok", "sharing": "ok", "refusals": "ok",
	}, "127.0.0.1")

	// A second token that hides the first, is for reading, and is the team's.
	secret := w.must("ann", "token", "create", "--name", "team-ci", "--scope", "jobs:read", "-o", "secret")
	file := w.file("token", secret)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	_, errs, _ := w.cli("ann", "token", "list", "--token-file", file)
	if !strings.Contains(errs, "why: gradegate explain req_") {
		t.Errorf("the refusal does not say how to ask: %s", errs)
	}
	expect(w.doctor("ann", 0, "--token-file", file), map[string]string{
		"credential": "warning", "files": "warning", "scopes": "warning", "sharing": "warning", "refusal": "warning", "whoami": "ok",
	}, "chmod 600 "+file, "jobs:submit", "--submitted-by", "tokens:self")

	// Cut off; unknown; dead.
	expect(w.doctor("ann", 4, "--token-file", w.file("cut", secret[:40])), map[string]string{"credential": "problem", "server": "ok"}, "40 characters")
	request := requestRE.FindString(errs)
	w.must("ann", "token", "revoke", "team-ci")
	expect(w.doctor("ann", 4, "--token-file", file), map[string]string{"whoami": "problem", "token form": "ok", "refusal": "warning"}, "revoked", request)
	// What it was refused itself it does not tell, and what has worked since neither.
	if all := w.must("ann", "doctor"); strings.Contains(all, "refusal ") {
		t.Errorf("%s", all)
	}
	for _, c := range w.doctor("ann", 4, "--token-file", file).Checks {
		if c.Name == "refusal" && strings.Contains(c.Detail, "whoami") {
			t.Errorf("it tells of itself: %s", c.Detail)
		}
	}
	x := object[api.Explanation](t, w.must("ann", "explain", request, "--token-file", file, "-o", "json"))
	if x.Reason != "scope_missing" || x.TokenName != "team-ci" || len(x.Missing) != 1 || x.Missing[0] != "tokens:self" {
		t.Errorf("%+v", x)
	}
	if out := w.must("ann", "explain", request); !strings.Contains(out, "FAILED") || !strings.Contains(out, "tokens:self") {
		t.Errorf("%s", out)
	}
	w.must("bob", "login", "--invite", w.local("user", "invite", "bob", "-o", "secret"))
	if _, errs, code := w.cli("bob", "explain", request); code != 3 || strings.Contains(errs, "ann") {
		t.Errorf("somebody else: exit %d %s", code, errs)
	}

	// What login keeps, opened to others.
	hosts := filepath.Join(w.dir, "home", "ann", ".config", "gradegate", "hosts.yaml")
	if err := os.Chmod(hosts, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(w.doctor("ann", 4), map[string]string{"credential": "problem", "files": "problem"}, "chmod 600 "+hosts)
}
