package cli

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gradegate/api"
	"gradegate/internal/audit"
	"gradegate/internal/keys"
	"gradegate/internal/server"
	"gradegate/internal/token"
	"gradegate/internal/trail"
)

// oldTrail is the configuration of a trail of 100 days of which 30 are kept.
func oldTrail(t *testing.T, dir string) trail.Config {
	t.Helper()
	n := 0
	c := trail.Config{
		Dir: dir, Key: keys.New([keys.Size]byte{7}), Now: func() time.Time { return birth.AddDate(0, 0, 100) }, NewID: func() string { n++; return fmt.Sprint("own_", n) },
		Log: slog.New(slog.DiscardHandler), Preallocate: 4 << 10, SegmentBytes: 2 << 10, KeepUses: 30 * 24 * time.Hour, KeepActs: 30 * 24 * time.Hour,
	}
	tr, err := trail.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		e := audit.Event{ID: fmt.Sprint("use_", i), At: birth.AddDate(0, 0, i), Action: audit.Request, Outcome: audit.Allow, Actor: "usr_ann", Route: "GET /v1/whoami"}
		if err := tr.Record(t.Context(), e, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// R9.7: a dry run says what a trim does; its certificates come from the server or
// the files; verification tells of them, and of one that is missing.
func TestTrim(t *testing.T) {
	t.Parallel()
	f, m := newFake(t), newMachine(t, "GRADEGATE_TOKEN="+secretOf(token.Personal))
	dir := filepath.Join(m.home, "audit")
	c := oldTrail(t, dir)
	tr, err := trail.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(route string, give func() ([]trail.Trimmed, error)) {
		f.handle(route, func(w http.ResponseWriter, _ *http.Request) {
			all, err := give()
			if err != nil {
				t.Error(err)
			}
			_ = json.NewEncoder(w).Encode(api.Page[api.Trim]{Items: server.WireTrims(all)})
		})
	}
	answer("GET /v1/audit/trim", func() ([]trail.Trimmed, error) { return tr.Trim(t.Context(), "usr_ann", true) })
	answer("POST /v1/audit/trim", func() ([]trail.Trimmed, error) { return tr.Trim(t.Context(), "usr_ann", false) })
	answer("GET /v1/audit/trims", tr.Trims)

	m.run("", "audit", "trim", "--list", "--url", f.url).want(t, 0, "Nothing was dropped so far.", "")
	dry := m.run("", "audit", "trim", "--dry-run", "--url", f.url)
	dry.want(t, 0, "WOULD GO", "")
	dry.want(t, 0, "it has lines that are not old enough", "")
	done := m.run("", "audit", "trim", "--url", f.url)
	if plain := strings.Replace(dry.out, "WOULD GO", "DROPPED", 1); strings.Join(strings.Fields(done.out), " ") != strings.Join(strings.Fields(plain), " ") {
		t.Errorf("the dry run said %sdone was %s", dry.out, done.out)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	listed := m.run("", "audit", "trim", "--list", "--url", f.url)
	listed.want(t, 0, "gradegate-trail/use/trim\n", "")
	if files := m.run("", "audit", "trim", "--list", "--dir", dir); files.out != listed.out {
		t.Errorf("the files say %sthe server %s", files.out, listed.out)
	}
	var items struct{ Items []api.Trim }
	if err := json.Unmarshal([]byte(m.run("", "audit", "trim", "--list", "--dir", dir, "-o", "json").out), &items); err != nil || len(items.Items) != 1 || items.Items[0].Lines < 40 || items.Items[0].Keep != "30d" {
		t.Errorf("%+v %v", items, err)
	}
	m.run("", "audit", "search", "--dir", dir, "--action", "trail.trim").want(t, 0, "trail.trim use ×", "")
	m.run("", "audit", "verify", "--dir", dir, "--key", tr.VerifierKey()).want(t, 0, "before them are gone, by 1 signed record", "")
	m.write("audit/use/trims", "", 0o600)
	m.run("", "audit", "verify", "--dir", dir, "--key", tr.VerifierKey()).want(t, 1, "no signed record says that they were trimmed", "")
	m.run("", "audit", "trim", "--dry-run", "--list").want(t, 2, "", "two different questions")
	m.run("", "audit", "trim", "--dir", dir).want(t, 2, "", "only the server drops anything")
}

// In the files a user is found by name, from the line of the creation; a name that nobody
// has is a mistake.
func TestSearchByName(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	dir := filepath.Join(m.home, "audit")
	trailIn(t, dir, 3)
	tr, err := trail.Open(trail.Config{Dir: dir, Key: keys.New([keys.Size]byte{7}), Now: func() time.Time { return birth }, NewID: func() string { return "own" }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	made := func(id, name string) audit.Event {
		return audit.Event{ID: "made_" + id, At: birth, Action: audit.UserCreate, Outcome: audit.Done, Actor: "local:0", Target: id, Owner: id, Detail: map[string]string{"name": name}}
	}
	if err := tr.Effects(t.Context(), []audit.Event{made("usr_ann", "ann"), made("usr_annabel", "annabel")}); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"--user ann", "--user usr_ann"} {
		got := m.run("", strings.Fields("audit search -o name --dir "+dir+" "+flag)...)
		if n := len(strings.Fields(got.out)); n != 7 || !strings.Contains(got.out, "made_usr_ann\n") || strings.Contains(got.out, "annabel") {
			t.Errorf("%s: %s %s", flag, got.out, got.errout)
		}
	}
	m.run("", strings.Fields("audit search -o name --actor ann --dir "+dir)...).want(t, 0, "act_0\n", "")
	m.run("", strings.Fields("audit search --user bob --dir "+dir)...).want(t, 3, "", "no user named")
}
