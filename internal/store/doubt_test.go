package store

import (
	"os"
	"path/filepath"
	"testing"

	"gradegate/internal/audit"
	"gradegate/internal/fault"
	"gradegate/internal/store/storetest"
)

// TestOldFileBesideRottenLedger: an older copy beside a ledger that is damaged
// behind it is not believed: what was revoked since can be read by nobody.
func TestOldFileBesideRottenLedger(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.open()
	ann, ks := r.ann(3)
	r.close()
	old := filepath.Join(t.TempDir(), "old.db")
	r.copyFiles(old)
	files, err := filepath.Glob(filepath.Join(r.cfg.Ledger, "*.jsonl"))
	r.must(err)
	before, err := os.Stat(files[len(files)-1])
	r.must(err)
	r.open()
	r.must(r.revoke(ks[0]))
	for range 3 {
		r.must(r.commit(storetest.Add(nil, storetest.Token(ann, "new")), audit.TokenIssue))
	}
	r.close()
	data, err := os.ReadFile(files[len(files)-1])
	r.must(err)
	data[before.Size()+300] ^= 1
	r.must(os.WriteFile(files[len(files)-1], data, 0o600))
	r.removeFiles()
	url := r.cfg.URL
	r.cfg.URL = old
	defer func() { r.cfg.URL = url }()
	storetest.WantCode(t, r.try(), fault.Unavailable, "store_doubt")
}
