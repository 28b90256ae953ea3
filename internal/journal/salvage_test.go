package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// Records behind damage are given too, damaged ones are not.
func TestSalvage(t *testing.T) {
	dir := t.TempDir()
	j, _, err := Open(dir, Options{Stream: "s"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{`{"n":1}`, `{"n":2}`, `{"n":3}`} {
		if _, err := j.Write([][]byte{[]byte(r)}, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if string(data[i:min(i+7, len(data))]) == `{"n":2}` {
			data[i+5] = '9'
			break
		}
	}
	if err := os.WriteFile(files[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	Salvage(dir, func(data []byte) { got = append(got, string(data)) })
	if len(got) != 2 || got[0] != `{"n":1}` || got[1] != `{"n":3}` {
		t.Errorf("%q", got)
	}
}
