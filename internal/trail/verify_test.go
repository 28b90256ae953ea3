package trail

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gradegate/internal/fault"
	"gradegate/internal/keys"
)

// One cause is one problem, and it is called what it is.
func TestOneCauseIsToldOnce(t *testing.T) {
	t.Parallel()
	orig := t.TempDir()
	fill(t, orig, 150)
	newestOf := func(v *vandal) string { return v.segments[len(v.segments)-1] }
	edit := func(lines [][]byte, i int) {
		lines[i] = relined(bytes.Replace(lines[i], []byte("usr_ann"), []byte("usr_bob"), 1))
	}
	for what, x := range map[string]struct {
		do   func(v *vandal)
		want string
	}{
		"a bit of the last line": {func(v *vandal) {
			v.file(newestOf(v), func(lines [][]byte) [][]byte { lines[len(lines)-2][40] ^= 1; return lines })
		}, `^Stream use: line 149 is not what was written \(0+\d+\.jsonl, byte \d+\)\. From there on nothing can be read; up to line 149 it was signed on `},
		"a bit of the end of the last batch": {func(v *vandal) {
			v.file(newestOf(v), func(lines [][]byte) [][]byte { lines[len(lines)-1][40] ^= 1; return lines })
		}, `^Stream use: between line 149 and line 149 something was changed`},
		"the last line, with a right checksum": {func(v *vandal) {
			v.file(newestOf(v), func(lines [][]byte) [][]byte { edit(lines, len(lines)-2); return lines })
		}, `^Stream use: between line 149 and line 149 something was changed`},
		"a bit in the midst": {func(v *vandal) {
			v.file(v.segments[1], func(lines [][]byte) [][]byte { lines[3][40] ^= 1; return lines })
		}, `^Stream use: line \d+ is not what was written \(00000002\.jsonl, byte \d+\): line fails its checksum`},
		"a line in the midst, with a right checksum": {func(v *vandal) {
			v.file(v.segments[1], func(lines [][]byte) [][]byte { edit(lines, 3); return lines })
		}, `^Stream use: between line \d+ and line \d+ something was changed, taken out or put in \(00000002\.jsonl`},
		"the last line taken out": {func(v *vandal) {
			v.file(newestOf(v), func(lines [][]byte) [][]byte { return append(lines[:len(lines)-2], lines[len(lines)-1]) })
		}, `^Stream use: between line 149 and line 149 something was changed, taken out`},
		"the tail cut": {func(v *vandal) {
			v.file(newestOf(v), func(lines [][]byte) [][]byte { return lines[:len(lines)-4] })
		}, `^Stream use: 2 lines are missing at the end: 150 were signed`},
		"the tail cut in the midst of a line": {func(v *vandal) {
			v.file(newestOf(v), func(lines [][]byte) [][]byte {
				n := len(lines) - 4
				return append(lines[:n], lines[n][:20])
			})
			path := newestOf(v)
			data, _ := os.ReadFile(path)
			v.write(path, data[:len(data)-1]) // without a newline
		}, `^Stream use: 2 lines are missing at the end: 150 were signed`},
		"a segment": {func(v *vandal) { _ = os.Remove(v.segments[1]) }, `^Stream use: the file 00000002\.jsonl is missing, and with it its lines\.$`},
		"one left out and everything made anew": {func(v *vandal) {
			v.remake(func(i int, line []byte) []byte {
				if i == 70 {
					return nil
				}
				return line
			})
		}, `^Stream use: of the lines \d+ to \d+ \(the first line is 0\) at least one is not what was signed`},
		"the newest checkpoint": {func(v *vandal) {
			_ = os.Remove(filepath.Join(v.dir, latestFile))
		}, `^Stream use: the newest checkpoint is missing: there is no file .*checkpoint\.$`},
		"the newest checkpoint, edited": {func(v *vandal) {
			v.replace(latestFile, "150", "151")
		}, `^Stream use: the newest checkpoint \(file checkpoint\) is not what was signed, or no checkpoint at all\.$`},
		"a kept checkpoint, edited": {func(v *vandal) {
			v.replace(allFile, "time 2", "time 3")
		}, `^Stream use: checkpoint 1 is not what was signed`},
		"many kept checkpoints": {func(v *vandal) {
			data, _ := os.ReadFile(filepath.Join(v.dir, allFile))
			v.write(filepath.Join(v.dir, allFile), bytes.ReplaceAll(data, []byte("time 2"), []byte("time 3")))
		}, `^Stream use: \d checkpoints, the first of them number 1, are not what was signed`},
		"an older checkpoint for the newest": {func(v *vandal) {
			data, _ := os.ReadFile(filepath.Join(v.dir, allFile))
			v.write(filepath.Join(v.dir, latestFile), SplitNotes(data)[0])
		}, `^Stream use: the newest checkpoint \(file checkpoint\) is older than the one before\.$`},
		"a checkpoint of the other stream": {func(v *vandal) {
			data, _ := os.ReadFile(filepath.Join(filepath.Dir(v.dir), Act, latestFile))
			v.write(filepath.Join(v.dir, latestFile), data)
		}, `^Stream use: the newest checkpoint \(file checkpoint\) is of the stream act\.$`},
		"the whole stream": {func(v *vandal) { _ = os.RemoveAll(v.dir) }, `^The stream use is missing: there is no folder `},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(orig)); err != nil {
			t.Fatal(err)
		}
		v := &vandal{t: t, dir: filepath.Join(dir, Use)}
		v.segments, _ = filepath.Glob(filepath.Join(v.dir, "*.jsonl"))
		x.do(v)
		r := verify(t, dir)
		if len(r.Problems) != 1 || !regexp.MustCompile(x.want).MatchString(r.Problems[0]) {
			t.Errorf("%s: %q\nwant %s", what, r.Problems, x.want)
		}
	}
}

// replace changes the first place in a file that holds a text.
func (v *vandal) replace(file, before, after string) {
	path := filepath.Join(v.dir, file)
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), before) {
		v.t.Fatalf("%s: no %q, %v", path, before, err)
	}
	v.write(path, bytes.Replace(data, []byte(before), []byte(after), 1))
}

// Lines without any checkpoint are told, unless they are those of a stream's
// first seconds.
func TestNothingIsSigned(t *testing.T) {
	t.Parallel()
	for span, whole := range map[time.Duration]bool{time.Second: true, time.Hour: false} {
		dir := t.TempDir()
		tr := open(t, dir, "")
		for i := range 100 {
			e := event(i)
			e.At = e.At.Add(time.Duration(i) * span / 100)
			if err := tr.Record(t.Context(), e, i%9 == 0); err != nil {
				t.Fatal(err)
			}
		}
		shut(t, tr)
		v := &vandal{t: t, dir: filepath.Join(dir, Use)}
		v.forgetCheckpoints()
		if r := verify(t, dir); r.OK() != whole || !whole && !strings.HasPrefix(r.Problems[0], "Stream use: nothing is signed: there is no checkpoint") {
			t.Errorf("%v: %q", span, r.Problems)
		}
	}
}

// A wrong key is not taken for a changed trail, nor the other way round.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fill(t, dir, 20)
	other := keys.New([keys.Size]byte{8})
	otherKey, err := KeyText(other)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(t.Context(), dir, otherKey, Options{})
	if fault.CodeOf(err) != "audit_key_wrong" || len(r.Problems) != 0 || !strings.Contains(err.Error(), "another key") {
		t.Errorf("%v %q", err, r.Problems)
	}
	outside, err := os.ReadFile(filepath.Join(dir, Use, latestFile))
	if err != nil {
		t.Fatal(err)
	}
	// Written anew with another key: with the right key that is what it looks
	// like, and with a checkpoint of old it is proven.
	forged := t.TempDir()
	c := config(forged, "")
	c.Key = other
	tr := openWith(t, c)
	for i := range 20 {
		record(t, tr, i, true)
	}
	shut(t, tr)
	if _, err := Verify(t.Context(), forged, keyText(t), Options{}); fault.CodeOf(err) != "audit_key_wrong" || !strings.Contains(err.Error(), "somebody has written the whole trail anew") {
		t.Error(err)
	}
	r, err = Verify(t.Context(), forged, keyText(t), Options{Known: [][]byte{outside}})
	if err != nil || len(r.Problems) == 0 || !strings.Contains(fmt.Sprint(r.Problems), "written under another signing key") {
		t.Errorf("%v %q", err, r.Problems)
	}
	if r, err = Verify(t.Context(), forged, otherKey, Options{Known: [][]byte{outside}}); err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "kept elsewhere is signed by another key") {
		t.Errorf("%v %q", err, r.Problems)
	}
	// A changed note is one of the right key.
	v := &vandal{t: t, dir: filepath.Join(dir, Use)}
	v.replace(latestFile, "time 2", "time 3")
	if r := verify(t, dir); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "not what was signed") {
		t.Errorf("%q", r.Problems)
	}
}

// Another chain before the same lines is told once, whatever was signed later.
func TestWrongChainIsToldOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fill(t, dir, 150)
	sign, err := newSigner(ring.Trail())
	if err != nil {
		t.Fatal(err)
	}
	var known [][]byte
	err = readNotes(filepath.Join(dir, Use, allFile), func(notes [][]byte) {
		for _, n := range notes {
			c, err := openNote(n, sign.verifier)
			if err != nil {
				t.Fatal(err)
			}
			c.Chain = strings.Repeat("0", len(c.Chain))
			other, err := sign.sign(c)
			if err != nil {
				t.Fatal(err)
			}
			known = append(known, other)
		}
	})
	if err != nil || len(known) < 3 {
		t.Fatal(len(known), err)
	}
	if r := verify(t, dir, known...); len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "the chain up to line") {
		t.Errorf("%q", r.Problems)
	}
}

// Whoever gives the wrong folder is told which one is right.
func TestWrongFolder(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	dir := filepath.Join(data, "audit")
	fill(t, dir, 3)
	file := filepath.Join(data, "gradegate.yaml")
	other := filepath.Join(data, "ledger")
	empty := filepath.Join(data, "empty")
	strange := filepath.Join(data, "strange")
	for _, d := range []string{other, empty, filepath.Join(strange, "x")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{file, filepath.Join(other, "00000001.jsonl")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for where, want := range map[string]string{
		filepath.Join(data, "none"):   "there is no such folder",
		file:                          "it is a file",
		empty:                         "it is empty",
		other:                         "another journal",
		strange:                       "neither a folder use nor a folder act",
		data:                          "it is the data folder",
		filepath.Join(dir, Use):       "it is one stream",
		filepath.Join(dir, Act) + "/": "it is one stream",
	} {
		_, err := Verify(t.Context(), where, keyText(t), Options{})
		f := fault.Of(err)
		if f.Code != "audit_missing" || !strings.Contains(f.Detail, want) || f.Fix == "" {
			t.Errorf("%s: %+v", where, f)
		}
		if named := strings.Contains(want, "data folder") || strings.Contains(want, "one stream"); named != strings.HasSuffix(f.Fix, ": "+dir) {
			t.Errorf("%s: fix %q", where, f.Fix)
		}
	}
}

// Several checkpoints in one file are each looked at, whatever their line ends.
func TestKnownInOneFile(t *testing.T) {
	t.Parallel()
	dir, old := t.TempDir(), t.TempDir()
	fill(t, dir, 20)
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	fill(t, dir, 20)
	tr := open(t, dir, "")
	effects(t, tr, event(1000)) // fill sends the same effects again
	shut(t, tr)
	var file []byte
	for _, name := range []string{Use, Act} {
		note, err := Latest(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		file = append(append(file, note...), "--\n"...)
	}
	for _, f := range [][]byte{file, bytes.TrimSuffix(file, []byte("--\n")), bytes.TrimSpace(file), bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n"))} {
		if r := verify(t, dir, f); !r.OK() {
			t.Errorf("%q: %q", f, r.Problems)
		}
		r := verify(t, old, f)
		if len(r.Problems) != 2 || !strings.HasPrefix(r.Problems[0], "Stream use: 20 lines are missing at the end: 40 were signed") ||
			!strings.HasPrefix(r.Problems[1], "Stream act: 1 lines are missing at the end: 21 were signed") {
			t.Errorf("%q: %q", f, r.Problems)
		}
	}
	for _, nothing := range []string{"", "\n", "--\n", "no note", "{}"} {
		if r := verify(t, dir, []byte(nothing)); r.OK() {
			t.Errorf("%q proves something", nothing)
		}
	}
}
