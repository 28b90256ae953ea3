package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/clock"
	"gradegate/internal/keys"
	"gradegate/internal/token"
	"gradegate/internal/trail"
)

// trailIn writes a trail: of each minute an act at its begin, and a use.
func trailIn(t *testing.T, dir string, minutes int) (key string) {
	t.Helper()
	return trailFrom(t, dir, 0, minutes)
}

func trailFrom(t *testing.T, dir string, from, to int) (key string) {
	t.Helper()
	n := 0
	tr, err := trail.Open(trail.Config{
		Dir: dir, Key: keys.New([keys.Size]byte{7}), Now: clock.Wall, NewID: func() string { n++; return fmt.Sprint("own_", n) },
		Log: slog.New(slog.DiscardHandler), Preallocate: 4 << 10,
	})
	if err != nil {
		t.Error(err) // it may run beside the test
		return ""
	}
	for i := from; i < to; i++ {
		at := birth.Add(time.Duration(i) * time.Minute)
		act := audit.Event{ID: fmt.Sprint("act_", i), At: at, Action: audit.TokenRevoke, Outcome: audit.Done, Actor: "usr_ann", Target: "tok_1"}
		use := audit.Event{ID: fmt.Sprint("use_", i), At: at.Add(30 * time.Second), Action: audit.Request, Outcome: audit.Allow, Actor: "usr_ann", Route: "GET /v1/whoami"}
		if err := tr.Effects(t.Context(), []audit.Event{act}); err != nil {
			t.Error(err) // it may run beside the test
			return ""
		}
		if err := tr.Record(t.Context(), use, true); err != nil {
			t.Error(err) // it may run beside the test
			return ""
		}
	}
	if err := tr.Close(); err != nil {
		t.Error(err) // it may run beside the test
		return ""
	}
	return tr.VerifierKey()
}

// TestUnknownFilters: a search for what cannot be is a mistake, and not an
// empty answer that looks like nothing happened. The fix is a command that works.
func TestUnknownFilters(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.on("GET /v1/audit/events", api.Page[api.AuditEvent]{})
	for line, want := range map[string]string{
		"search --action token.revok":   "There is no action \"token.revok\"; did you mean \"token.revoke\"?\nchoices: token.revoke ",
		"search --action tokens.":       `did you mean "token."?`,
		"search --action login":         "choices: ",
		"search --outcome denied":       "did you mean \"deny\"?\nchoices: deny ",
		"search --stream acts":          "did you mean \"act\"?\nchoices: act use\n",
		"search --ip 1.2.3":             "--ip wants an address such as",
		"tail --stream usage":           "did you mean \"use\"?\nchoices: use act\n",
		"checkpoint --stream both":      "There is no stream \"both\"",
		"tail --stream all --dir there": "There is no stream \"all\"",
	} {
		got := m.run("", append(strings.Fields("audit "+line), "--url", f.url)...)
		got.want(t, 2, "", want)
		_, fix, ok := strings.Cut(got.errout, "\nfix: gradegate ")
		if !ok || len(f.requests()) != 0 {
			t.Errorf("%s: %q, asked %v", line, got.errout, f.requests())
		}
		if again := m.run("", append(strings.Fields(fix), "--url", f.url)...); again.code == exitUsage {
			t.Errorf("%s: its fix %q is a mistake as well: %s", line, fix, again.errout)
		}
		f.mu.Lock()
		f.asked = nil
		f.mu.Unlock()
	}
	for _, good := range []string{"token.", "token.revoke", "authenticate.more", "request"} {
		m.run("", "audit", "search", "--action", good, "--ip", "192.0.2.0/24", "--stream", "act", "--outcome", "done", "--url", f.url).want(t, 0, "WHEN", "")
	}
}

// TestSecretIsNotSearchedFor: a secret in the place of an id is not sent, since
// the request would be written down, and not repeated.
func TestSecretIsNotSearchedFor(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	secret := secretOf(token.Personal)
	for _, flag := range []string{"--token", "--target", "--actor"} {
		got := m.run("", "audit", "search", flag, secret, "--url", f.url)
		got.want(t, 2, "", "\nfix: gradegate audit search "+flag+" "+idOf(t, secret)+"\n")
		if len(f.requests()) != 0 || strings.Contains(got.errout, secret[20:40]) {
			t.Errorf("%s: %q, asked %v", flag, got.errout, f.requests())
		}
	}
}

// TestAuditTable: a line of the table says who did what, by which way, with
// which token, from where and with what end, in 120 columns.
func TestAuditTable(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	f.on("GET /v1/users", api.Page[api.User]{Items: []api.User{{ID: "usr_1", Name: "ann"}}})
	f.on("GET /v1/audit/events", api.Page[api.AuditEvent]{Items: []api.AuditEvent{
		{ID: "evt_1", At: birth, Action: "request", Outcome: "deny", Actor: "usr_1", Token: "tok_000000000001", Route: "GET /v1/whoami", Addr: "192.0.2.1", Reason: "token_expired"},
		{ID: "evt_2", At: birth, Action: "token.revoke", Outcome: "done", Actor: "usr_2", Target: "tok_2", Route: "ignored"},
		{ID: "evt_3", At: birth, Action: "authenticate.more", Outcome: "deny", Addr: "198.51.0.0/24", Reason: "token_unknown", Count: 7},
		{ID: "evt_4", At: birth, Action: "authenticate.more", Outcome: "deny", Addr: "198.51.0.0/16", Count: 9, Detail: map[string]string{"addresses": "5"}},
	}})
	got := m.run("", "audit", "search", "--url", f.url)
	for _, row := range []string{
		"WHEN WHAT OUTCOME WHO TOKEN FROM WHY",
		" GET /v1/whoami deny ann tok_000000000001 192.0.2.1 token_expired\n",
		" token.revoke tok_2 done usr_2 - - -\n",
		" authenticate.more ×9 deny - - 198.51.0.0/16 (5) -\n",
		" authenticate.more ×7 deny - - 198.51.0.0/24 token_unknown\n",
	} {
		if plain := strings.Join(strings.FieldsFunc(got.out, func(r rune) bool { return r == ' ' }), " "); !strings.Contains(plain, row) {
			t.Errorf("no %q in\n%s", row, got.out)
		}
	}
	long := func(begin string) string { return begin + strings.Repeat("ä", 200) }
	f.on("GET /v1/audit/events", api.Page[api.AuditEvent]{Items: []api.AuditEvent{
		{ID: "evt_1", At: birth, Action: "request", Outcome: "allow", Actor: long("usr_"), Token: long("tok_000"), Route: long("POST /v1/competitions/{id}/jobs"), Addr: "2001:db8:1234:5678:9abc:def0:1234:5678", Reason: long("competition_")},
		{ID: "evt_2", At: birth, Action: "competition.apply", Outcome: "allow"},
	}})
	got = m.run("", "audit", "search", "--url", f.url)
	for row := range strings.Lines(got.out) {
		if n := utf8.RuneCountInString(row); n > 121 {
			t.Errorf("%d columns: %s", n, row)
		}
	}
	for _, want := range []string{"POST /v1/competitions/{id}/j", "usr_äää", "tok_000ä", "2001:db8:1234:", "competition_"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("too little is left of %s:\n%s", want, got.out)
		}
	}
	// Who may not see the users sees their ids, and programs get what there is.
	f.handle("GET /v1/users", func(w http.ResponseWriter, _ *http.Request) { f.refuse(w, 403, "denied", "No.", "") })
	m.run("", "audit", "search", "--url", f.url).want(t, 0, "usr_äää", "")
	if got := m.run("", "audit", "search", "-o", "json", "--url", f.url); !strings.Contains(got.out, long("usr_")) || f.last().route != "GET /v1/audit/events?limit=100" {
		t.Errorf("%s, asked last: %s", got.out, f.last().route)
	}
}

// TestCheckpointIsKept: what audit checkpoint prints is what verify takes, in
// each form, from the server or from the files; a cut shows against it.
func TestCheckpointIsKept(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	dir, old := filepath.Join(m.home, "audit"), filepath.Join(m.home, "old")
	trailIn(t, old, 2)
	if err := os.CopyFS(dir, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	key := trailIn(t, dir, 5) // the first two acts are there already
	for _, name := range []string{"use", "act"} {
		f.handle("GET /v1/audit/checkpoint?stream="+name, func(w http.ResponseWriter, _ *http.Request) {
			note, _ := trail.Latest(dir, name)
			_, _ = w.Write(note)
		})
	}
	for _, from := range [][]string{{"--dir", dir}, {"--url", f.url}} {
		for _, form := range []string{"table", "json"} {
			got := m.run("", append([]string{"audit", "checkpoint", "-o", form}, from...)...)
			got.want(t, 0, "gradegate-trail/use", "")
			kept := m.write("kept", got.out, 0o600)
			m.run("", "audit", "verify", "--dir", dir, "--key", key, "--checkpoint", kept).want(t, 0, "The trail is whole.", "")
			cut := m.run("", "audit", "verify", "--dir", old, "--key", key, "--checkpoint", kept)
			cut.want(t, 1, "Stream use: 5 lines are missing at the end: 7 were signed", "other sink")
			cut.want(t, 1, "Stream act: 3 lines are missing at the end: 5 were signed", "")
		}
	}
	var j items[checkpointObject]
	got := m.run("", "audit", "checkpoint", "-o", "json", "--dir", dir, "--stream", "use")
	if err := json.Unmarshal([]byte(got.out), &j); err != nil || len(j.Items) != 1 || j.Items[0].Size != 7 || j.Items[0].Stream != "use" || j.Items[0].At.IsZero() {
		t.Errorf("%s: %v", got.out, err)
	}
	m.run("", "audit", "checkpoint", "-o", "name", "--dir", dir).want(t, 0, "use\nact\n", "")
	// None yet of one stream, of none, and something else in its place.
	f.handle("GET /v1/audit/checkpoint?stream=act", func(w http.ResponseWriter, _ *http.Request) {
		f.refuse(w, 404, "checkpoint_missing", "There is no checkpoint of this stream yet.", "")
	})
	m.run("", "audit", "checkpoint", "--url", f.url).want(t, 0, "gradegate-trail/use", "The stream act has no checkpoint yet.")
	nothing := filepath.Join(m.home, "nothing")
	trailIn(t, nothing, 0)
	synctest.Test(t, func(t *testing.T) { // the clock of the bubble: a server that begins is asked again
		start := time.Now()
		var out, errout strings.Builder
		code := Run(t.Context(), []string{"audit", "checkpoint", "--dir", nothing}, m.env, strings.NewReader(""), &out, &errout)
		done{code, out.String(), errout.String()}.want(t, 3, "", "There is no checkpoint yet")
		if took := time.Since(start); took < 2*time.Second || took > 5*time.Second {
			t.Errorf("it waited %v", took)
		}
	})
	m.write(filepath.Join(dir, "act", "checkpoint"), "nonsense", 0o600)
	m.run("", "audit", "checkpoint", "--dir", dir).want(t, 2, "", "is none")
}

// TestVerifyMistakes: who gives the wrong key, folder or file is told what to do.
func TestVerifyMistakes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := filepath.Join(m.home, "data", "audit")
	key := trailIn(t, dir, 2)
	other, err := trail.KeyText(keys.New([keys.Size]byte{8}))
	if err != nil {
		t.Fatal(err)
	}
	empty := m.write("empty", "", 0o600)
	for _, x := range []struct{ args, want, fix string }{
		{"--dir " + dir + " --key trail.key", "The key trail.key is not one, and there is no file of that name.", "gradegate audit key > trail.key"},
		{"--dir " + dir + " --key " + empty, "That is no verifying key", "gradegate audit key"},
		{"--dir " + dir + " --key " + other, "This trail was signed with another key", "gradegate audit key"},
		{"--dir " + filepath.Dir(dir) + " --key " + key, "it is the data folder", dir},
		{"--dir " + dir + "/act --key " + key, "it is one stream", dir},
		{"--dir " + m.home + "/none --key " + key, "there is no such folder", "audit.dir"},
		{"--dir " + dir + " --key " + key + " --checkpoint " + m.home + "/none", "There is no file", "gradegate audit checkpoint > FILE"},
	} {
		got := m.run("", append([]string{"audit", "verify"}, strings.Fields(x.args)...)...)
		got.want(t, 2, "", x.want)
		if _, fix, ok := strings.Cut(got.errout, "\nfix: "); !ok || !strings.Contains(fix, x.fix) {
			t.Errorf("%s: %s", x.args, got.errout)
		}
	}
	m.run("", "audit", "verify", "--dir", dir, "--key", key, "--checkpoint", empty).want(t, 1, "kept elsewhere is not what was signed", "")
	for _, command := range []string{"search", "tail", "checkpoint"} {
		m.run("", "audit", command, "--dir", filepath.Dir(dir)).want(t, 2, "", "fix: Give the folder in it: "+dir)
	}
}

// lines is a stdout that cancels when it has enough lines.
type lines struct {
	mu    sync.Mutex
	text  strings.Builder
	want  int
	begun chan struct{} // closed with the first line
	end   context.CancelFunc
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len() == 0 {
		close(l.begun)
	}
	l.text.Write(p)
	if strings.Count(l.text.String(), "\n") >= l.want {
		l.end()
	}
	return len(p), nil
}

// TestTailFiles: both streams by time, or one; following goes on behind the last
// line of each, and not at the begin of one that had none among the newest.
func TestTailFiles(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := filepath.Join(m.home, "audit")
	trailIn(t, dir, 4)
	for _, x := range []struct {
		args string
		want string
	}{
		{"-n 4", "act_2 use_2 act_3 use_3"},
		{"-n 1", "use_3"},
		{"-n 3 --stream act", "act_1 act_2 act_3"},
		{"-n 2 --stream use", "use_2 use_3"},
	} {
		got := m.run("", append(strings.Fields("audit tail -o name --dir "+dir), strings.Fields(x.args)...)...)
		if strings.Join(strings.Fields(got.out), " ") != x.want {
			t.Errorf("%s: %q %q", x.args, got.out, got.errout)
		}
	}
	for _, x := range []struct {
		args, want string
	}{
		{"-n 1 -f", "use_3 act_4 act_5 use_4 use_5"},
		{"-n 1 -f --stream act", "act_3 act_4 act_5"},
	} {
		ctx, end := context.WithTimeout(t.Context(), time.Minute)
		copied := filepath.Join(m.home, fmt.Sprint("copy", len(x.args)))
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		out := &lines{want: len(strings.Fields(x.want)), begun: make(chan struct{}), end: end}
		var writing sync.WaitGroup
		writing.Go(func() {
			<-out.begun
			trailFrom(t, copied, 4, 6)
		})
		var errout strings.Builder
		code := Run(ctx, append(strings.Fields("audit tail -o name --dir "+copied), strings.Fields(x.args)...), m.env, strings.NewReader(""), out, &errout)
		writing.Wait()
		got := strings.Fields(out.text.String())
		slices.Sort(got[1:]) // each look sees what is there by then: the order of two streams is that of time only within one
		if strings.Join(got, " ") != x.want || code != 0 {
			t.Errorf("%s: %q, exit %d %s", x.args, got, code, &errout)
		}
	}
}

// TestTrailOfADataFolder: --data means the trail of that folder's server, where
// its configuration puts it, also when the server is dead.
func TestTrailOfADataFolder(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	data, elsewhere := filepath.Join(m.home, "data"), filepath.Join(m.home, "elsewhere")
	key := trailIn(t, filepath.Join(data, "audit"), 2)
	m.run("", "audit", "verify", "--data", data, "--key", key).want(t, 0, "The trail is whole.", "")
	m.run("", "audit", "verify", "--data", elsewhere, "--key", key).want(t, 2, "", filepath.Join(elsewhere, "audit")+" holds no audit trail")
	for _, line := range []string{"search --action token.", "tail --stream act", "checkpoint --stream act"} {
		args := append(append([]string{"audit"}, strings.Fields(line)...), "--data", data)
		got := m.run("", args...)
		got.want(t, 0, "", "The server does not answer; this is from its files in "+filepath.Join(data, "audit")+".\n")
		if want := map[bool]string{true: "act", false: "token.revoke"}[strings.HasPrefix(line, "checkpoint")]; !strings.Contains(got.out, want) {
			t.Errorf("%s: %s", line, got.out)
		}
	}

	trailIn(t, elsewhere, 1)
	conf := m.write("gradegate.yaml", "data: "+data+"\naudit: {dir: "+elsewhere+"}\n", 0o600)
	for _, env := range []string{"GRADEGATE_CONFIG=" + conf, "GRADEGATE_AUDIT_DIR=" + elsewhere} {
		m.env = append(m.env[:1:1], env)
		m.run("", "audit", "verify", "--data", data, "--key", key, "-o", "json").want(t, 0, `"lines": 1,`, "")
	}
	m.env = append(m.env[:1:1], "GRADEGATE_CONFIG="+conf)
	m.run("", "audit", "verify", "--key", key, "-o", "json").want(t, 0, `"lines": 1,`, "")
	m.env = append(m.env[:1:1], "GRADEGATE_CONFIG="+m.write("bad.yaml", "x: 1", 0o600))
	m.run("", "audit", "verify", "--data", data, "--key", key).want(t, 0, "2 lines", "")
}
