package store_test

import (
	"context"
	"database/sql"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/store"
	"gradegate/internal/store/storetest"
)

// reading are the methods that change nothing anybody decides on. Everything
// else has to take its audit event; so does whatever is added.
var reading = map[string]string{
	"Token": "", "TokensOf": "", "TokensPage": "", "Principal": "", "PrincipalByName": "", "Principals": "", "Levels": "", "Consents": "", "Blocks": "", "Guesses": "", "Reply": "", "Outages": "", "RebuiltAt": "",
	"Load": "", "Uses": "", "UsesStored": "", "UsesPosition": "", "PendingEvents": "", "Check": "", "Report": "", "State": "", "Wake": "", "Close": "", "Follow": "",
	"Competition": "", "Competitions": "", "Job": "", "Jobs": "", "LiveJobs": "", "Best": "", "Submission": "", "Usage": "", "JobReply": "", "QuotaLines": "", "Spending": "",
	"Handles": "", "FollowHandles": "", "FollowCompetitions": "", "Vias": "",
	"Kin": "", "LastUses": "", "Archived": "", "ArchivedToken": "", "Due": "", "Holds": "", "Samples": "", "Sizes": "",
	"Lease":         "it says who does what has to be done anyway",
	"SaveSample":    "it says how much there is",
	"RecordUses":    "uses are in the trail, each with its own line",
	"RecordGuesses": "they are counted, and the trail tells of them",
	"Beat":          "it notes that the clock ran; nobody decided it",
	"EventsWritten": "it says that the trail has the events",
}

// TestNothingChangesWithoutAnEvent keeps the rule that one method is one
// decision together with its audit event.
func TestNothingChangesWithoutAnEvent(t *testing.T) {
	t.Parallel()
	event := reflect.TypeFor[audit.Event]()
	for _, of := range []reflect.Type{reflect.TypeFor[*store.Tokens](), reflect.TypeFor[*store.Jobs]()} {
		for m := range of.Methods() {
			_, known := reading[m.Name]
			takes := false
			for in := range m.Type.Ins() {
				takes = takes || in == event || in.Kind() == reflect.Slice && in.Elem() == event
			}
			if known == takes {
				t.Errorf("%s.%s: takes an event: %v, is listed as reading: %v", of, m.Name, takes, known)
			}
		}
	}
}

// TestPlaceholders pins what both drivers do with $n: the number counts, not
// the order of appearance, and one may appear twice.
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, driver, url string) {
		db, err := sql.Open(driver, url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		var first, second, again string
		err = db.QueryRowContext(t.Context(), "SELECT CAST($2 AS TEXT), CAST($1 AS TEXT), CAST($2 AS TEXT)", "one", "two").Scan(&first, &second, &again)
		if err != nil || first != "two" || second != "one" || again != "two" {
			t.Errorf("got %q %q %q, %v", first, second, again, err)
		}
	}
	t.Run("SQLite", func(t *testing.T) { check(t, "sqlite", "file::memory:") })
	t.Run("PostgreSQL", func(t *testing.T) { check(t, "pgx", storetest.PostgresURL(t)) })
}

// TestMigrationsAgree: both engines have the same steps with the same columns.
func TestMigrationsAgree(t *testing.T) {
	t.Parallel()
	columns := func(engine string) map[string]string {
		out := map[string]string{}
		root := filepath.Join("migrations", engine)
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			// Numbers that rise by themselves are spelled differently.
			numbered := strings.NewReplacer("PRIMARY KEY AUTOINCREMENT", "PRIMARY KEY", "GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "PRIMARY KEY")
			text = []byte(numbered.Replace(string(text)))
			var words []string
			for _, w := range strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(" \n,();", r) }) {
				switch w {
				case "STRICT", "INTEGER", "BIGINT", "BLOB", "BYTEA", "REAL", "DOUBLE", "PRECISION":
				default:
					words = append(words, w)
				}
			}
			out[strings.TrimPrefix(path, root)] = strings.Join(words, " ")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if lite, post := columns("sqlite"), columns("postgres"); !reflect.DeepEqual(lite, post) || len(lite) < 2 {
		t.Errorf("the migrations differ:\n%v\n%v", lite, post)
	}
}

// TestHouseRules: files stay under 500 lines, and nothing but the lock opens a
// file for reading, since closing a live database file drops SQLite's locks.
func TestHouseRules(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > 500 {
			t.Errorf("%s has %d lines", path, n)
		}
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Open" && slices.Contains([]string{"os"}, exprName(f.X)) && path != "store.go" {
				t.Errorf("%s opens a file: closing a live database file drops SQLite's locks", path)
			}
			return true
		})
	}
}

func exprName(e ast.Expr) string {
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

func TestLock(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	l, err := store.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Lock(dir)
	storetest.WantCode(t, err, fault.Conflict, "data_locked")
	if !strings.Contains(err.Error(), "process ") {
		t.Errorf("the refusal does not name the holder: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	if l, err = store.Lock(dir); err != nil {
		t.Fatal(err)
	}
	_ = l.Unlock()
}

// TestForeignFile: what is gone or cannot be read is named as such, without
// repeating a password.
func TestForeignFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	jobs, err := store.OpenJobs(t.Context(), store.JobsConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_ = jobs.Close()
	if err := os.Rename(filepath.Join(dir, "jobs.db"), filepath.Join(dir, "tokens.db")); err != nil {
		t.Fatal(err)
	}
	_, err = store.OpenJobs(context.Background(), store.JobsConfig{Dir: dir})
	storetest.WantCode(t, err, fault.Unavailable, "jobs_lost")
	_, err = store.OpenJobs(context.Background(), store.JobsConfig{Dir: t.TempDir(), URL: "postgres://user:hunter2@%zz/x"})
	storetest.WantCode(t, err, fault.Invalid, "store_url")
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the error repeats the password")
	}
}
