package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gradegate/internal/config"
)

// TestCheckConfigTriesFolders: what the configuration names is tried, and
// nothing is made or left behind.
func TestCheckConfigTriesFolders(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	data := filepath.Join(m.home, "data")
	check := func(args ...string) done {
		return m.run("", append([]string{"check-config", "--data", data}, args...)...)
	}
	check().want(t, 0, "is not there yet; the first start makes it", "The configuration works.")
	if _, err := os.Stat(data); err == nil {
		t.Error("the folder was made")
	}
	key := m.write(filepath.Join(data, "root.key"), "x", 0o600)
	check().want(t, 0, "on the same disk as "+data+": both would be lost together", "The configuration works.")
	check().want(t, 0, "is there, for its owner alone", "")
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	check().want(t, 2, "bad", "error: key_file: "+key+" can be read by others (mode 0640).\nfix: chmod 600 "+key)
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(data, 0o755); err != nil { //nolint:gosec // that is what is to be found
		t.Fatal(err)
	}
	check().want(t, 0, "can be entered or read by others (mode 0755)", "")
	file := m.write("file", "x", 0o600)
	check("--ledger", filepath.Join(file, "ledger")).want(t, 2, "", "error: ledger.dir: ")
	check("--ledger", "/proc/nowhere/ledger").want(t, 2, "", "cannot be made in /proc")
	left, err := os.ReadDir(data)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
	long := filepath.Join(m.home, strings.Repeat("x", 100))
	m.run("", "check-config", "--data", long).want(t, 2, "", "too long for a socket")
	m.run("", "check-config", "--config", m.write("tls.yaml", "tls: {cert: /nope.pem, key: /nope.key}\n", 0o600), "--data", data).
		want(t, 2, "", "error: tls: /nope.pem cannot be used with the key /nope.key: open /nope.pem: no such file or directory.\n")
	m.run("", "check-config", "--config", m.write("typo.yaml", "policy:\n  lifetme: 90d\n", 0o600)).
		want(t, 2, "", `line 2: there is no setting "lifetme" in policy; did you mean "lifetime"?`+"\nkeys: max_per_user lifetime max_lifetime\n")
	m.run("", "serve", "--config", m.write("limits.yaml", "limits: {submits: 0}\n", 0o600), "--data", data).want(t, 2, "", "error: limits.submits is below 1.\n")
}

// TestCheckConfigAsJSON: every setting and every check, and a bad one as a
// problem beside them.
func TestCheckConfigAsJSON(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	got := m.run("", "check-config", "--data", m.home, "--ledger", "/proc/nowhere", "-o", "json")
	var all struct {
		Settings []config.Setting
		Checks   []trial
	}
	if err := json.Unmarshal([]byte(got.out), &all); err != nil || got.code != 2 || len(all.Settings) < 25 || len(all.Checks) != 4 {
		t.Fatalf("%d %v: %d settings, %d checks", got.code, err, len(all.Settings), len(all.Checks))
	}
	if s := all.Settings[0]; s.Name != "data" || s.Value != m.home || s.Origin != "--data" || s.Doc == "" {
		t.Errorf("%+v", s)
	}
	if c := all.Checks[1]; c.Name != "ledger.dir" || c.Status != "bad" || c.Path != "/proc/nowhere" {
		t.Errorf("%+v", c)
	}
	var p struct{ Code, Fix string }
	if err := json.Unmarshal([]byte(got.errout), &p); err != nil || p.Code != "config_unusable" || p.Fix == "" {
		t.Errorf("%v %s", err, got.errout)
	}
}
