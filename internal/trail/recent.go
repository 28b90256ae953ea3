package trail

import (
	"bytes"
	"fmt"
	"sync"

	"gradegate/internal/journal"
)

// keepIDs bounds how far back a line that is sent again is recognised. A store
// sends again what it committed in the moments before a crash; this is a
// thousand times that.
const keepIDs = 100_000

// recentIDs is the ids of the newest lines of a stream. A line is in it from
// the moment it is written, whether or not anybody still waited for that.
type recentIDs struct {
	mu   sync.Mutex
	ids  map[string]struct{}
	ring []string
	next int
}

func newRecentIDs() *recentIDs { return &recentIDs{ids: map[string]struct{}{}} }

// idOf is the id of an encoded event as it stands in the line, and nothing if
// it has none. The id is the first member.
func idOf(line []byte) []byte {
	rest, ok := bytes.CutPrefix(line, []byte(`{"id":"`))
	if !ok {
		return nil
	}
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
		case '"':
			return rest[:i]
		}
	}
	return nil
}

// without gives the lines that are not among the newest, and of those with the
// same id the first.
func (r *recentIDs) without(lines [][]byte) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out [][]byte
	here := map[string]bool{}
	for _, line := range lines {
		id := string(idOf(line))
		if _, known := r.ids[id]; known || here[id] {
			continue
		}
		if id != "" {
			here[id] = true
		}
		out = append(out, line)
	}
	return out
}

func (r *recentIDs) add(lines [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range lines {
		r.addOne(string(idOf(line)))
	}
}

func (r *recentIDs) addOne(id string) {
	if _, known := r.ids[id]; known || id == "" {
		return
	}
	if len(r.ring) < keepIDs {
		r.ring = append(r.ring, id)
	} else {
		delete(r.ids, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % keepIDs
	}
	r.ids[id] = struct{}{}
}

// load reads the ids of the newest lines in a folder.
func (r *recentIDs) load(dir string) error {
	segments, err := journal.Segments(dir)
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	if len(segments) == 0 {
		return nil
	}
	from := segments[0].First
	if newest := segments[len(segments)-1].First; newest > from+keepIDs {
		from = newest - keepIDs
	}
	_, err = journal.Read(dir, from, func(rec journal.Record) error {
		r.add([][]byte{rec.Data})
		return nil
	})
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	return nil
}
