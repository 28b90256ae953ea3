package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/authn"
	"gradegate/internal/authority"
	"gradegate/internal/fault"
	"gradegate/internal/keys"
	"gradegate/internal/principal"
	"gradegate/internal/store/storetest"
	"gradegate/internal/token"
)

// filled is an installation with tokens of all standings, closed.
func filled(r *rig) (rows map[string]string, ks []token.Token) {
	r.t.Helper()
	r.open()
	ann, ks := r.ann(4)
	d := storetest.Add(nil, storetest.Token(ann, "with reply"))
	d.Reply = storetest.Reply("key", storetest.T0.Add(600e9))
	r.must(r.commit(d, audit.TokenIssue))
	r.must(r.revoke(ks[0]))
	suspended, err := ks[1].Suspend(token.ByOwner)
	r.must(err)
	r.must(r.commit(storetest.Change(ks[1], suspended), audit.TokenSuspend))
	r.must(r.s.RecordUses(r.t.Context(), []authn.LastUse{{Token: ks[2].ID, Use: token.Use{At: storetest.T0, Count: 7}}}, 99))
	r.owned(ann)
	rows = r.dump()
	r.close()
	return rows, ks
}

// TestRebuiltFromLedgerAlone: the ledger holds every row.
func TestRebuiltFromLedgerAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rows, _ := filled(r)
	r.removeFiles()
	wantOutcome(t, r.open(), "rebuilt")
	r.same(rows)
	r.checked()
	events, err := r.s.PendingEvents(t.Context(), 100)
	r.must(err)
	if len(events) != 12 { // eleven decisions, and the recovery itself
		t.Errorf("%d events on their way to the trail, want 12", len(events))
	}
	r.close()
	wantOutcome(t, r.open(), "clean")
}

// TestTamperedRows: whatever is changed behind our back is found and undone,
// and the bad file is kept.
func TestTamperedRows(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"a revocation is lifted":     "UPDATE tokens SET standing = 'standard', reason = '', revoked_at = 0 WHERE standing = 'revoked'",
		"a token is deleted":         "DELETE FROM tokens WHERE standing = 'revoked'",
		"a row is copied":            "INSERT INTO principals SELECT 'usr_mallory', version, 'mallory', email, kind, 'admin', status, epoch_credentials, epoch_person, enrolled, cancel_jobs, created_at, changed_at, mac, mac_version, key_id, member_of, budget, left_groups, inactive_since, owners, owner_group, owned_since FROM principals WHERE name LIKE 'ann%'",
		"an owner is slipped in":     `UPDATE principals SET owners = '["usr_mallory"]' WHERE kind = 'service'`,
		"a withdrawal is undone":     "UPDATE consents SET ended_at = 0 WHERE ended_at > 0",
		"a consent is prolonged":     "UPDATE consents SET until = until + 1000000",
		"a role is raised":           "UPDATE principals SET role = 'admin'",
		"a scope is added":           `UPDATE tokens SET scopes = '["admin:*"]'`,
		"the digest is set back":     "UPDATE head SET digest = zeroblob(32)",
		"the head goes":              "DELETE FROM head",
		"the key of a row is hidden": "UPDATE tokens SET key_id = 'x'",
		"the head claims a key":      "UPDATE head SET key_id = 'other'",
		"a reply is forged":          "UPDATE replies SET ref = 'tok_other'",
		"a table goes":               "DELETE FROM tokens",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			rows, ks := filled(r)
			r.tamper(statement)
			report, err := CheckTokens(t.Context(), r.cfg)
			if err != nil || report.Outcome != "damaged" {
				t.Errorf("check: %+v, %v", report, err)
			}
			wantOutcome(t, r.open(), "rebuilt")
			r.same(rows)
			r.want(ks[0].ID, token.Revoked)
			r.checked()
			if aside, _ := filepath.Glob(r.cfg.URL + ".bad-*"); len(aside) == 0 && name != "the head goes" {
				t.Error("the bad file was not kept")
			}
			n, err := r.s.UsesPosition(t.Context())
			if err != nil || n != 99 && name != "the head goes" {
				t.Errorf("uses reach %d, %v: they were not carried over", n, err)
			}
		})
	}
}

// TestTamperedPostgres: the same on a server, in place.
func TestTamperedPostgres(t *testing.T) {
	t.Parallel()
	r := newPostgresRig(t)
	rows, ks := filled(r)
	r.tamper("UPDATE tokens SET standing = 'standard' WHERE standing = 'revoked'")
	wantOutcome(t, r.open(), "rebuilt")
	r.same(rows)
	r.want(ks[0].ID, token.Revoked)
	r.checked()
}

// TestRottenFile: bytes are overwritten, or the file is cut.
func TestRottenFile(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"header": func(path string) error { return os.WriteFile(path, []byte("no database"), 0o600) },
		"cut":    func(path string) error { return os.Truncate(path, 8192) },
		"empty":  func(path string) error { return os.Truncate(path, 0) },
		"pages": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			info, err := f.Stat()
			if err == nil {
				_, err = f.WriteAt(make([]byte, info.Size()-4096), 4096)
			}
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			rows, _ := filled(r)
			r.must(damage(r.cfg.URL))
			wantOutcome(t, r.open(), "rebuilt")
			r.same(rows)
			r.checked()
		})
	}
}

// TestOldFilePutBack: an old copy of the database passes every check of its
// own, and the ledger knows better.
func TestOldFilePutBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	ann, ks := r.ann(3)
	r.close()
	old := filepath.Join(t.TempDir(), "old.db")
	r.copyFiles(old)
	r.open()
	r.must(r.revoke(ks[0]))
	r.must(r.commit(storetest.Add(nil, storetest.Token(ann, "new")), audit.TokenIssue))
	r.must(r.revoke(ks[1]))
	rows := r.dump()
	r.close()
	r.removeFiles()
	url := r.cfg.URL
	r.cfg.URL = old
	defer func() { r.cfg.URL = url }()
	wantOutcome(t, r.open(), "replayed")
	r.same(rows)
	r.want(ks[0].ID, token.Revoked)
	r.checked()
}

// TestLostLastCommit: the database lost one batch that had been acknowledged.
// Ack or no ack in the ledger makes the difference to a crash before COMMIT.
func TestLostLastCommit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	ann, _ := r.ann(1)
	r.close()
	old := filepath.Join(t.TempDir(), "old.db")
	r.copyFiles(old)
	r.open()
	k := storetest.Token(ann, "acknowledged")
	r.must(r.commit(storetest.Add(nil, k), audit.TokenIssue))
	abandon(r.s)
	r.cfg.URL = old
	wantOutcome(t, r.open(), "replayed")
	r.want(k.ID, token.Standard)
	r.checked()
}

// TestLedgerLost: the database proves itself; a new ledger begins with all of it.
func TestLedgerLost(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, r *rig) {
		rows, _ := filled(r)
		r.must(os.RemoveAll(r.cfg.Ledger))
		wantOutcome(t, r.open(), "rebased")
		r.same(rows)
		r.checked()
		r.close()
		if isPostgres(r.cfg.URL) {
			return
		}
		r.removeFiles()
		wantOutcome(t, r.open(), "rebuilt")
		r.same(rows)
	})
}

// TestLedgerRotten: damage inside the ledger is set aside while the database
// proves itself, and is a clear refusal when it does not.
func TestLedgerRotten(t *testing.T) {
	t.Parallel()
	rot := func(r *rig) {
		files, err := filepath.Glob(filepath.Join(r.cfg.Ledger, "*.jsonl"))
		r.must(err)
		data, err := os.ReadFile(files[0])
		r.must(err)
		data[len(data)/3] ^= 1
		r.must(os.WriteFile(files[0], data, 0o600))
	}
	r := newRig(t)
	rows, _ := filled(r)
	rot(r)
	wantOutcome(t, r.open(), "rebased")
	r.same(rows)
	r.checked()
	if aside, _ := filepath.Glob(r.cfg.Ledger + ".bad-*"); len(aside) != 1 {
		t.Error("the damaged ledger was not kept")
	}
	r = newRig(t)
	filled(r)
	rot(r)
	r.removeFiles()
	storetest.WantCode(t, r.try(), fault.Unavailable, "store_lost")
}

// TestNeverEmpty: when both are gone, nothing starts.
func TestNeverEmpty(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	filled(r)
	r.removeFiles()
	r.must(os.RemoveAll(r.cfg.Ledger))
	err := r.try()
	storetest.WantCode(t, err, fault.Unavailable, "store_lost")
	if fault.Of(err).Fix == "" {
		t.Error("the refusal does not say what to do")
	}
}

// TestLedgerUnwritable: the other disk is not mounted. What tightens goes on.
func TestLedgerUnwritable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rows, ks := filled(r)
	parked := r.cfg.Ledger + ".parked"
	r.must(os.Rename(r.cfg.Ledger, parked))
	r.must(os.WriteFile(r.cfg.Ledger, []byte("a file in the way"), 0o600))
	r.open()
	r.same(rows)
	ann, err := r.s.Principal(t.Context(), ks[0].Owner)
	r.must(err)
	err = r.commit(storetest.Add(nil, storetest.Token(ann, "more")), audit.TokenIssue)
	storetest.WantCode(t, err, fault.Unavailable, "ledger_unavailable")
	r.must(r.revoke(ks[2]))
	r.want(ks[2].ID, token.Revoked)
	rows = r.dump()
	r.close()
	// The disk is back, with a ledger that lacks the revocation.
	r.must(os.Remove(r.cfg.Ledger))
	r.must(os.Rename(parked, r.cfg.Ledger))
	wantOutcome(t, r.open(), "rebased")
	r.same(rows)
	r.close()
	r.removeFiles()
	wantOutcome(t, r.open(), "rebuilt")
	r.same(rows)
	r.want(ks[2].ID, token.Revoked)
}

// TestDatabaseVanishes: the files are removed under a running process.
// Revocation goes on, and the next look rebuilds the database.
func TestDatabaseVanishes(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(r *rig){
		"removed": func(r *rig) { r.removeFiles() },
		"replaced": func(r *rig) {
			r.must(os.Rename(r.cfg.URL, r.cfg.URL+".away"))
			r.must(os.WriteFile(r.cfg.URL, nil, 0o600))
		},
		"wal removed": func(r *rig) { r.must(os.Remove(r.cfg.URL + "-wal")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.cfg.Memory = &memory{}
			r.open()
			r.s.Follow(r.cfg.Memory.(*memory).apply)
			ann, ks := r.ann(3)
			rows := r.dump()
			harm(r)
			r.must(r.revoke(ks[0])) // on the ledger alone
			r.want(ks[0].ID, token.Revoked)
			r.must(r.commit(storetest.Add(nil, storetest.Token(ann, "more")), audit.TokenIssue))
			r.want(ks[0].ID, token.Revoked)
			r.want(ks[1].ID, token.Standard)
			r.checked()
			if len(r.dump()) != len(rows)+1 {
				t.Errorf("%d rows, want %d", len(r.dump()), len(rows)+1)
			}
			r.close()
			wantOutcome(t, r.open(), "clean")
			r.want(ks[0].ID, token.Revoked)
		})
	}
}

// TestPagesWithoutDatabase: the table in memory gives the same pages.
func TestPagesWithoutDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := &memory{}
	r.cfg.Memory = m
	r.open()
	r.s.Follow(m.apply)
	ann := storetest.Person("ann")
	all := storetest.Issued(ann, 7)
	r.must(r.commit(storetest.Add(&ann, all...), audit.TokenIssue))
	alive := r.s.db.Swap(nil)
	storetest.WantPages(t, r.s.TokensPage, ann.ID, all)
	r.s.db.Store(alive)
}

// TestNothingDurable: neither side can be written. The revocation takes effect
// in memory, and the answer says that it would be forgotten.
func TestNothingDurable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := &memory{}
	r.cfg.Memory = m
	r.open()
	r.s.Follow(m.apply)
	_, ks := r.ann(1)
	r.hook = func(p point) error {
		if p == beforeLedger || p == beforeCommit {
			return errors.New("boom")
		}
		return nil
	}
	storetest.WantCode(t, r.revoke(ks[0]), fault.Unavailable, "revoked_not_durable")
	if k, _ := m.Token(ks[0].ID); k.Standing != token.Revoked {
		t.Error("the followers were not told")
	}
	r.hook = nil
	r.want(ks[0].ID, token.Revoked)
	p := storetest.Person("later")
	r.must(r.commit(storetest.Add(&p), audit.UserCreate))
	r.close()
	r.open()
	r.want(ks[0].ID, token.Revoked) // and it was not forgotten once something could be written
}

// memory is a small stand-in for the table in memory.
type memory struct{ state overlay }

func (m *memory) apply(c authn.Change) {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	if m.state.tokens == nil {
		m.state.tokens, m.state.principals = map[token.ID]token.Token{}, map[principal.ID]principal.Principal{}
		m.state.consents = map[string]principal.Consent{}
	}
	for _, x := range c.Consents {
		if m.state.consents[x.ID].Version < x.Version {
			m.state.consents[x.ID] = x
		}
	}
	for _, k := range c.Tokens {
		if m.state.tokens[k.ID].Version < k.Version {
			m.state.tokens[k.ID] = k
		}
	}
	for _, p := range c.Principals {
		if m.state.principals[p.ID].Version < p.Version {
			m.state.principals[p.ID] = p
		}
	}
}

func (m *memory) Token(id token.ID) (token.Token, bool) {
	m.state.mu.RLock()
	defer m.state.mu.RUnlock()
	k, ok := m.state.tokens[id]
	return k, ok
}

func (m *memory) Principal(id principal.ID) (principal.Principal, bool) {
	m.state.mu.RLock()
	defer m.state.mu.RUnlock()
	p, ok := m.state.principals[id]
	return p, ok
}

func (m *memory) TokensOf(owner principal.ID) (out []token.Token) {
	m.state.mu.RLock()
	defer m.state.mu.RUnlock()
	for _, k := range m.state.tokens {
		if k.Owner == owner {
			out = append(out, k)
		}
	}
	return out
}

func (m *memory) Consent(id string) (principal.Consent, bool) {
	m.state.mu.RLock()
	defer m.state.mu.RUnlock()
	c, ok := m.state.consents[id]
	return c, ok
}

func (m *memory) ConsentsOf(who principal.ID) (out []principal.Consent) {
	m.state.mu.RLock()
	defer m.state.mu.RUnlock()
	for _, c := range m.state.consents {
		if c.Giver == who || c.Taker == who {
			out = append(out, c)
		}
	}
	return out
}

func (m *memory) PrincipalByName(name string) (principal.Principal, bool) {
	m.state.mu.RLock()
	defer m.state.mu.RUnlock()
	for _, p := range m.state.principals {
		if p.Name == name {
			return p, true
		}
	}
	return principal.Principal{}, false
}

// TestWrongKey is a clear refusal that changes nothing.
func TestWrongKey(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, r *rig) {
		rows, _ := filled(r)
		right := r.cfg.Keys
		r.cfg.Keys = keys.New([32]byte{2})
		storetest.WantCode(t, r.try(), fault.Invalid, "key_wrong")
		if !isPostgres(r.cfg.URL) { // the ledger alone says it as well
			url := r.cfg.URL
			r.cfg.URL = filepath.Join(t.TempDir(), "none.db")
			storetest.WantCode(t, r.try(), fault.Invalid, "key_wrong")
			r.cfg.URL = url
		}
		r.cfg.Keys = right
		wantOutcome(t, r.open(), "clean")
		r.same(rows)
	})
}

// TestReadsWithoutDatabase: reads come from memory while the database is away.
func TestReadsWithoutDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := &memory{}
	r.cfg.Memory = m
	r.open()
	r.s.Follow(m.apply)
	ann, ks := r.ann(2)
	db := r.s.db.Swap(nil) // as while it is being rebuilt
	k, err := r.s.Token(t.Context(), ks[0].ID)
	if err != nil || k.ID != ks[0].ID {
		t.Errorf("%v, %v", k.ID, err)
	}
	if list, err := r.s.TokensOf(t.Context(), ann.ID, authority.Among{}); err != nil || len(list) != 2 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
	if p, err := r.s.PrincipalByName(t.Context(), ann.Name); err != nil || p.ID != ann.ID {
		t.Errorf("%v, %v", p.ID, err)
	}
	_, err = r.s.Token(t.Context(), "tok_unknown")
	storetest.WantCode(t, err, fault.Unavailable, "store_unavailable")
	r.s.db.Store(db)
	_, err = r.s.Commit(t.Context(), authority.Decision{}, storetest.Event(audit.ServerStart, "x"))
	r.must(err)
}
