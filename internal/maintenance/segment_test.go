package maintenance_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/maintenance"
	"gradegate/internal/token"
)

// verifier is the public key as gradegate audit key prints it.
func verifier(t *testing.T, k *keys.Ring) string {
	t.Helper()
	text, err := note.NewEd25519VerifierKey("gradegate-trail", k.Trail().Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// reduced is a world whose archive has been reduced three times.
func reduced(t *testing.T) (*world, []token.Token) {
	t.Helper()
	w := build(t, "")
	var all []token.Token
	for range 3 {
		k := w.give(nil)
		all = append(all, k)
		w.clock.Add(50 * day)
		w.run(false)
		if !w.archived(k.ID) {
			t.Fatal("not archived")
		}
	}
	w.clock.Add(250 * day)
	for range 3 {
		if r := w.run(false); r.Sealed != 1 || len(r.Segments) != 1 {
			t.Fatalf("%+v", r)
		}
		w.clock.Add(50 * day)
	}
	return w, all
}

// TestReduced: after a year the rest of an archived token is in a signed
// segment, without a secret; its id and digest stay; who is held stays whole
// (R9.5, R9.6, R9.7).
func TestReduced(t *testing.T) {
	t.Parallel()
	w, all := reduced(t)
	dir, key := filepath.Join(w.dir, "archive"), verifier(t, w.keys)
	found := map[string]maintenance.Line{}
	r, err := maintenance.VerifySegments(dir, key, nil, func(l maintenance.Line) error { found[l.ID] = l; return nil })
	if err != nil || len(r.Problems) > 0 || r.Segments != 3 || r.Lines != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	for _, k := range all {
		l := found[string(k.ID)]
		if l.Owner != string(w.ann.ID) || l.Name != k.Name || l.Why != "idle_expired" || l.Segment == "" || !l.EndedAt.Equal(k.IssuedAt.Add(14*day)) {
			t.Errorf("%+v", l)
		}
		a, err := w.tokens.ArchivedToken(t.Context(), k.ID)
		if err != nil || a.Token.Digest != k.Digest || a.Token.Owner != "" || a.Segment != l.Segment || !a.EndedAt.Equal(l.EndedAt) {
			t.Errorf("%+v %v", a, err)
		}
		if got := w.answer(k.ID); got != "token_unknown" {
			t.Errorf("its secret is told %q", got)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		data, _ := os.ReadFile(f)
		if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			var plain bytes.Buffer
			_, _ = plain.ReadFrom(z)
			data = plain.Bytes()
		}
		for id, s := range w.known {
			if bytes.Contains(data, []byte(s.Reveal()[18:])) {
				t.Errorf("%s holds the secret of %s", f, id)
			}
		}
	}

	k := w.give(nil)
	w.clock.Add(50 * day)
	w.run(false)
	_, err = w.sweep.AddHold(t.Context(), admin, maintenance.NewHold{Subject: "ann", Reason: "case"})
	w.must(err)
	w.clock.Add(400 * day)
	if r := w.run(false); r.Sealed != 0 || len(r.Kept) != 1 || r.Kept[0].Name != "archived on_hold" {
		t.Errorf("%+v", r)
	}
	if a, err := w.tokens.ArchivedToken(t.Context(), k.ID); err != nil || a.Token.Owner != w.ann.ID {
		t.Errorf("%+v %v", a, err)
	}
}

// told are the segments that events on their way to the trail tell of.
func (w *world) told() (told []maintenance.Head) {
	events, err := w.tokens.PendingEvents(w.t.Context(), 1000)
	w.must(err)
	for _, e := range events {
		if h, ok := maintenance.HeadOf(&e); ok {
			told = append(told, h)
		}
	}
	return told
}

// TestSegmentsAreProven: whatever is changed or taken away in the folder is told.
func TestSegmentsAreProven(t *testing.T) {
	t.Parallel()
	w, _ := reduced(t)
	key := verifier(t, w.keys)
	from := filepath.Join(w.dir, "archive")
	second := func(dir, pattern string) string {
		all, _ := filepath.Glob(filepath.Join(dir, pattern))
		if len(all) != 3 {
			t.Fatal(all)
		}
		return all[1]
	}
	edit := func(path string, do func([]byte) []byte) {
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, do(data), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, harm := range map[string]func(dir string){
		"a byte":    func(dir string) { edit(second(dir, "*.gz"), func(b []byte) []byte { b[20] ^= 1; return b }) },
		"cut":       func(dir string) { edit(second(dir, "*.gz"), func(b []byte) []byte { return b[:len(b)-5] }) },
		"a segment": func(dir string) { _ = os.Remove(second(dir, "*.gz")) },
		"both": func(dir string) {
			s := second(dir, "*.gz")
			_, _ = os.Remove(s), os.Remove(s+".note")
		},
		"the note": func(dir string) { _ = os.Remove(second(dir, "*.note")) },
		"its text": func(dir string) {
			edit(second(dir, "*.note"), func(b []byte) []byte { return bytes.Replace(b, []byte("lines 1"), []byte("lines 2"), 1) })
		},
		"another's place": func(dir string) {
			s := second(dir, "*.gz")
			all, _ := filepath.Glob(filepath.Join(dir, "tokens-000001-*.gz"))
			data, _ := os.ReadFile(all[0] + ".note")
			edit(s+".note", func([]byte) []byte { return data })
		},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		if r, err := maintenance.VerifySegments(dir, key, nil, nil); err != nil || len(r.Problems) > 0 {
			t.Fatalf("the copy: %+v %v", r, err)
		}
		harm(dir)
		if r, err := maintenance.VerifySegments(dir, key, nil, nil); err != nil || len(r.Problems) == 0 {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
	// The newest ones leave no gap in the row: the trail misses them.
	told := w.told()
	if r, err := maintenance.VerifySegments(from, key, told, nil); err != nil || len(r.Problems) > 0 || r.Told != 3 {
		t.Errorf("%+v %v", r, err)
	}
	cut := t.TempDir()
	w.must(os.CopyFS(cut, os.DirFS(from)))
	last, _ := filepath.Glob(filepath.Join(cut, "tokens-000003-*"))
	w.must(errors.Join(os.Remove(last[0]), os.Remove(last[1])))
	r, err := maintenance.VerifySegments(cut, key, told, nil)
	if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "tokens-000003-") {
		t.Errorf("without the last one: %+v %v", r, err)
	}
	told[2].Note = "of another one that had its name"
	if r, err := maintenance.VerifySegments(from, key, told, nil); err != nil || len(r.Problems) != 1 {
		t.Errorf("another last one: %+v %v", r, err)
	}
	if r, err := maintenance.VerifySegments(from, verifier(t, keys.New([32]byte{9})), nil, nil); err != nil || len(r.Problems) != 3 {
		t.Errorf("another key: %+v %v", r, err)
	}
	if _, err := maintenance.VerifySegments(from, "no key", nil, nil); fault.CodeOf(err) != "key_invalid" {
		t.Error(err)
	}
}

// TestNoNoteWithoutItsSegment: a disk that has room for the small note alone leaves
// a row of segments that goes on once there is room again.
func TestNoNoteWithoutItsSegment(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	w.give(nil)
	w.clock.Add(50 * day)
	w.run(false)
	w.clock.Add(400 * day)
	dir := filepath.Join(w.dir, "archive")
	segment := filepath.Join(dir, "tokens-000001-"+w.clock.Now().Format("20060102")+".jsonl.gz")
	w.must(os.MkdirAll(segment+".new", 0o700)) // the segment cannot be written, its note could be
	if _, err := w.sweep.Sweep(t.Context(), admin, false); fault.CodeOf(err) != "archive_unwritable" {
		t.Error(err)
	}
	w.must(os.Remove(segment + ".new"))
	if r := w.run(false); r.Sealed != 1 {
		t.Errorf("%+v", r)
	}
	if r, err := maintenance.VerifySegments(dir, verifier(t, w.keys), w.told(), nil); err != nil || len(r.Problems) > 0 || r.Lines != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestUnwritableArchive: without its segment no row is reduced.
func TestUnwritableArchive(t *testing.T) {
	t.Parallel()
	w := build(t, "")
	k := w.give(nil)
	w.clock.Add(50 * day)
	w.run(false)
	w.must(os.WriteFile(filepath.Join(w.dir, "archive"), nil, 0o600)) // where the folder would be
	w.clock.Add(400 * day)
	_, err := w.sweep.Sweep(t.Context(), admin, false)
	if fault.CodeOf(err) != "archive_unwritable" || fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
	if a, err := w.tokens.ArchivedToken(t.Context(), k.ID); err != nil || a.Segment != "" || a.Token.Owner != w.ann.ID {
		t.Errorf("%+v %v", a, err)
	}
	w.must(os.Remove(filepath.Join(w.dir, "archive")))
	// A crash before its note leaves a segment that nothing refers to.
	w.must(os.MkdirAll(filepath.Join(w.dir, "archive"), 0o700))
	stray := filepath.Join(w.dir, "archive", "tokens-000001-"+w.clock.Now().Format("20060102")+".jsonl.gz")
	w.must(os.WriteFile(stray, []byte("cut off"), 0o600))
	if r := w.run(false); r.Sealed != 1 {
		t.Errorf("%+v", r)
	}
	if r, err := maintenance.VerifySegments(filepath.Join(w.dir, "archive"), verifier(t, w.keys), nil, nil); err != nil || len(r.Problems) > 0 || r.Lines != 1 {
		t.Errorf("%+v %v", r, err)
	}
}
