package keys

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"gradegate/internal/fault"
)

func TestSubKeysDiffer(t *testing.T) {
	r := New([Size]byte{1})
	row := []byte("row")
	a, b, c := r.RowMAC(row), r.TableDigest(row), r.HeadMAC(row)
	if a == b || b == c || a == c {
		t.Error("two uses share a key")
	}
	if other := New([Size]byte{2}); other.ID() == r.ID() || other.RowMAC(row) == a {
		t.Error("two root keys share something")
	}
	if again := New([Size]byte{1}); again.ID() != r.ID() || again.RowMAC(row) != a || !again.Trail().Equal(r.Trail()) {
		t.Error("the same root key gives another ring")
	}
}

// B3: a sealed reply opens for the same request and for nothing else.
func TestSeal(t *testing.T) {
	r := New([Size]byte{1})
	box := r.Seal([]byte("secret"), "key", "presented")
	if got, err := r.Open(box, "key", "presented"); err != nil || string(got) != "secret" {
		t.Fatal(err)
	}
	if bytes.Contains(box, []byte("secret")) {
		t.Error("not sealed")
	}
	for _, p := range [][]string{{"key"}, {"key", "other"}, {"presented", "key"}, {"keypresented", ""}, nil} {
		if _, err := r.Open(box, p...); err == nil {
			t.Errorf("opened with %q", p)
		}
	}
	if _, err := New([Size]byte{2}).Open(box, "key", "presented"); err == nil {
		t.Error("opened under another root key")
	}
	for i := range box {
		bad := bytes.Clone(box)
		bad[i] ^= 1
		if _, err := r.Open(bad, "key", "presented"); err == nil {
			t.Fatalf("opened with byte %d changed", i)
		}
	}
	if _, err := r.Open(box[:4], "key", "presented"); err == nil {
		t.Error("opened a stump")
	}
}

// DESIGN §3: made at first start, copied, found again, and refused when wrong.
func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path, spare := filepath.Join(dir, "root.key"), filepath.Join(dir, "ledger", "root.key")
	first, origin, err := Load(path, spare)
	if err != nil || origin != Created {
		t.Fatal(origin, err)
	}
	for _, p := range []string{path, spare} {
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v %v", p, info, err)
		}
	}
	again, origin, err := Load(path, spare)
	if err != nil || origin != FromFile || again.ID() != first.ID() {
		t.Fatal(origin, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if again, origin, err = Load(path, spare); err != nil || origin != FromCopy || again.ID() != first.ID() {
		t.Fatal(origin, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the lost file was not made again")
	}
	other := filepath.Join(dir, "other.key")
	if _, _, err := Load(other, ""); err != nil {
		t.Fatal(err)
	}
	refuse := func(name, code, path string) {
		t.Helper()
		if _, _, err := Load(path, spare); fault.CodeOf(err) != code {
			t.Errorf("%s: %v", name, err)
		}
	}
	refuse("another key", "key_disagrees", other)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	refuse("readable by others", "key_exposed", path)
	if err := os.WriteFile(other, []byte("gradegate-root-key-1 abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuse("damaged", "key_damaged", other)
}
