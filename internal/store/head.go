package store

import (
	"context"
	"database/sql"
	"encoding/json"

	"gradegate/internal/fault"
	"gradegate/internal/journal"
	"gradegate/internal/keys"
)

// head is the one row that says how far the tokens database is: what the
// ledger is compared with. Its fields are encoded in this order under its MAC.
type head struct {
	Seq      int64         `json:"seq"`      // of the last batch
	Revision int64         `json:"revision"` // of the last decision
	Batch    string        `json:"batch"`    // id of the last batch
	Digest   sum           `json:"digest"`   // of the tables after it
	Chain    journal.Chain `json:"chain"`    // of the ledger after it
	Mark     int64         `json:"mark"`     // high-water mark of the clock
	// Base and At are indices of ledger records: with which the latest base
	// begins, and of this batch.
	Base int64 `json:"base"`
	At   int64 `json:"at"`
}

// same reports whether both are at the same batch with the same content.
func (h *head) same(o *head) bool {
	return h.Seq == o.Seq && h.Batch == o.Batch && h.Digest == o.Digest
}

func (h *head) mac(k *keys.Ring) [32]byte {
	text, err := json.Marshal(h)
	if err != nil {
		panic("store: " + err.Error()) // numbers, strings and bytes
	}
	return k.HeadMAC(append([]byte("head 1\n"), text...))
}

const (
	selectHead = "SELECT seq, revision, batch, digest, chain, mark, base, at, mac, mac_version, key_id FROM head WHERE id = 1"
	insertHead = "INSERT INTO head (id, seq, revision, batch, digest, chain, mark, base, at, mac, mac_version, key_id) VALUES (1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
	updateHead = "UPDATE head SET seq = $1, revision = $2, batch = $3, digest = $4, chain = $5, mark = $6, base = $7, at = $8, mac = $9, mac_version = $10, key_id = $11 WHERE id = 1"
)

// querier is *sql.DB or *sql.Tx.
type querier interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}

// readHead reads the head and the id of the key that it was made with, without
// checking its MAC: see proven.
func readHead(ctx context.Context, q querier, lock string) (h head, s seal, err error) {
	var digest, chain []byte
	err = q.QueryRowContext(ctx, selectHead+lock).Scan(&h.Seq, &h.Revision, &h.Batch, &digest, &chain, &h.Mark, &h.Base, &h.At,
		&s.mac, &s.version, &s.keyID)
	copy(h.Digest[:], digest)
	copy(h.Chain[:], chain)
	return h, s, err
}

// proven reports whether the head carries our MAC.
func (h *head) proven(s seal, k *keys.Ring) bool {
	want := h.mac(k)
	return s.keyID == k.ID() && s.version == keys.Version && keys.Equal(want[:], s.mac)
}

func (h *head) write(ctx context.Context, q querier, k *keys.Ring, statement string) error {
	mac := h.mac(k)
	_, err := q.ExecContext(ctx, statement, h.Seq, h.Revision, h.Batch, h.Digest[:], h.Chain[:], h.Mark, h.Base, h.At,
		mac[:], int64(keys.Version), k.ID())
	return err
}

// lockHead reads the head inside a transaction and keeps everybody else from
// writing until it ends. That makes the order of seq the order of commits.
func (d *database) lockHead(ctx context.Context, tx *sql.Tx, k *keys.Ring) (head, error) {
	h, s, err := readHead(ctx, tx, d.forUpdate)
	if err != nil {
		return h, d.trouble(err)
	}
	if !h.proven(s, k) {
		return h, fault.Wrap(fault.Unavailable, "store_unavailable", errStore.Detail, errForged)
	}
	return h, nil
}
