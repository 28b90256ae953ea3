package store

import (
	"encoding/json"

	"gradegate/internal/journal"
)

// highestSeq is the highest sequence number that stands anywhere in a damaged
// ledger, behind the damage too. Its records need not prove themselves: this
// is for doubt, and doubt only tightens.
func highestSeq(dir string) (highest int64) {
	journal.Salvage(dir, func(data []byte) {
		var r struct {
			Seq int64 `json:"seq"`
		}
		if json.Unmarshal(data, &r) == nil {
			highest = max(highest, r.Seq)
		}
	})
	return highest
}
