package layers

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	rowRE  = regexp.MustCompile(`^\| (R\d\.\d+|B\d+) \| (done|part|later) \| (.*) \|$`)
	testRE = regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
)

// rows is how many rows of each chapter the requirements have.
var rows = map[string]int{"R1.": 5, "R2.": 8, "R3.": 8, "R4.": 8, "R5.": 8, "R6.": 8, "R7.": 5, "R8.": 8, "R9.": 8, "B": 22}

// TestRequirementsMap: every row is in docs/requirements.md once, "done" and
// "part" name a test, and every test that is named exists.
func TestRequirementsMap(t *testing.T) {
	data, err := os.ReadFile("../../docs/requirements.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	chapter := map[string]int{}
	for line := range strings.Lines(string(data)) {
		m := rowRE.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			if strings.HasPrefix(line, "| R") || strings.HasPrefix(line, "| B") {
				t.Errorf("not a row: %s", line)
			}
			continue
		}
		id, state, what := m[1], m[2], m[3]
		if seen[id] {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
		for c := range rows {
			if strings.HasPrefix(id, c) {
				chapter[c]++
			}
		}
		tests := testRE.FindAllStringSubmatch(what, -1)
		if state != "later" && len(tests) == 0 {
			t.Errorf("%s is %s without a test", id, state)
		}
		for _, test := range tests {
			if !exists(t, test[1], test[2]) {
				t.Errorf("%s: there is no test %s in %s", id, test[2], test[1])
			}
		}
	}
	for c, want := range rows {
		if chapter[c] != want {
			t.Errorf("chapter %s has %d rows, want %d", c, chapter[c], want)
		}
	}
}

func exists(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "func "+name+"(") {
			return true
		}
	}
	return false
}

// TestFilesFitTheHead: a file that has more than 500 lines wants to be two.
func TestFilesFitTheHead(t *testing.T) {
	out, err := exec.Command("git", "-C", "../..", "ls-files", "*.go").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for _, f := range strings.Fields(string(out)) {
		data, err := os.ReadFile(filepath.Join("../..", f))
		if err != nil {
			continue // removed, and not yet committed
		}
		if n := strings.Count(string(data), "\n"); n > 500 {
			t.Errorf("%s has %d lines", f, n)
		}
	}
}
