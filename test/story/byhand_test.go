package story

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gradegate/api"
	"gradegate/internal/store/storetest"
)

func numbers(t *testing.T, list []string) (out []float64) {
	t.Helper()
	for _, s := range list {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// handIn submits a file or folder of the repository.
func handIn(t *testing.T, w *world, c *api.Client, path string) api.Job {
	t.Helper()
	made, err := c.Submit(t.Context(), "iris", w.upload(path))
	if err != nil {
		t.Fatal(err)
	}
	return made.Job
}

// upload packs with tar what a person would pack.
func (w *world) upload(path string) api.Upload {
	w.t.Helper()
	full := filepath.Join("..", "..", path)
	info, err := os.Stat(full)
	if err != nil {
		w.t.Fatal(err)
	}
	var data []byte
	name := filepath.Base(path)
	if info.IsDir() {
		name += ".tar.gz"
		data = tarball(w.t, full)
	} else if data, err = os.ReadFile(full); err != nil {
		w.t.Fatal(err)
	}
	return api.Upload{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// R3.2, R3.5, R4.8, R6.6: everything that the demo does, by hand with the
// command line, and it survives a restart.
func TestByHand(t *testing.T) { byHand(t, start(t)) }

// R4.7: the same on PostgreSQL.
func TestByHandOnPostgreSQL(t *testing.T) {
	byHand(t, start(t, "GRADEGATE_DATABASE_TOKENS="+storetest.PostgresURL(t), "GRADEGATE_DATABASE_JOBS="+storetest.PostgresURL(t)))
}

func byHand(t *testing.T, w *world) {
	t.Helper()
	w.must("boss", "login", "--invite", w.code, "--name", "boss-laptop")
	if me := object[api.Whoami](t, w.must("boss", "whoami", "-o", "json")); me.User.Role != "admin" {
		t.Fatalf("%+v", me)
	}
	w.must("boss", "competition", "apply", "examples/iris")
	code := w.must("boss", "user", "invite", "ann", "-o", "secret")
	w.must("ann", "login", "--invite", code)
	w.must("ann", "token", "create", "--name", "laptop", "--save")
	if _, _, exit := w.cli("ann", "login", "--invite", code); exit != 4 {
		t.Errorf("a spent invite: exit %d", exit)
	}
	w.must("ann", "submit", "iris", "examples/iris/program", "--check")
	j := object[api.Job](t, w.must("ann", "submit", "iris", "examples/iris/program", "--wait", "--label", "run=one", "--submitted-by", "joe", "-o", "json"))
	if j.State != "succeeded" || j.SubmittedBy != "joe" || j.Labels["run"] != "one" {
		t.Fatalf("%+v", j)
	}
	w.must("ann", "job", "show", j.ID)
	w.must("ann", "status", j.ID)
	w.must("ann", "job", "logs", j.ID)
	w.must("ann", "job", "result", j.ID)
	w.must("ann", "job", "list")
	w.must("ann", "competition", "list")
	w.must("ann", "competition", "show", "iris")
	if b := object[api.Leaderboard](t, w.must("ann", "competition", "leaderboard", "iris", "-o", "json")); len(b.Rows) != 1 || b.Rows[0].User != "ann" {
		t.Errorf("%+v", b)
	}
	long := w.must("ann", "submit", "iris", "examples/iris/slow", "-o", "name")
	w.until("the job runs", func() bool { return strings.Contains(w.must("ann", "job", "show", long), "running") }, nil)

	// The server is stopped and started again: the job goes on, and is still ann's.
	listen := strings.TrimPrefix(w.url, "http://")
	w.end(syscall.SIGTERM)
	w.run(listen)
	if s := object[api.Job](t, w.must("ann", "job", "show", long, "-o", "json")); s.State != "running" {
		t.Errorf("after a restart the job is %s (%s)", s.State, s.Detail)
	}
	w.must("ann", "token", "rotate", "laptop", "--save")
	w.must("ann", "cancel", long)
	if _, _, exit := w.cli("ann", "job", "wait", long, "--timeout", "30s"); exit != 9 {
		t.Errorf("waiting for a canceled job: exit %d", exit)
	}
	w.must("ann", "token", "list")
	w.must("ann", "token", "show", "self", "-o", "json")
	if out := w.local("status"); !strings.Contains(out, "ok") {
		t.Errorf("status: %s", out)
	}
	w.must("boss", "user", "list")
	w.must("boss", "user", "tokens", "ann")
	w.must("boss", "audit", "search", "--action", "token.")
	w.must("boss", "audit", "tail", "--lines", "5")
	key := w.must("boss", "audit", "key", "-o", "name")
	if out, errs, exit := w.cli("boss", "audit", "verify", "--dir", filepath.Join(w.dir, "data", "audit"), "--key", key); exit != 0 {
		t.Errorf("verify: %s%s", out, errs)
	}
	w.must("boss", "user", "offboard", "ann")
	if _, _, exit := w.cli("ann", "whoami"); exit != 4 {
		t.Errorf("after off-boarding: exit %d", exit)
	}
	w.must("boss", "logout")
	if _, _, exit := w.cli("boss", "whoami"); exit != 4 {
		t.Errorf("after logout: exit %d", exit)
	}
}

// R3.1, R9.3: one personal token per user; the refusal names the choices.
func TestOneTokenPerUser(t *testing.T) {
	w := start(t)
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	w.must("ann", "token", "create", "--name", "one", "-o", "secret")
	_, errs, exit := w.cli("ann", "token", "create", "--name", "two")
	if exit != 6 || !strings.Contains(errs, "token rotate one") || !strings.Contains(errs, "--replace one") {
		t.Errorf("exit %d: %s", exit, errs)
	}
	two := object[api.Issued](t, w.must("ann", "token", "create", "--name", "two", "--replace", "one", "-o", "json")).Token.ID
	all := object[struct{ Items []api.Token }](t, w.must("ann", "token", "list", "-o", "json")).Items
	if i := slices.IndexFunc(all, func(k api.Token) bool { return k.Name == "one" }); i < 0 || all[i].State != "revoked" {
		t.Errorf("%+v", all)
	}
	w.must("ann", "token", "suspend", "two")
	w.must("ann", "token", "resume", two)
	w.must("ann", "token", "revoke", "two")
	w.must("ann", "token", "revoke-all", "--keep-this")
	w.must("ann", "whoami")
}

// Nobody is locked out without having said so, and each way back that is named
// is one.
func TestWaysBack(t *testing.T) {
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	invite := func(args ...string) string {
		return w.must("boss", append([]string{"user", "invite", "ann", "-o", "secret"}, args...)...)
	}
	w.must("ann", "login", "--invite", invite())
	w.must("ann", "token", "create", "--name", "laptop", "--save")
	me := object[api.Whoami](t, w.must("ann", "whoami", "-o", "json"))
	for _, k := range object[struct{ Items []api.Token }](t, w.must("ann", "token", "list", "-o", "json")).Items {
		if k.Kind == "ses" && k.State != "revoked" {
			t.Errorf("the session lives on unseen: %+v", k)
		}
	}

	// A suspended token: an administrator's way back.
	_, errs, exit := w.cli("ann", "token", "suspend", "laptop")
	if exit != 0 || !strings.Contains(errs, "This is the token that you are using") || !strings.Contains(errs, "gradegate token resume "+me.TokenID) {
		t.Errorf("exit %d %s", exit, errs)
	}
	if _, _, exit := w.cli("ann", "whoami"); exit != 4 {
		t.Errorf("suspended: exit %d", exit)
	}
	w.must("boss", "token", "resume", me.TokenID)
	w.must("ann", "whoami")

	// What takes its place is stored in its place.
	w.must("ann", "token", "create", "--name", "other", "--replace", "laptop")
	w.must("ann", "token", "rotate", "other", "-o", "name")
	w.must("ann", "whoami")

	// Revoked twice is revoked, and an invite brings ann back.
	home := filepath.Join(w.dir, "home")
	if err := os.CopyFS(filepath.Join(home, "copy"), os.DirFS(filepath.Join(home, "ann"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(home, "copy", ".config", "gradegate", "hosts.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must("ann", "token", "revoke", "self", "--yes")
	w.must("copy", "token", "revoke", "self", "--yes")
	w.must("ann", "login", "--invite", invite())

	// Without a server, logout leaves nothing here.
	w.end(syscall.SIGTERM)
	if _, errs, exit := w.cli("ann", "logout"); exit != 0 || !strings.Contains(errs, "could not be told") {
		t.Errorf("logout without a server: exit %d %s", exit, errs)
	}
	if data, err := os.ReadFile(filepath.Join(home, "ann", ".config", "gradegate", "hosts.yaml")); err != nil || strings.Contains(string(data), "ggses_") {
		t.Errorf("the token is still there: %v", err)
	}
}

// A program is tried out on the submitter's machine, and nothing is handed in.
func TestTryOut(t *testing.T) {
	w := start(t)
	w.local("competition", "apply", "examples/iris")
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	out := w.must("ann", "submit", "iris", "examples/iris/program", "--check", "--run")
	if !strings.Contains(out, "30 rows, well formed; the ids are those of test.csv") || !strings.Contains(out, "not checked") {
		t.Error(out)
	}
	bad := filepath.Join(w.dir, "readme.txt")
	if err := os.WriteFile(bad, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, exit := w.cli("ann", "submit", "iris", bad, "--check"); exit != 2 || !strings.Contains(errs, "cannot be started") {
		t.Errorf("exit %d %s", exit, errs)
	}
	if jobs := w.must("ann", "job", "list", "-o", "name"); jobs != "" {
		t.Errorf("handed in: %s", jobs)
	}
}

// Every mistake gets its code and a way on, and loses nothing.
func TestBadInput(t *testing.T) {
	w := start(t)
	w.local("competition", "apply", "examples/iris")
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	file := func(name, text string) string {
		p := filepath.Join(w.dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	labels, err := os.ReadFile("../../examples/iris/predictions.csv")
	if err != nil {
		t.Fatal(err)
	}
	good := string(labels)
	for name, c := range map[string]struct {
		text string
		exit int
		says string
	}{
		"missing.csv": {good[:len(good)/2] + "\n", 2, "row"},
		"extra.csv":   {good + "x,setosa\n", 2, "not in the test file"},
		"header.csv":  {strings.Replace(good, "id,label", "id,species", 1), 2, "id,label"},
		"empty.csv":   {"", 2, ""},
		"bom.csv":     {"\xef\xbb\xbf" + good, 0, ""},
		"crlf.csv":    {strings.ReplaceAll(good, "\n", "\r\n"), 0, ""},
	} {
		out, errs, exit := w.cli("ann", "submit", "iris", file(name, c.text), "-q")
		if exit != c.exit || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: exit %d\n%s%s", name, exit, out, errs)
		}
	}
	if _, errs, exit := w.cli("ann", "submit", "mnist", "examples/iris/predictions.csv"); exit != 3 || !strings.Contains(errs, "fix: gradegate competition list") {
		t.Errorf("unknown competition: exit %d %s", exit, errs)
	}
	q := object[api.Quota](t, w.must("ann", "quota", "show", "iris", "-o", "json"))
	if q.Competitions[0].Submissions.Used != 2 {
		t.Errorf("refused submissions cost quota: %+v", q)
	}
}
