package store

import (
	"os"
	"path/filepath"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/keys"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// TestKeyLost: nothing can be proven, so nothing is active; what was revoked
// stays so, also where only the ledger has it.
func TestKeyLost(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(r *rig){
		"both there":    func(*rig) {},
		"database gone": func(r *rig) { r.removeFiles() },
		"ledger gone":   func(r *rig) { r.must(os.RemoveAll(r.cfg.Ledger)) },
		"revoked in the ledger only": func(r *rig) {
			r.tamper("UPDATE tokens SET standing = 'standard', reason = '' WHERE standing = 'revoked'")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			_, ks := filled(r)
			harm(r)
			r.cfg.Keys, r.cfg.KeyLost = keys.New([32]byte{2}), true
			wantOutcome(t, r.open(), "unproven")
			r.want(ks[0].ID, token.Revoked)
			for _, k := range ks[1:] {
				r.want(k.ID, token.Unproven)
			}
			r.checked()
			r.close()
			// The flag is harmless once the new key is in use, and not needed.
			wantOutcome(t, r.open(), "clean")
			r.close()
			r.cfg.KeyLost = false
			wantOutcome(t, r.open(), "clean")
			rows := r.dump()
			r.close()
			r.removeFiles()
			wantOutcome(t, r.open(), "rebuilt")
			r.same(rows)
		})
	}
}

// TestKeyLostEpochs: an older database beside the ledger does not lower an
// epoch that was raised by a mixed decision, such as a re-enrolment.
func TestKeyLostEpochs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	ann, ks := r.ann(1)
	r.close()
	old := filepath.Join(t.TempDir(), "old.db")
	r.copyFiles(old)
	r.open()
	back := ann.Reenrol(storetest.T0)
	d := storetest.Add(nil, storetest.Token(back, "new"))
	d.Principals = append(d.Principals, principalChange(ann, back))
	r.must(r.commit(d, audit.UserReenrol))
	r.close()
	r.cfg.URL = old
	r.cfg.Keys, r.cfg.KeyLost = keys.New([32]byte{2}), true
	wantOutcome(t, r.open(), "unproven")
	p, err := r.s.Principal(t.Context(), ann.ID)
	r.must(err)
	if p.Epochs.Person != back.Epochs.Person {
		t.Errorf("the person epoch is %d, want %d", p.Epochs.Person, back.Epochs.Person)
	}
	r.want(ks[0].ID, token.Unproven)
}
