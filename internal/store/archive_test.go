package store

import (
	"errors"
	"os"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/maintenance"
	"gradegate/internal/policy"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

func (r *rig) archive(k token.Token) error {
	return r.s.Archive(r.t.Context(), []maintenance.Move{storetest.ArchiveMove(k)}, storetest.Event(audit.TokenArchive, "x"))
}

// gone fails unless the token is not among the tokens, and neither its id nor
// its digest can be given out again.
func (r *rig) gone(k token.Token) {
	r.t.Helper()
	r.want(k.ID, "absent")
	again := k
	again.ID, again.Version, again.Family = "tok_again", 1, ""
	storetest.WantCode(r.t, r.commit(storetest.Add(nil, again), audit.TokenIssue), fault.Conflict, "secret_ended")
	again = k
	again.Digest, again.Family = token.Digest{Sum: [32]byte{7}}, ""
	storetest.WantCode(r.t, r.commit(storetest.Add(nil, again), audit.TokenIssue), fault.Conflict, "id_taken")
}

// TestArchivedStaysArchived: neither a revoked token that was archived nor its
// digest comes back, whatever is lost, put back, forged or cut short (R7.3, R9.1).
func TestArchivedStaysArchived(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outcome string
		harm    func(r *rig, before string)
	}{
		"nothing":                {"clean", func(*rig, string) {}},
		"the database is gone":   {"rebuilt", func(r *rig, _ string) { r.removeFiles() }},
		"an old one is put back": {"replayed", func(r *rig, before string) { r.putBack(before) }},
		"the ledger is gone":     {"rebased", func(r *rig, _ string) { r.must(os.RemoveAll(r.cfg.Ledger)) }},
		"a tombstone is deleted": {"rebuilt", func(r *rig, _ string) { r.tamper("DELETE FROM archive WHERE segment <> ''") }},
		"a digest is changed":    {"rebuilt", func(r *rig, _ string) { r.tamper("UPDATE archive SET digest = zeroblob(32) WHERE segment <> ''") }},
		"the archive goes":       {"rebuilt", func(r *rig, _ string) { r.tamper("DELETE FROM archive") }},
		"a hold is lifted":       {"rebuilt", func(r *rig, _ string) { r.tamper("UPDATE holds SET removed_at = 1") }},
		"a hold goes":            {"rebuilt", func(r *rig, _ string) { r.tamper("DELETE FROM holds") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			_, ks := filled(r)
			before := r.cfg.URL + ".before"
			r.copyFiles(before)
			r.open()
			old, err := r.s.Token(t.Context(), ks[0].ID)
			r.must(err)
			r.must(r.archive(old)) // the revoked one
			r.must(r.archive(ks[2]))
			r.must(r.s.PutHold(t.Context(), maintenance.Hold{ID: "hold_1", Version: 1, At: storetest.T0}, storetest.Event(audit.HoldAdd, "x")))
			r.must(r.s.Reduce(t.Context(), []maintenance.Archived{storetest.ArchiveMove(old).New}, "seg", storetest.Event(audit.ArchiveReduce, "x")))
			rows := r.dump()
			r.close()
			c.harm(r, before)
			wantOutcome(t, r.open(), c.outcome)
			r.same(rows)
			r.gone(old)
			r.gone(ks[2])
			r.same(rows)
			r.checked()
			r.close()
			r.removeFiles()
			wantOutcome(t, r.open(), "rebuilt")
			r.same(rows)
			r.gone(old)
		})
	}
}

// TestHoldsDoNotVanish: a hold that is deleted behind the server's back is missed
// while it runs, before anything goes that it was on, and is back after a restart
// (R9.7).
func TestHoldsDoNotVanish(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, r *rig) {
		r.open()
		put := func(id string) {
			r.must(r.s.PutHold(t.Context(), maintenance.Hold{ID: id, Version: 1, At: storetest.T0}, storetest.Event(audit.HoldAdd, "x")))
		}
		vanish := func(id string) {
			t.Helper()
			db, err := r.s.healthy()
			r.must(err)
			_, err = db.write.ExecContext(t.Context(), "DELETE FROM holds WHERE id = $1", id)
			r.must(err)
			if all, err := r.s.Holds(t.Context()); fault.CodeOf(err) != "holds_gone" {
				t.Errorf("%v %v", all, err)
			}
			r.close()
			r.open()
			if all, err := r.s.Holds(t.Context()); err != nil || len(all) == 0 || all[len(all)-1].ID != id {
				t.Errorf("%v %v", all, err)
			}
		}
		put("hold_1")
		vanish("hold_1") // made by this process
		put("hold_2")
		r.close()
		r.open()
		vanish("hold_2") // found at the start
	})
}

// putBack replaces the database by a copy.
func (r *rig) putBack(from string) {
	for _, part := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(r.cfg.URL + part)
		if data, err := os.ReadFile(from + part); err == nil {
			r.must(os.WriteFile(r.cfg.URL+part, data, 0o600))
		}
	}
}

// TestArchiveKeyLost: what is archived stays so under another key.
func TestArchiveKeyLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, ks := filled(r)
	r.open()
	r.must(r.archive(ks[2]))
	r.close()
	r.cfg.Keys, r.cfg.KeyLost = keys.New([32]byte{2}), true
	wantOutcome(t, r.open(), "unproven")
	r.gone(ks[2])
	r.checked()
}

// TestArchiveCutShort: a batch that archives is whole or nothing wherever it is
// killed or fails, on both engines; what was acknowledged stands.
func TestArchiveCutShort(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, r *rig) {
		r.open()
		_, ks := r.ann(2 * len(allPoints))
		for i, fail := range []error{errKilled, errors.New("boom")} {
			for j, at := range allPoints {
				k := ks[i*len(allPoints)+j]
				r.hook = func(p point) error {
					if p == at {
						return fail
					}
					return nil
				}
				err := r.archive(k)
				r.hook = nil
				abandon(r.s)
				r.open()
				if err == nil {
					r.gone(k)
				} else if there, e := r.s.ArchivedToken(t.Context(), k.ID); (e == nil) == (r.standing(k.ID) != "absent") {
					t.Errorf("%v %s: %s is in both or in neither: %v", fail, at, k.ID, there)
				}
				r.checked()
			}
		}
	})
}

// TestArchivedElsewhere: what another node archives leaves the table in memory
// here, and does not hold up what follows (R9.1).
func TestArchivedElsewhere(t *testing.T) {
	t.Parallel()
	r := newPostgresRig(t)
	other := newRig(t)
	other.cfg.URL, other.cfg.Keys = r.cfg.URL, r.cfg.Keys
	table := authn.New(r.now.Now, 0, policy.Rules{})
	other.cfg.Follow = table.Apply
	r.open()
	_, ks := r.ann(2)
	other.open()
	if table.Len() != 2 {
		t.Fatalf("%d tokens are known", table.Len())
	}
	from, err := other.s.poll(t.Context(), 0)
	r.must(err)
	r.must(r.archive(ks[0]))
	r.must(r.revoke(ks[1]))
	_, err = other.s.poll(t.Context(), from)
	r.must(err)
	if _, ok := table.Token(ks[0].ID); ok || table.Len() != 1 {
		t.Error("the archived token is still known")
	}
	if k, _ := table.Token(ks[1].ID); k.Standing != token.Revoked {
		t.Error("what followed was not learnt")
	}
	mine, err := r.s.Lease(t.Context(), "sweep", storetest.T0.AddDate(1, 0, 0))
	if r.must(err); !mine {
		t.Error("the lease was refused")
	}
	if theirs, err := other.s.Lease(t.Context(), "sweep", storetest.T0.AddDate(1, 0, 0)); err != nil || theirs {
		t.Errorf("both nodes have the lease: %v", err)
	}
	other.now.Add(400 * 24 * 60 * 60 * 1e9)
	if theirs, err := other.s.Lease(t.Context(), "sweep", storetest.T0.AddDate(2, 0, 0)); err != nil || !theirs {
		t.Errorf("a lease that is over is kept: %v", err)
	}
}
