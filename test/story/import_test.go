package story

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"gradegate/api"
)

// oldSecrets are what an earlier system gave out, by user.
var oldSecrets = map[string]string{"ann": "6b1f3c56-2f3e-4a55-9a6e-0d4e7f1c9b11", "zoe": "c0ffee00-1111-4222-8333-444455556666"}

func writeOldCSV(t *testing.T, path string) {
	t.Helper()
	text := "user,sha256,name,expires_at\n"
	for user, secret := range oldSecrets {
		text += fmt.Sprintf("%s,%x,old cluster,2030-01-31\n", user, sha256.Sum256([]byte(secret)))
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeOldDB(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(`CREATE TABLE api_tokens (id INTEGER PRIMARY KEY, login TEXT, token_hash BLOB, created TEXT)`); err != nil {
		t.Fatal(err)
	}
	for user, secret := range oldSecrets {
		sum := sha256.Sum256([]byte(secret))
		if _, err := db.Exec(`INSERT INTO api_tokens (login, token_hash, created) VALUES (?, ?, '2024-01-01')`, user, sum[:]); err != nil {
			t.Fatal(err)
		}
	}
}

// B21: the tokens of an earlier system, from a CSV or from a SQLite file, go on
// under their old secrets and are rotated away; the file is imported once.
func TestImport(t *testing.T) {
	t.Parallel()
	for name, from := range map[string]struct {
		file  string
		write func(*testing.T, string)
		flags []string
	}{
		"csv":    {"tokens.csv", writeOldCSV, nil},
		"sqlite": {"old.db", writeOldDB, []string{"--table", "api_tokens", "--user", "login"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t)
			file := filepath.Join(w.dir, from.file)
			from.write(t, file)
			ask := func(secret string) int {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/v1/whoami", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+secret)
				res, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = res.Body.Close() }()
				return res.StatusCode
			}
			run := append([]string{"token", "import", file, "--create-users"}, from.flags...)
			if out := w.local(append(run, "--dry-run")...); !strings.Contains(out, "2 would be imported, for 2 new users") || ask(oldSecrets["ann"]) != 401 {
				t.Fatalf("a dry run: %s", out)
			}
			if out := w.local(run...); !strings.Contains(out, "2 were imported, for 2 new users; 0 known already, 0 refused.") {
				t.Fatal(out)
			}
			if out := w.local(run...); !strings.Contains(out, "0 were imported, for 0 new users; 2 known already") {
				t.Fatal(out)
			}
			for user, secret := range oldSecrets {
				if got := ask(secret); got != 200 {
					t.Errorf("%s: %d", user, got)
				}
			}
			if got := ask("6b1f3c56-2f3e-4a55-9a6e-0d4e7f1c9b12"); got != 401 {
				t.Errorf("another UUID: %d", got)
			}
			saved := filepath.Join(w.dir, "imported")
			if err := os.WriteFile(saved, []byte(oldSecrets["ann"]), 0o600); err != nil {
				t.Fatal(err)
			}
			old := object[api.Token](t, w.must("ann", "token", "show", "self", "--token-file", saved, "-o", "json"))
			if old.Kind != "legacy" || old.ExpiresAt == nil {
				t.Errorf("%+v", old)
			}
			next := strings.TrimSpace(w.must("ann", "token", "rotate", "self", "--token-file", saved, "--grace", "0s", "-o", "secret"))
			if ask(next) != 200 || ask(oldSecrets["ann"]) != 401 || !strings.HasPrefix(next, "ggpat_") {
				t.Error("not rotated into a token of ours")
			}
		})
	}
}
