package bundle

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
	checkLaw(t, outer, m, err)
	return dir, m, err
}

// checkLaw holds whatever happens: nothing appears beside the root; in it are
// the files of the manifest, plain and with modes of ours, or after an error
// nothing at all; and an error blames the bundle.
func checkLaw(t testing.TB, outer string, m Manifest, unpackErr error) {
	t.Helper()
	if beside, _ := os.ReadDir(outer); len(beside) != 1 {
		t.Fatalf("something was written beside the root: %v", beside)
	}
	dir := filepath.Join(outer, "root")
	var got []File
	var total int64
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		if unpackErr != nil {
			t.Errorf("%s was left behind", p)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch mode := info.Mode(); {
		case mode == fs.ModeDir|0o755:
			return nil
		case mode != 0o644 && mode != 0o755:
			t.Errorf("%s has mode %v", p, mode)
		}
		rel, _ := filepath.Rel(dir, p)
		got = append(got, File{Path: rel, Size: info.Size(), Executable: info.Mode()&0o111 != 0})
		total += info.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	if diff := cmp.Diff(m, Manifest{Files: got, Bytes: total}); diff != "" {
		t.Errorf("manifest and disk differ (-manifest +disk):\n%s", diff)
	}
	if kind := fault.KindOf(unpackErr); unpackErr != nil && kind != fault.Invalid && kind != fault.TooLarge {
		t.Errorf("%s: %v", kind, unpackErr)
	}
	if unpackErr != nil && fault.Of(unpackErr).Fix == "" {
		t.Errorf("no way to mend it: %v", unpackErr)
	}
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
		{"too deep", "bundle_too_deep", tarOf(t, file("1/2/3/4/5/6/7", "x"))},
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
		{"zip drive", "bundle_traversal", zipOf(t, nil, "c:x")},
		{"zip encrypted", "bundle_encrypted", zipOf(t, func(h *zip.FileHeader) { h.Flags |= 1 }, "a")},
		{"zip of nothing", "bundle_empty", zipOf(t, nil)},
		{"zip folder and file", "bundle_duplicate", zipOf(t, nil, "a/b", "A")},
		{"zip that shares bytes", "bundle_overlap", overlapping(t, 40)},
		{"zip that lies about a size", "bundle_not_readable", lying(t)},
		{"zip with a tail", "bundle_trailing", append(zipOf(t, nil, "a"), "tail"...)},
		{"zip cut off", "bundle_not_readable", zipOf(t, nil, "a", "b")[:60]},
		{"unknown kind", "bundle_format", []byte("\xfd7zXZ\x00 and so on")},
		{"nothing", "bundle_empty", nil},
		{"direction of text", "bundle_name", tarOf(t, file("a\u202egpj.sh", "x"))},
		{"name too long", "bundle_name", tarOf(t, file(strings.Repeat("n", 256), "x"))},
		{"path too long", "bundle_name", tarOf(t, file(strings.Repeat(strings.Repeat("n", 250)+"/", 5)+"x", "x"))},
		{"file named as a folder", "bundle_name", tarOf(t, file(".", "x"))},
		{"implied folders", "bundle_too_many_entries", tarOf(t, nested(30)...)},
		{"folder again and again", "bundle_too_many_entries", tarOf(t, slices.Repeat([]entry{{h: tar.Header{Name: "d/", Typeflag: tar.TypeDir}}}, 101)...)},
		{"sparse", "bundle_sparse", oldSparse(t)},
		{"global path", "bundle_special", tarOf(t, entry{h: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "../x"}}}, file("a", "x"))},
		{"tail of zeros", "bundle_ratio", gz(t, append(tarOf(t, file("a", "x")), make([]byte, 8<<20)...))},
		{"tar with a tail", "bundle_trailing", append(tarOf(t, file("a", "x")), "tail"...)},
		{"tar within the tail", "bundle_trailing", append(tarOf(t, file("a", "x")), tarOf(t, file("../b", "x"))...)},
		{"tar without an end", "bundle_not_readable", tarOf(t, file("a", strings.Repeat("x", 512)))[:1024]},
		{"gzip with a tail", "bundle_not_readable", append(gz(t, tarOf(t, file("a", "x"))), "tail"...)},
		{"gzip without its checksum", "bundle_not_readable", cut(gz(t, tarOf(t, file("a", "x"))), 4)},
		{"gzip with a wrong checksum", "bundle_not_readable", flip(gz(t, tarOf(t, file("a", "x"))), -6)},
		{"zip damaged", "bundle_not_readable", append([]byte("PK\x03\x04"), make([]byte, 100)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := in(t, "x", c.data, small); err == nil || fault.CodeOf(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
}

// Two hundred thousand entries of a zip are refused before its directory is in memory.
func TestManyZipEntries(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := range 200_000 {
		if _, err := w.CreateHeader(&zip.FileHeader{Name: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := &counting{r: bytes.NewReader(b.Bytes())}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if _, err := Unpack(root, "x", r, int64(b.Len()), DefaultLimits); fault.CodeOf(err) != "bundle_too_many_entries" {
		t.Error(err)
	}
	if most := int64(zipTail + DefaultLimits.Entries*zipPerEntry); r.n > most || int64(b.Len()) < 2*most {
		t.Errorf("%d of %d bytes were read", r.n, b.Len())
	}
}

// counting counts what is read for a zip's directory.
type counting struct {
	r io.ReaderAt
	n int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.n += int64(len(p))
	return c.r.ReadAt(p, off)
}

// A root that is not empty is our own mistake, and what was there stays.
func TestOccupiedRoot(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	data := tarOf(t, file("new/b", "1"), file("a", "2"))
	if _, err := Unpack(root, "x", bytes.NewReader(data), int64(len(data)), DefaultLimits); fault.KindOf(err) != fault.Internal || err == nil {
		t.Error(err)
	}
	left, _ := os.ReadDir(dir)
	if got, _ := os.ReadFile(filepath.Join(dir, "a")); string(got) != "mine" || len(left) != 1 {
		t.Errorf("%q, and %v", got, left)
	}
}

// What people's systems do to a bundle is no mistake of theirs.
func TestForgiving(t *testing.T) {
	git := entry{h: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "0123456789abcdef"}}}
	for name, c := range map[string]struct {
		data []byte
		want []File
	}{
		"git archive":    {tarOf(t, git, file("run.sh", "x")), []File{{Path: "run.sh", Size: 1}}},
		"tape blocks":    {append(tarOf(t, file("run.sh", "x")), make([]byte, 10<<10)...), []File{{Path: "run.sh", Size: 1}}},
		"macOS":          {tarOf(t, file("p/run.sh", "x"), file("p/.DS_Store", "x"), file("__MACOSX/p/._run.sh", "x"), file("p/._run.sh", "x")), []File{{Path: "p/run.sh", Size: 1}}},
		"no modes":       {[]byte("#!/bin/sh\n"), []File{{Path: "x", Size: 10, Executable: true}}},
		"one byte":       {[]byte("#"), []File{{Path: "x", Size: 1}}},
		"dot and slash":  {tarOf(t, entry{h: tar.Header{Name: "./", Typeflag: tar.TypeDir}}, file("./a//b", "x")), []File{{Path: "a/b", Size: 1}}},
		"as deep as may": {tarOf(t, file("1/2/3/4/5/f", "x")), []File{{Path: "1/2/3/4/5/f", Size: 1}}},
		"other letters":  {tarOf(t, file("données été/模型.py", "x")), []File{{Path: "données été/模型.py", Size: 1}}},
		"nested archive": {tarOf(t, file("in.zip", string(zipOf(t, nil, "../x")))), []File{{Path: "in.zip", Size: int64(len(zipOf(t, nil, "../x")))}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, m, err := in(t, "x", c.data, Limits{Depth: 5})
			if diff := cmp.Diff(c.want, m.Files); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
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

// The law, on anything at all: see checkLaw; and never beyond the limits.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, file("a", "x")))
	f.Add(gz(f, tarOf(f, file("../a", "x"))))
	f.Add(zipOf(f, nil, "a", "d/b"))
	f.Add([]byte("id,label\n"))
	l := Limits{Bytes: 1 << 16, Entries: 20, Depth: 3, Ratio: 10}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, m, err := in(t, "name", data, l)
		if err == nil && (m.Bytes > l.Bytes || len(m.Files) > l.Entries) {
			t.Fatalf("beyond the limits: %+v", m)
		}
	})
}
