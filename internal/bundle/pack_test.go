package bundle

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gradegate/internal/fault"
)

// What Pack writes, Unpack takes, and the same folder gives the same bytes.
func TestPackThenUnpack(t *testing.T) {
	src := t.TempDir()
	for name, body := range map[string]string{"run.sh": "#!/bin/sh\n", "lib/x.awk": "1", ".git/config": "no"} {
		p := filepath.Join(src, name)
		_ = os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var one, two bytes.Buffer
	if err := Pack(src, &one); err != nil {
		t.Fatal(err)
	}
	if err := Pack(src, &two); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two packings differ", err)
	}
	dir, m, err := in(t, "x", one.Bytes(), DefaultLimits)
	if err != nil || len(m.Files) != 2 {
		t.Fatal(m, err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "lib/x.awk")); string(got) != "1" {
		t.Errorf("content %q", got)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Pack(src, &one); fault.CodeOf(err) != "bundle_link" {
		t.Error(err)
	}
}

// The law parse∘format: what Pack takes, Unpack gives back, under any name.
func FuzzPack(f *testing.F) {
	f.Add("run.sh", "lib/a.py", "#!/bin/sh\n", true)
	f.Add("a\\b", "C:", "", false)
	f.Add("é", strings.Repeat("d/", 25)+"f", "x", false)
	f.Add(".git", "__MACOSX/f", "x", false)
	f.Fuzz(func(t *testing.T, one, two, body string, exec bool) {
		src := t.TempDir()
		var want []File
		mode := fs.FileMode(0o644)
		if exec {
			mode = 0o755
		}
		for _, name := range []string{one, two} {
			if !filepath.IsLocal(name) {
				continue
			}
			p := filepath.Join(src, name)
			_ = os.MkdirAll(filepath.Dir(p), 0o755)
			_ = os.WriteFile(p, []byte(body), mode) // not every name is one
		}
		_ = filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(src, p)
			switch {
			case err != nil:
				return err
			case d.IsDir() && skipped[d.Name()]:
				return fs.SkipDir
			case !d.IsDir() && !added(rel):
				want = append(want, File{Path: rel, Size: int64(len(body)), Executable: exec || strings.HasPrefix(body, "#!")})
			}
			return nil
		})
		var b bytes.Buffer
		if err := Pack(src, &b); err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatal(err)
			}
			return
		}
		_, m, err := in(t, "x", b.Bytes(), Limits{Ratio: 1 << 20})
		slices.SortFunc(want, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
		if diff := cmp.Diff(want, m.Files); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}
