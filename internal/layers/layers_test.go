// Package layers holds the test that keeps data flowing one way: a package may
// import only packages with a lower number.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layer is where each package stands. A new package needs a line here: that is
// the moment to ask where it belongs.
var layer = map[string]int{
	"gradegate/cmd/gradegate": 8,

	"gradegate/internal/cli":    7,
	"gradegate/internal/server": 6,

	"gradegate/internal/httpapi":  5,
	"gradegate/internal/store":    5,
	"gradegate/internal/trail":    5,
	"gradegate/internal/executor": 5,

	"gradegate/internal/authn":       4,
	"gradegate/internal/authority":   4,
	"gradegate/internal/grading":     4,
	"gradegate/internal/hindsight":   4,
	"gradegate/internal/maintenance": 4,

	"gradegate/internal/policy": 3,
	"gradegate/internal/job":    3,
	"gradegate/internal/bundle": 3,
	"gradegate/internal/score":  3,
	"gradegate/internal/audit":  3,

	"gradegate/internal/token":     2,
	"gradegate/internal/principal": 1,
	"gradegate/internal/block":     1,

	"gradegate/internal/fault":     0,
	"gradegate/internal/ratelimit": 0,
	"gradegate/internal/journal":   0,
	"gradegate/internal/keys":      0,
	"gradegate/internal/clock":     0,
	"gradegate/internal/config":    0,
	"gradegate/internal/budget":    0,
	"gradegate/api":                0,
	"gradegate/examples":           0,
}

// Leaves and errors may be used by everybody, leaves included.
var everybodys = []string{"gradegate/internal/fault", "gradegate/internal/clock"}

// outside is what only layers 5 and above may reach, besides api's client.
var outside = []string{"net/http", "database/sql", "html/template", "os/exec", "net/smtp"}

// testOnly packages are suites and checks that no program imports.
func testOnly(path string) bool {
	return strings.HasSuffix(path, "test") || path == "gradegate/internal/layers" || strings.HasPrefix(path, "gradegate/test/")
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps", "gradegate/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(p.ImportPath, "gradegate/") {
			all = append(all, p)
		}
	}
}

// TestImportsPointDown: no package imports one of its own or a higher layer.
func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		if testOnly(p.ImportPath) {
			continue
		}
		own, ok := layer[p.ImportPath]
		if !ok {
			t.Errorf("%s has no layer: give it one in this file", p.ImportPath)
			continue
		}
		for _, i := range p.Imports {
			if !strings.HasPrefix(i, "gradegate/") || slices.Contains(everybodys, i) && i != p.ImportPath {
				continue
			}
			if testOnly(i) {
				t.Errorf("%s imports %s, which is for tests alone", p.ImportPath, i)
				continue
			}
			sub := strings.HasPrefix(i, p.ImportPath+"/") // a package's own folder, such as its migrations
			if !sub && layer[i] >= own {
				t.Errorf("%s (layer %d) imports %s (layer %d)", p.ImportPath, own, i, layer[i])
			}
		}
	}
}

// TestCoreReachesNothingOutside: below layer 5 there is no network, no
// database and no other process.
func TestCoreReachesNothingOutside(t *testing.T) {
	for _, p := range packages(t) {
		own, ok := layer[p.ImportPath]
		if !ok || own >= 5 || p.ImportPath == "gradegate/api" {
			continue
		}
		for _, o := range outside {
			if slices.Contains(p.Deps, o) {
				t.Errorf("%s (layer %d) reaches %s", p.ImportPath, own, o)
			}
		}
	}
}
