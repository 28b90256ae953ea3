package cli

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gradegate/internal/audit"
	"gradegate/internal/keys"
	"gradegate/internal/trail"
)

// R9.6: an archive without its newest segments has no gap, and is not whole: the
// trail tells of them.
func TestArchiveCutOff(t *testing.T) {
	t.Parallel()
	m, k := newMachine(t), keys.New([keys.Size]byte{7})
	key, err := note.NewEd25519VerifierKey("gradegate-trail", k.Trail().Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	dir, segments := filepath.Join(m.home, "audit"), filepath.Join(m.home, "archive")
	n := 0
	tr, err := trail.Open(trail.Config{
		Dir: dir, Key: k, Now: func() time.Time { return birth }, NewID: func() string { n++; return fmt.Sprint("own_", n) }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	e := audit.Event{ID: "evt_1", At: birth, Action: audit.ArchiveReduce, Outcome: audit.Done, Actor: "system", Target: "tokens-000001-20261124.jsonl.gz", Count: 1}
	if err := tr.Effects(t.Context(), []audit.Event{e}); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	m.run("", "archive", "verify", "--dir", segments, "--key", key).want(t, 0, "Not compared with a trail", "")
	cut := m.run("", "archive", "verify", "--dir", segments, "--key", key, "--trail", dir)
	cut.want(t, 1, "tokens-000001-20261124.jsonl.gz: the trail tells of it, and it is missing", "do not verify")
	m.run("", "archive", "verify", "--dir", segments, "--url", "http://127.0.0.1:1").want(t, 2, "", "Give the key that you keep: --key FILE")
	m.run("", "archive", "verify", "--dir", segments, "--key", key, "--trail", segments).want(t, 2, "", "holds no audit trail")
}
