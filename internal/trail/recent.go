package trail

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"gradegate/internal/audit"
	"gradegate/internal/journal"
)

// keepIDs bounds how far back a line that is sent again is recognised. A store
// sends again what it committed in the moments before a crash; this is a
// thousand times that.
const keepIDs = 100_000

// recentIDs is the ids of the latest effect lines.
type recentIDs struct {
	mu   sync.Mutex
	ids  map[string]bool
	ring []string
	next int
}

func newRecentIDs() *recentIDs { return &recentIDs{ids: map[string]bool{}} }

func (r *recentIDs) has(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids[id]
}

func (r *recentIDs) add(ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if r.ids[id] {
			continue
		}
		if len(r.ring) < keepIDs {
			r.ring = append(r.ring, id)
		} else {
			delete(r.ids, r.ring[r.next])
			r.ring[r.next] = id
			r.next = (r.next + 1) % keepIDs
		}
		r.ids[id] = true
	}
}

// load reads the ids of the newest lines in a folder.
func (r *recentIDs) load(dir string) error {
	segments, err := journal.Segments(dir)
	if errors.Is(err, os.ErrNotExist) || len(segments) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	from := segments[0].First
	if newest := segments[len(segments)-1].First; newest > from+keepIDs {
		from = newest - keepIDs
	}
	_, err = journal.Read(dir, from, func(rec journal.Record) error {
		if e, err := audit.Decode(rec.Data); err == nil {
			r.add([]string{e.ID})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	return nil
}
