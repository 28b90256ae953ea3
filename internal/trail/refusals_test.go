package trail

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gradegate/internal/audit"
)

func refusal(addr, reason string) audit.Event {
	return audit.Event{ID: "evt_r", At: time.Now(), Action: audit.Authenticate, Outcome: audit.Deny, Reason: reason, Addr: addr}
}

func refuse(t *testing.T, tr *Trail, n int, addr, reason string) {
	t.Helper()
	for range n {
		if err := tr.Refused(t.Context(), refusal(addr, reason)); err != nil {
			t.Fatal(err)
		}
	}
}

// bytesOf is what a folder takes on the disk.
func bytesOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		n += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A29, D14: a million junk tokens, from many sides, cost less than 1 MB, and
// none is untold.
func TestMillionRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tr := open(t, dir, "")
	const sources, each = 100, 10_000
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < sources*each; i += 8 {
				addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i / 8 % sources)}).String()
				if err := tr.Refused(t.Context(), refusal(addr, "token_unknown")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	shut(t, tr)
	if n := bytesOf(t, dir); n > 1<<20 {
		t.Errorf("%d bytes", n)
	}
	lines, err := Search(t.Context(), dir, Query{Stream: Use, Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, l := range lines {
		total += max(1, l.Count)
	}
	if total != sources*each {
		t.Errorf("%d refusals are told of, in %d lines", total, len(lines))
	}
	if r := verify(t, dir); !r.OK() {
		t.Error(r.Problems)
	}
}

// Per source, reason and minute: ten lines, then one with a count when the
// minute is over.
func TestRefusalsByMinute(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, dir, "")
		count := func(q Query) (lines int, total int64) {
			q.Stream, q.Limit = Use, 1000
			found, err := Search(t.Context(), dir, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				total += f.Count
			}
			return len(found), total
		}
		refuse(t, tr, 25, "192.0.2.1", "token_unknown")
		refuse(t, tr, 25, "::ffff:192.0.2.1", "token_expired") // another reason, the same address
		refuse(t, tr, 12, "2001:db8::1", "token_unknown")
		refuse(t, tr, 12, "2001:db8::ffff:1", "token_unknown") // the same /64
		refuse(t, tr, 3, "no address", "token_unknown")
		if lines, total := count(Query{}); lines != 10+10+10+3 || total != 0 {
			t.Errorf("at once: %d lines, %d counted", lines, total)
		}
		<-time.After(62 * time.Second)
		for addr, want := range map[string]int64{"192.0.2.1/32": 30, "2001:db8::/64": 14} {
			if _, total := count(Query{Action: string(audit.Aggregate), Addr: addr}); total != want {
				t.Errorf("%s: %d more, want %d", addr, total, want)
			}
		}
		// A new minute begins with lines of its own.
		refuse(t, tr, 11, "192.0.2.1", "token_unknown")
		if lines, _ := count(Query{Addr: "192.0.2.1", Reason: "token_unknown"}); lines != 20 {
			t.Errorf("%d lines", lines)
		}
		shut(t, tr)
		if lines, total := count(Query{Action: string(audit.Aggregate)}); lines != 4 || total != 30+14+1 {
			t.Errorf("at the end: %d lines, %d counted", lines, total)
		}
	})
}

// However many sources there are, memory is bounded; what has no room is
// counted together.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	tr := &Trail{Config: config("", "")}
	r := newRefusals(tr)
	own := 0
	for i := range 3 * maxSource {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		e := refusal(a.String(), "token_unknown")
		if r.own(sourceOf(&e)) {
			own++
		}
		if i%1000 == 0 {
			r.turn(true) // a minute in which nothing can be written
		}
	}
	for range 2 { // minutes that cannot be written add up
		for range ownLines + 5 {
			r.own(source{reason: "again"})
		}
		r.turn(true)
	}
	if n := r.due[source{reason: "again"}]; n != 10 {
		t.Errorf("%d are due", n)
	}
	for i := range 2 * maxSource {
		r.due[source{reason: fmt.Sprint(i)}] = 1
		if len(r.due) == maxSource {
			break
		}
	}
	for range 30 {
		r.own(source{reason: "one more"})
	}
	r.turn(true)
	if len(r.seen) != 0 || len(r.due) != maxSource+1 || r.due[others] != 30-ownLines || own != 3*maxSource {
		t.Errorf("%d and %d sources, %d in common, %d lines", len(r.seen), len(r.due), r.due[others], own)
	}
	for i := range 2 * maxSource {
		r.own(source{reason: fmt.Sprint(i)})
	}
	if len(r.seen) != maxSource+1 || r.seen[others] != maxSource {
		t.Errorf("%d sources in a minute, %d in common", len(r.seen), r.seen[others])
	}
}

// Counts that could not be written are written later.
func TestRefusalsSurviveAnOutage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, dir, "")
		refuse(t, tr, 30, "192.0.2.1", "token_unknown")
		tr.sinks[0].pause = lastPause / 2
		<-time.After(50 * time.Second)
		tr.sinks[0].fail(errHangs) // away for a minute
		<-time.After(3 * time.Minute)
		shut(t, tr)
		found, err := Search(t.Context(), dir, Query{Action: string(audit.Aggregate)})
		if err != nil || len(found) != 1 || found[0].Count != 20 {
			t.Errorf("%+v %v", found, err)
		}
	})
}
