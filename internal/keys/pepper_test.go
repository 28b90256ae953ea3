package keys

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gradegate/internal/fault"
)

func TestPepperIsHMAC(t *testing.T) {
	var key, data [32]byte
	_, _ = rand.Read(key[:])
	_, _ = rand.Read(data[:])
	p := PeppersOf(map[uint8][Size]byte{3: key})
	h := hmac.New(sha256.New, key[:])
	h.Write(data[:])
	for range 3 {
		if got, ok := p.Sum(3, data); !ok || !hmac.Equal(got[:], h.Sum(nil)) {
			t.Fatal("not HMAC-SHA256")
		}
	}
	if got, ok := p.Sum(0, data); !ok || got != data {
		t.Error("no pepper changes the digest")
	}
	if _, ok := p.Sum(2, data); ok || p.Knows(2) || p.Newest() != 3 {
		t.Error("a pepper that is not there is known")
	}
	var none *Peppers
	if _, ok := none.Sum(1, data); ok || none.Newest() != 0 || !none.Knows(0) || none.Knows(1) {
		t.Error("none knows something")
	}
}

func TestPepperFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pepper")
	for want := uint8(1); want < 4; want++ {
		if got, err := AddPepper(path); err != nil || got != want {
			t.Fatal(got, err)
		}
	}
	p, err := LoadPeppers(path)
	if err != nil || p.Newest() != 3 || !p.Knows(1) {
		t.Fatal(p, err)
	}
	a, _ := p.Sum(1, [32]byte{})
	if b, _ := p.Sum(2, [32]byte{}); a == b {
		t.Error("two versions are one pepper")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	good := fmt.Sprintf("%064x", 1)
	for text, code := range map[string]string{
		"# mine\n\n1 lost\n2 " + good: "", "1 " + good + "\n1 " + good: "pepper_damaged", "0 " + good: "pepper_damaged", "256 " + good: "pepper_damaged",
		"1 " + good[1:]: "pepper_damaged", good: "pepper_damaged", "1": "pepper_damaged", "1 " + good + " x": "pepper_damaged",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := LoadPeppers(path)
		if got := fault.CodeOf(err); err != nil && got != code || err == nil && (code != "" || p.Newest() != 2 || !p.Knows(1)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPeppers(path); fault.CodeOf(err) != "key_exposed" {
		t.Errorf("a file that others read: %v", err)
	}
}

// BenchmarkPepper is what a pepper adds to a request; it allocates nothing.
func BenchmarkPepper(b *testing.B) {
	p := PeppersOf(map[uint8][Size]byte{1: {7}})
	b.ReportAllocs()
	for b.Loop() {
		p.Sum(1, [32]byte{})
	}
}
