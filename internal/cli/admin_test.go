package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/bundle"
	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/token"
	"gradegate/internal/trail"
)

// TestCompetitionApply sends what the folder says, and nothing else that lies in it.
func TestCompetitionApply(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	m.write("iris/competition.yaml", `name: iris
metrics: [macro_f1, accuracy]
rank_by: accuracy
public: [train.csv, more/test.csv]
resources: {memory: 256MiB, time_limit: 2h}
quota: {per_day: 20}
`, 0o600)
	m.write("iris/train.csv", "a", 0o600)
	m.write("iris/more/test.csv", "b", 0o600)
	m.write("iris/hidden/labels.csv", "c", 0o600)
	m.write("iris/hidden/notes.txt", "mine", 0o600)
	m.write("iris/id_rsa", "mine", 0o600)
	f.handle("PUT /v1/competitions/iris", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil {
			t.Error(err)
			return
		}
		var spec api.Competition
		if err := json.Unmarshal([]byte(r.FormValue("spec")), &spec); err != nil {
			t.Error(err)
		}
		if !slices.Equal(spec.Metrics, []string{"accuracy", "macro_f1"}) || !spec.Open || spec.Resources.Memory != "256MiB" || spec.Quota.PerDay != 20 {
			t.Errorf("%+v", spec)
		}
		if got := unpacked(t, r); !slices.Equal(got, []string{"hidden/labels.csv", "more/test.csv", "train.csv"}) {
			t.Errorf("sent %v", got)
		}
		_ = json.NewEncoder(w).Encode(spec)
	})
	apply := []string{"competition", "apply", filepath.Join(m.home, "iris"), "--url", f.url}
	m.run("", apply...).want(t, 0, "0 GPUs", "Created.\n")
	before := api.Competition{
		Name: "iris", Metrics: []string{"accuracy", "macro_f1"}, Files: []string{"train.csv", "more/test.csv"}, Open: true,
		Resources: api.Resources{Memory: "256MiB", TimeLimit: "2h"}, Quota: api.QuotaRule{PerDay: 20},
	}
	f.on("GET /v1/competitions/iris", before)
	m.run("", apply...).want(t, 0, "0 GPUs", "Its description is unchanged.")
	before.Quota.PerDay, before.Open = 10, false
	f.on("GET /v1/competitions/iris", before)
	m.run("", apply...).want(t, 0, "0 GPUs", "Changed: quota, open. Its files were replaced")
}

func unpacked(t *testing.T, r *http.Request) (names []string) {
	t.Helper()
	file, head, err := r.FormFile("files")
	if err != nil {
		t.Error(err)
		return nil
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Error(err)
		return nil
	}
	defer func() { _ = root.Close() }()
	got, err := bundle.Unpack(root, "files", file, head.Size, bundle.DefaultLimits)
	if err != nil {
		t.Error(err)
	}
	for _, f := range got.Files {
		names = append(names, f.Path)
	}
	return names
}

func TestCompetitionFileMistakes(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	for text, want := range map[string]string{
		"name: iris\nmetric: [accuracy]\n":             "line 2: there is no key \"metric\"; did you mean \"metrics\"?\nkeys: accept, description, metrics",
		"name: iris\nresources: {gpus: many}\n":        "line 2: \"many\" does not fit: a whole number is wanted.",
		"name: iris\nresources: {gpu: 1}\n":            "line 2: there is no key \"gpu\" in resources; did you mean \"gpus\"?\nkeys: cpus, gpus,",
		"name: iris\nquota: {colour: 1}\n":             "line 2: there is no key \"colour\" in quota.\nkeys: concurrent, per_day",
		"name: iris\nquota: 3\n":                       "line 2: \"3\" does not fit: a block of keys is wanted.",
		"name: iris\nmetrics: [a]\nrank_by: b\n":       "rank_by names b",
		"name: iris\npublic: [../../etc/passwd]\n":     "outside of the folder",
		"name: iris\npublic: [missing.csv]\n":          "missing.csv",
		"name: iris\nmetrics: [a]\npublic: [a.csv]\n#": "hidden/labels.csv",
	} {
		dir := t.TempDir()
		m.write(filepath.Join(dir, "competition.yaml"), text, 0o600)
		m.write(filepath.Join(dir, "a.csv"), "x", 0o600)
		m.run("", "competition", "apply", dir, "--url", f.url).want(t, 2, "", want)
	}
	m.run("", "competition", "apply", t.TempDir(), "--url", f.url).want(t, 2, "", "competition.yaml")
	if len(f.requests()) != 0 {
		t.Errorf("sent %v", f.requests())
	}
}

func TestLeaderboard(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.on("GET /v1/competitions/iris/leaderboard", api.Leaderboard{Competition: "iris", Metric: "accuracy", Rows: []api.LeaderboardRow{
		{Rank: 1, User: "ann", Value: 0.9667, Job: "job_1", Submissions: 2}, {Rank: 2, User: "joe\x1b[2J", Value: 0.5, Job: "job_2", Submissions: 1},
	}})
	got := m.run("", "competition", "leaderboard", "iris", "--url", f.url)
	const want = `RANK  USER     ACCURACY  SUBMISSIONS  JOB
1     ann      0.9667    2            job_1
2     joe?[2J  0.5000    1            job_2
`
	if got.out != want {
		t.Errorf("got\n%swant\n%s", got.out, want)
	}
}

// TestStatus: the verdict first, the next step second, and no credential.
func TestStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]struct {
		http, exit int
		begin      string
	}{
		"ok":       {200, 0, "The server is well.\nstore"},
		"degraded": {200, 0, "The server serves, and something behind it does not work.\nnext: "},
		"unfit":    {503, 8, "The server does NOT serve as it should: it is unfit.\nnext: "},
	} {
		f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN=ggpat_damaged")
		m.write(m.hosts(), "tokens: {}", 0o600)
		f.handle("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(want.http)
			_ = json.NewEncoder(w).Encode(api.Health{Status: status, Checks: map[string]api.Check{"store": {Status: status, Detail: "A detail."}}})
		})
		got := m.run("", "status", "--url", f.url)
		got.want(t, want.exit, "A detail.", "")
		if !strings.HasPrefix(got.out, want.begin) || len(f.requests()) != 1 || f.last().token != "" {
			t.Errorf("%s: %s %v", status, got.out, f.requests())
		}
		m.run("", "status", "-o", "name", "--url", f.url).want(t, want.exit, status+"\n", "")
	}
}

func TestCheckConfig(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "GRADEGATE_TOKEN=x", "GRADEGATE_URL=https://x")
	m.env = append(m.env, "GRADEGATE_LEDGER_DIR="+filepath.Join(m.home, "ledger"))
	file := m.write("gradegate.yaml", "listen: 127.0.0.1:9\naudit: {sync: strict}\n", 0o600)
	got := m.run("", "check-config", "--config", file, "--listen", "127.0.0.1:0", "--data", filepath.Join(m.home, "gg"))
	got.want(t, 0, "(--listen)", "The configuration works.")
	for _, want := range []string{filepath.Join(m.home, "gg"), "(--data)", "(GRADEGATE_LEDGER_DIR)", "strict", "(" + file + ")", "(default)"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("lacks %s:\n%s", want, got.out)
		}
	}
	if wd, err := os.Getwd(); err != nil || !strings.Contains(m.run("", "check-config").out, filepath.Join(wd, "gradegate-data")) {
		t.Error("the data folder is not absolute: programs would run somewhere else", err)
	}
	m.run("", "check-config", "--listen", "0.0.0.0:80").want(t, 2, "", "Plain HTTP on 0.0.0.0:80")
	m.write("gradegate.yaml", "listen: 127.0.0.1:9\nlisten_: 1\n", 0o600)
	m.run("", "check-config", "--config", file).want(t, 2, "", `line 2: there is no setting "listen_"; did you mean "listen"?`)
	m.run("", "serve", "--config", file).want(t, 2, "", `line 2: there is no setting "listen_"; did you mean "listen"?`)
	m.env = append(m.env, "GRADEGATE_CONFIG=/nowhere")
	m.run("", "check-config").want(t, 2, "", "/nowhere")
}

func TestVersion(t *testing.T) {
	t.Parallel()
	newMachine(t).run("", "version", "-o", "json").want(t, 0, `"go": "go1.`, "")
}

// TestEndIsAnnounced in good time, and not on every use of a fresh token.
func TestEndIsAnnounced(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		kind         token.Kind
		left, reason string
		want         string
	}{
		{token.Personal, "518400", "expires_at", "ends in 6d. Your jobs go on; for a new one: gradegate token rotate"},
		{token.Personal, "6912000", "expires_at", ""},
		{token.Personal, "86400", "idle_expires_at", ""},
		{token.JobKind, "86400", "expires_at", ""},
		{token.Session, "36000", "max_expires_at", ""},
		{token.Session, "600", "max_expires_at", "ends in 10m. Your jobs go on; for a new one: gradegate token create --save"},
	} {
		f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(x.kind))
		f.handle("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Token-Expires-In", x.left)
			w.Header().Set("X-Token-Expires-Reason", x.reason)
			_, _ = io.WriteString(w, "{}")
		})
		got := m.run("", "whoami", "--url", f.url)
		if got.code != 0 || x.want == "" && got.errout != "" || !strings.Contains(got.errout, x.want) {
			t.Errorf("%+v: %d %q", x, got.code, got.errout)
		}
	}
}

// A rotation that is due is told on every command.
func TestRotationIsAnnounced(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.handle("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Token-Rotate-By", "2026-11-20T09:00:00Z")
		_, _ = io.WriteString(w, "{}")
	})
	if got := m.run("", "whoami", "--url", f.url); got.code != 0 || !strings.Contains(got.errout, "due since 2026-11-20") || !strings.Contains(got.errout, "gradegate token rotate") {
		t.Errorf("%d %q", got.code, got.errout)
	}
}

// TestAuditOffline reads and proves a trail with its files alone.
func TestAuditOffline(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir, ring, n := filepath.Join(m.home, "audit"), keys.New([keys.Size]byte{7}), 0
	tr, err := trail.Open(trail.Config{
		Dir: dir, Key: ring, Now: clock.Wall, NewID: func() string { n++; return fmt.Sprint("own_", n) }, Log: slog.New(slog.DiscardHandler), Preallocate: 4 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, who := range []string{"usr_ann", "usr_joe"} {
		e := audit.Event{ID: fmt.Sprint("evt_", i), At: time.Now(), Action: audit.TokenRevoke, Outcome: audit.Allow, Actor: who, Target: "tok_1"}
		if err := tr.Effects(t.Context(), []audit.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Record(t.Context(), audit.Event{ID: "evt_use", At: time.Now(), Action: audit.Request, Outcome: audit.Allow, Actor: "usr_ann"}, true); err != nil {
		t.Fatal(err)
	}
	key := tr.VerifierKey()
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}

	m.run("", "audit", "search", "--dir", dir, "--action", "token.", "--actor", "usr_joe", "--since", "1h", "-o", "name").want(t, 0, "evt_1\n", "")
	m.run("", "audit", "search", "--dir", dir, "--since", "yesterday").want(t, 2, "", "no point in time")
	if got := m.run("", "audit", "tail", "--dir", dir, "-o", "json"); got.code != 0 || strings.Count(got.out, "\n") != 3 || !strings.Contains(got.out, `"stream":"act"`) {
		t.Errorf("%d %s", got.code, got.out)
	}
	m.run("", "audit", "verify", "--dir", dir, "--key", key).want(t, 0, "The trail is whole.", "")
	m.run("", "audit", "verify", "--dir", dir, "--key", m.write("key", key+"\n", 0o600), "-o", "json").want(t, 0, `"ok": true`, "")
	m.run("", "audit", "verify", "--dir", dir, "--key", "nonsense").want(t, 2, "", "not one")
	m.run("", "audit", "verify", "--dir", filepath.Join(m.home, "none"), "--key", key).want(t, 2, "", "holds no audit trail")

	// One changed letter shows.
	files, err := filepath.Glob(filepath.Join(dir, "act", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, p := range files {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		m.write(p, strings.ReplaceAll(string(data), "usr_joe", "usr_ann"), 0o600)
	}
	m.run("", "audit", "verify", "--dir", dir, "--key", key).want(t, 1, "The trail is NOT whole:", "does not verify")
}

func TestAuditThroughTheServer(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.on("GET /v1/audit/events", api.Page[api.AuditEvent]{Items: []api.AuditEvent{{ID: "evt_1", At: birth, Stream: "act", Action: "token.revoke", Outcome: "done", Actor: "usr_1", Reason: "x\x1b[2J"}}})
	m.run("", "audit", "search", "--actor", "ann", "--ip", "10.0.0.1", "--since", "24h", "--url", f.url).want(t, 0, "token.revoke  done", "")
	if f.last().route != "GET /v1/audit/events?actor=ann&ip=10.0.0.1&limit=100&since=24h" {
		t.Error(f.last().route)
	}
	m.run("", "audit", "tail", "-n", "5", "--url", f.url).want(t, 0, "2026-11-24T09:00:00.000Z  act  token.revoke  done  usr_1  -  -  -  x?[2J\n", "")
	f.handle("GET /.well-known/gradegate-trail-key", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "gradegate+1+x\n") })
	m.run("", "audit", "key", "--url", f.url).want(t, 0, "gradegate+1+x\n", "")
	if f.last().token != "" {
		t.Error("the key is public: no credential is shown for it")
	}
}
