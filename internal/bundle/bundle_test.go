package bundle

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gradegate/internal/fault"
)

// in unpacks data into a fresh folder and says what came of it.
func in(t testing.TB, name string, data []byte, l Limits) (dir string, m Manifest, err error) {
	t.Helper()
	outer := t.TempDir()
	dir = filepath.Join(outer, "root")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	m, err = Unpack(root, name, bytes.NewReader(data), int64(len(data)), l)
	// Whatever happens, nothing appears beside the root, and nothing in it but
	// plain files and folders.
	if beside, _ := os.ReadDir(outer); len(beside) != 1 {
		t.Fatalf("something was written beside the root: %v", beside)
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !d.Type().IsRegular() {
			t.Fatalf("%s is no plain file", p)
		}
		return err
	})
	return dir, m, err
}

type entry struct {
	h    tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}, body}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t testing.TB, change func(*zip.FileHeader), files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		if change != nil {
			change(h)
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write([]byte("content of " + name))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpackGood(t *testing.T) {
	exe := file("p/run.sh", "#!/bin/sh\n")
	exe.h.Mode = 0o4777
	plain := tarOf(t, entry{h: tar.Header{Name: "p/", Typeflag: tar.TypeDir}}, exe, file("p/a/b.txt", "b"), file("./c", "c"))
	for name, data := range map[string][]byte{"tar": plain, "tar.gz": gz(t, plain)} {
		dir, m, err := in(t, "x", data, DefaultLimits)
		if err != nil || len(m.Files) != 3 || m.Files[2].Path != "p/run.sh" || !m.Files[2].Executable {
			t.Fatalf("%s: %+v %v", name, m, err)
		}
		info, _ := os.Stat(filepath.Join(dir, "p/run.sh"))
		if info.Mode() != 0o755 {
			t.Errorf("%s: mode %v: setuid survived", name, info.Mode())
		}
	}
	if _, m, err := in(t, "x", zipOf(t, nil, "a.txt", "d/", "d/b.txt"), DefaultLimits); err != nil || len(m.Files) != 2 {
		t.Errorf("zip: %+v %v", m, err)
	}
	if _, m, err := in(t, "predictions.csv", []byte("id,label\n"), DefaultLimits); err != nil || m.Files[0].Path != "predictions.csv" {
		t.Errorf("file: %+v %v", m, err)
	}
}

// A50: every hostile archive is refused by its own code, and leaves nothing.
func TestUnpackHostile(t *testing.T) {
	link := func(kind byte, name, to string) entry {
		return entry{h: tar.Header{Name: name, Typeflag: kind, Linkname: to}}
	}
	small := Limits{Bytes: 4 << 20, Entries: 100, Depth: 5, Ratio: 10}
	many := make([]entry, 101)
	for i := range many {
		many[i] = file(fmt.Sprintf("f%d", i), "")
	}
	zeros := strings.Repeat("\x00", 3<<20)
	pax := file("ok.txt", "x")
	pax.h.PAXRecords = map[string]string{"path": "../../out"}
	pax.h.Name, pax.h.Format = "../../out", tar.FormatPAX
	for _, c := range []struct {
		name, code string
		data       []byte
	}{
		{"climb", "bundle_traversal", tarOf(t, file("../x", "x"))},
		{"climb inside", "bundle_traversal", tarOf(t, file("a/../../x", "x"))},
		{"climb and back", "bundle_traversal", tarOf(t, file("a/../x", "x"))},
		{"climb by pax", "bundle_traversal", tarOf(t, pax)},
		{"absolute", "bundle_traversal", tarOf(t, file("/etc/passwd", "x"))},
		{"drive", "bundle_traversal", tarOf(t, file("C:/x", "x"))},
		{"backslash", "bundle_name", tarOf(t, file(`..\x`, "x"))},
		{"control", "bundle_name", tarOf(t, file("a\nb", "x"))},
		{"escape", "bundle_name", tarOf(t, file("\x1b[2J", "x"))},
		{"not UTF-8", "bundle_name", tarOf(t, file("a\xff", "x"))},
		{"symlink", "bundle_link", tarOf(t, link(tar.TypeSymlink, "a", "/etc"))},
		{"symlink then through it", "bundle_link", tarOf(t, link(tar.TypeSymlink, "a", "/tmp"), file("a/x", "x"))},
		{"hard link", "bundle_link", tarOf(t, link(tar.TypeLink, "a", "b"))},
		{"character device", "bundle_special", tarOf(t, link(tar.TypeChar, "a", ""))},
		{"block device", "bundle_special", tarOf(t, link(tar.TypeBlock, "a", ""))},
		{"pipe", "bundle_special", tarOf(t, link(tar.TypeFifo, "a", ""))},
		{"twice", "bundle_duplicate", tarOf(t, file("a", "1"), file("a", "2"))},
		{"case clash", "bundle_duplicate", tarOf(t, file("a/B", "1"), file("A/b", "2"))},
		{"file as folder", "bundle_duplicate", tarOf(t, file("a", "1"), file("a/b", "2"))},
		{"folder as file", "bundle_duplicate", tarOf(t, file("a/b", "1"), file("a", "2"))},
		{"too deep", "bundle_too_deep", tarOf(t, file("1/2/3/4/5/6", "x"))},
		{"too many", "bundle_too_many_entries", tarOf(t, many...)},
		{"too large", "bundle_too_large", tarOf(t, file("a", zeros), file("b", zeros))},
		{"bomb", "bundle_ratio", gz(t, tarOf(t, file("a", zeros)))},
		{"cut off", "bundle_not_readable", tarOf(t, file("a", zeros))[:1<<20]},
		{"cut off gzip", "bundle_not_readable", gz(t, tarOf(t, file("a", "x")))[:30]},
		{"gzip of nothing", "bundle_not_readable", gz(t, []byte("hello, I am no tar at all, whatever you may think of me"))},
		{"empty tar", "bundle_empty", tarOf(t, entry{h: tar.Header{Name: "d/", Typeflag: tar.TypeDir}})},
		{"zip climb", "bundle_traversal", zipOf(t, nil, "../x")},
		{"zip absolute", "bundle_traversal", zipOf(t, nil, "/x")},
		{"zip backslash", "bundle_name", zipOf(t, nil, `a\..\..\x`)},
		{"zip symlink", "bundle_link", zipOf(t, func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink | 0o777) }, "a")},
		{"zip device", "bundle_special", zipOf(t, func(h *zip.FileHeader) { h.SetMode(fs.ModeDevice | 0o666) }, "a")},
		{"zip twice", "bundle_duplicate", zipOf(t, nil, "a", "a")},
		{"zip damaged", "bundle_not_readable", append([]byte("PK\x03\x04"), make([]byte, 100)...)},
	} {
		dir, _, err := in(t, "x", c.data, small)
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
		if f := fault.Of(err); err != nil && f.Kind != fault.Invalid && f.Kind != fault.TooLarge {
			t.Errorf("%s: kind %s", c.name, f.Kind)
		}
		if left, _ := os.ReadDir(dir); err != nil && len(left) > 0 {
			t.Errorf("%s: left %v behind", c.name, left)
		}
	}
}

// A hundred thousand entries are refused without being written.
func TestManyEntries(t *testing.T) {
	entries := make([]entry, 100_000)
	for i := range entries {
		entries[i] = file(fmt.Sprintf("d%d/f%d", i%100, i), "")
	}
	_, _, err := in(t, "x", gz(t, tarOf(t, entries...)), DefaultLimits)
	if fault.CodeOf(err) != "bundle_too_many_entries" {
		t.Error(err)
	}
}

func TestEntryPoint(t *testing.T) {
	m := func(names ...string) (m Manifest) {
		for _, n := range names {
			m.Files = append(m.Files, File{Path: n})
		}
		return m
	}
	for _, c := range []struct {
		m           Manifest
		asked, want string
	}{
		{m("solve.awk"), "", "solve.awk"},
		{m("main.py", "run.sh"), "", "run.sh"},
		{m("p/main.py", "p/lib.py"), "", "p/main.py"},
		{m("a.py", "b.py"), "b.py", "b.py"},
		{m("a.py", "b.py"), "./b.py", "b.py"},
		{m("a.py", "b.py"), "", ""},
		{m("a.py", "b.py"), "../b.py", ""},
	} {
		got, err := EntryPoint(c.m, c.asked)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%v %q: %q %v", names(c.m), c.asked, got, err)
		}
	}
}

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

// The law: nothing is written outside, nothing beyond the limits, no panic.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, file("a", "x")))
	f.Add(gz(f, tarOf(f, file("../a", "x"))))
	f.Add(zipOf(f, nil, "a", "d/b"))
	f.Add([]byte("id,label\n"))
	l := Limits{Bytes: 1 << 16, Entries: 20, Depth: 3, Ratio: 10}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, m, err := in(t, "name", data, l)
		if err == nil && (m.Bytes > max(l.Bytes, ratioFloor) || len(m.Files) > l.Entries) {
			t.Fatalf("beyond the limits: %+v", m)
		}
		if err != nil && fault.KindOf(err) == fault.Internal {
			t.Fatal(err)
		}
	})
}
