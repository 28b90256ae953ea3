package store

import (
	"io/fs"
	"regexp"
	"slices"
	"testing"

	"gradegate/internal/maintenance"
)

// R9.8: every table that can grow is counted, against a number of rows.
func TestEveryTableIsCounted(t *testing.T) {
	bounded := []string{"head", "meta", "blocks", "leases", "samples"}
	created, dropped := regexp.MustCompile(`CREATE TABLE (\w+)`), regexp.MustCompile(`(?m)^DROP TABLE (\w+)`)
	for part, counted := range map[string][]string{"tokens": growing, "jobs": growingJobs} {
		for _, engine := range []string{"sqlite", "postgres"} {
			tables := map[string]bool{}
			files, err := fs.Glob(migrations, "migrations/"+engine+"/"+part+"/*.sql")
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			slices.Sort(files)
			for _, f := range files {
				text, err := fs.ReadFile(migrations, f)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range dropped.FindAllSubmatch(text, -1) {
					delete(tables, string(m[1]))
				}
				for _, m := range created.FindAllSubmatch(text, -1) {
					tables[string(m[1])] = true
				}
			}
			for name := range tables {
				if slices.Contains(counted, name) == slices.Contains(bounded, name) {
					t.Errorf("%s, %s: %s is neither counted nor bounded, or both", engine, part, name)
				}
				limit := maintenance.RowLimits[name]
				if part == "jobs" && (name == "replies" || name == "outbox") {
					limit = maintenance.RowLimits["jobs."+name]
				}
				if slices.Contains(counted, name) && limit == 0 {
					t.Errorf("%s has no number of rows to alert at", name)
				}
			}
			for _, name := range counted {
				if !tables[name] {
					t.Errorf("%s, %s: there is no table %s", engine, part, name)
				}
			}
		}
	}
}
