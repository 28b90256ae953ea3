package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gradegate/internal/fault"
)

func file(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "gradegate.yaml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPrecedence(t *testing.T) {
	f := file(t, "listen: 127.0.0.1:1\nledger: {dir: /file}\npolicy: {lifetime: 30d}\n")
	c, from, err := Load(f, []string{"GRADEGATE_LEDGER_DIR=/env", "GRADEGATE_EXECUTOR_LOCAL_GPUS=0, 1", "GRADEGATE_EXECUTOR_LOCAL_SLOTS=3", "GRADEGATE_TOKEN=x", "HOME=/"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:1" || c.Ledger.Dir != "/env" || time.Duration(c.Policy.Lifetime) != 30*24*time.Hour ||
		len(c.Executor.Local.GPUs) != 2 || c.Executor.Local.Slots != 3 || c.Audit.Sync != "normal" {
		t.Errorf("%+v", c)
	}
	if from["listen"] != f || from["ledger.dir"] != "GRADEGATE_LEDGER_DIR" || from["audit.sync"] != "" {
		t.Errorf("%v", from)
	}
	var out strings.Builder
	if err := c.Describe(&out, from); err != nil || !strings.Contains(out.String(), "(GRADEGATE_LEDGER_DIR)") {
		t.Error(out.String(), err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"listen: 1\nlisten_: 2\n":            "line 2",
		"executor: {local: {slots: many}}\n": "line 1",
		"policy: {lifetime: ninety}\n":       "ninety",
		"a: b: c\n":                          "mapping",
	} {
		if _, _, err := Load(file(t, text), nil); err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"executor:\n  local:\n    slot: 1\n":      `line 3: there is no setting "slot" in executor.local.`,
		"listen: x\nlisten_: y\n":                 `line 2: there is no setting "listen_".`,
		"executor: {local: {slots: many}}\n":      "line 1: executor.local.slots: `many` does not fit (a whole number is wanted).",
		"executor:\n  local:\n    slots: []\n":    "line 3: executor.local.slots: what stands there does not fit (a whole number is wanted).",
		"policy:\n  lifetime: 3x\n":               `line 2: policy.lifetime: "3x" is no duration, such as 90d or 12h.`,
		"policy:\n  lifetime: [1d]\n":             "line 2: policy.lifetime: one value is wanted.",
		"ledger: /mnt/other\n":                    "line 1: ledger does not fit (a block of keys is wanted).",
		"tls:\npolicy: {max_lifetime: 1y}\n":      `line 2: policy.max_lifetime: "1y" is no duration`,
		"policy: &p {lifetime: 1w}\nlimits: *p\n": `line 1: policy.lifetime: "1w" is no duration`,
		"- a\n": "line 1: what stands there does not fit (a block of keys is wanted).",
	} {
		if _, _, err := Load(file(t, text), nil); err == nil || !strings.Contains(fault.Of(err).Detail, ": "+want) || strings.Contains(fault.Of(err).Detail, "struct") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, _, err := Load(file(t, "listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n"), nil); fault.CodeOf(err) != "config_invalid" {
		t.Error("a second document:", err)
	}
	for kv, want := range map[string]string{
		"GRADEGATE_INSECURE=maybe":            "neither true nor false",
		"GRADEGATE_EXECUTOR_LOCAL_SLOTS=many": "no number",
		"GRADEGATE_POLICY_LIFETIME=":          "a duration is wanted",
	} {
		if _, _, err := Load("", []string{kv}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kv, err)
		}
	}
	if _, _, err := Load("", []string{"GRADEGATE_LISTN=x"}); fault.CodeOf(err) != "config_unknown" {
		t.Error(err)
	}
	if _, _, err := Load("/nowhere", nil); fault.CodeOf(err) != "config_missing" {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	if err := Default().Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"open to the network": func(c *Config) { c.Listen = "0.0.0.0:80" },
		"no port":             func(c *Config) { c.Listen = "localhost" },
		"half of tls":         func(c *Config) { c.TLS.Cert = "x" },
		"bad network":         func(c *Config) { c.TrustedProxies = []string{"10.0.0.0/33"} },
		"sync":                func(c *Config) { c.Audit.Sync = "sometimes" },
		"executor":            func(c *Config) { c.Executor.Kind = "moon" },
		"lifetime":            func(c *Config) { c.Policy.Lifetime = 1 },
		"port":                func(c *Config) { c.Listen = "127.0.0.1:http-alt" },
		"high port":           func(c *Config) { c.AdminListen = "127.0.0.1:70000" },
		"no brackets":         func(c *Config) { c.Listen = "::1:80" },
		"slots":               func(c *Config) { c.Executor.Local.Slots = -1 },
		"public url":          func(c *Config) { c.PublicURL = "grade.example.org" },
		"database":            func(c *Config) { c.Database.Jobs = "jobs.db" },
		"retention":           func(c *Config) { c.Retention.Uses = Duration(59 * 24 * time.Hour) },
		"limits.cancels":      func(c *Config) { c.Limits.Cancels = 0 },
	} {
		c := Default()
		change(&c)
		if err := c.Check(); err == nil || fault.Of(err).Fix == "" || strings.HasPrefix(name, "limits.") && fault.Of(err).Detail != name+" is below 1." {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := Default()
	c.Listen, c.TrustedProxies = "0.0.0.0:80", []string{"10.0.0.1", "fd00::/8"}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestForeignVariables: what Kubernetes and the command line put into the
// environment is no mistake of the administrator.
func TestForeignVariables(t *testing.T) {
	c, from, err := Load("", []string{
		"GRADEGATE_PORT=tcp://10.0.0.1:80", "GRADEGATE_PORT_80_TCP=tcp://10.0.0.1:80", "GRADEGATE_SERVICE_HOST=10.0.0.1",
		"GRADEGATE_URL=https://grade.example.org", "GRADEGATE_TOKEN_FILE=/t", "GRADEGATE_INSECURE=1", "GRADEGATE_TRUSTED_PROXIES=fd00::, 10.0.0.0/8,",
	})
	if err != nil || len(from) != 2 || !c.Insecure || len(c.TrustedProxies) != 2 || c.TrustedProxies[0] != "fd00::" {
		t.Errorf("%v %v %v", c, from, err)
	}
}

func TestDescribeHidesPasswords(t *testing.T) {
	c := Default()
	c.Database.Tokens = "postgres://gradegate:hunter2@db/gg"
	c.Database.Jobs = "postgres://db/gg?user=a&password=hunter2"
	var out strings.Builder
	if err := c.Describe(&out, nil); err != nil || strings.Contains(out.String(), "hunter2") || !strings.Contains(out.String(), "gradegate:xxxxx@db") {
		t.Error(out.String(), err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	c.Database.Tokens = "mysql://root:hunter2@db"
	if err := c.Check(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}

func TestUnits(t *testing.T) {
	for in, want := range map[string]time.Duration{"90d": 2160 * time.Hour, "1d12h": 36 * time.Hour, "15m": 15 * time.Minute, "0": 0} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"", "d", "-1d", "-1h", "1d-2h", "1x", "1d1", "99999999d", "36500d2500000h"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	for in, want := range map[string]int64{"256MiB": 256 << 20, "1 GiB": 1 << 30, "5MB": 5_000_000, "0B": 0} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("%s: %v %v", in, got, err)
		}
	}
	for _, in := range []string{"", "MiB", "-1B", "1.5GiB", "9999999999TiB", "12"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
	for _, n := range []int64{0, 1, 1 << 10, 3 << 30, 1000} {
		if back, err := ParseBytes(FormatBytes(n)); err != nil || back != n {
			t.Errorf("%d: %s", n, FormatBytes(n))
		}
	}
}
