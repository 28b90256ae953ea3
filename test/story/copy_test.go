package story

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gradegate/api"
)

// What docs/operator/backup.md says: a copy that was made while the server ran,
// without the tokens database, is a whole server again. It is as old as it is, and
// the newer trail tells what was decided since.
func TestCopyIsRestored(t *testing.T) {
	w := start(t)
	w.must("boss", "login", "--invite", w.code)
	w.must("boss", "competition", "apply", "examples/iris")
	w.must("ann", "login", "--invite", w.local("user", "invite", "ann", "-o", "secret"))
	secret := w.file("ci", w.must("ann", "token", "create", "--name", "ci", "-o", "secret"))
	before := object[api.Job](t, w.must("ann", "submit", "iris", "examples/iris/predictions.csv", "--wait", "-o", "json"))

	data, kept := filepath.Join(w.dir, "data"), filepath.Join(w.dir, "kept")
	if err := os.Mkdir(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(data, "jobs.db"))
	if err == nil {
		_, err = db.Exec("VACUUM INTO ?", filepath.Join(kept, "jobs.db")) // as the .backup of sqlite3, which is not everywhere
		_ = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	copied := []string{"grading", "root.key", "initialised", "initialised-jobs"}
	for _, from := range append(copied, "../ledger", "audit") {
		if out, err := exec.Command("cp", "-a", filepath.Join(data, from), kept).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", from, out)
		}
	}
	w.must("ann", "token", "revoke", "ci")

	w.end(syscall.SIGTERM)
	for _, move := range [][2]string{{"data", "lost"}, {"ledger", "lost.ledger"}, {"kept/ledger", "ledger"}, {"kept", "data"}} {
		if err := os.Rename(filepath.Join(w.dir, move[0]), filepath.Join(w.dir, move[1])); err != nil {
			t.Fatal(err)
		}
	}
	w.run(strings.TrimPrefix(w.url, "http://"))
	if out := w.stdout.String(); !strings.Contains(out, "rebuilt from the ledger") {
		t.Errorf("%s", out)
	}
	if j := object[api.Job](t, w.must("ann", "job", "show", before.ID, "-o", "json")); j.State != "succeeded" || len(j.Scores) != len(before.Scores) {
		t.Errorf("%+v", j)
	}
	w.must("ann", "submit", "iris", "examples/iris/predictions.csv", "--wait")
	w.local("audit", "verify", "--dir", filepath.Join(data, "audit"))

	// The page does not promise more than is true.
	if _, _, code := w.cli("ann", "whoami", "--token-file", secret); code != 0 {
		t.Errorf("exit %d: a copy of the ledger knows what was decided after it; say so in docs/operator/backup.md", code)
	}
	id := object[api.Token](t, w.must("ann", "token", "show", "ci", "-o", "json")).ID
	if out := w.must("boss", "audit", "search", "--dir", filepath.Join(w.dir, "lost", "audit"), "--stream", "act", "--action", "token.revoke"); !strings.Contains(out, id) {
		t.Errorf("%s", out)
	}
}
