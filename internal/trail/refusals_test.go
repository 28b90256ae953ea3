package trail

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
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

// addressOf is the i-th of many addresses all over the internet; every fourth
// is IPv6.
func addressOf(i int) string {
	n := uint32(i) * 2654435761 // hits each number once
	if i%4 == 0 {
		return netip.AddrFrom16([16]byte{0x20, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
	}
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
}

// heap is the memory in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// However many addresses a flood comes from, a minute of it writes less than
// 1.2 MB and needs less than 20 MB of memory; each refusal is told of, the
// loudest source by itself. What succeeds meanwhile and what is done has its line.
func TestFloodFromEverywhere(t *testing.T) { // alone, since it measures the memory
	for _, sources := range []int{65_000, 1_000_000} {
		dir := t.TempDir()
		c := config(dir, "")
		c.SegmentBytes, c.Preallocate = 0, 0
		tr := openWith(t, c)
		before := heap()
		e := refusal("", "token_unknown")
		e.Agent, e.Route, e.Request, e.Status = "python-requests/2.32.3", "POST /v1/competitions/{id}/jobs", "req_1k10d04hv3azzrg4w3dfpzhh72", 401
		const loud, times = "203.0.113.9", 5000
		total, good := int64(times), 0
		for i := range times { // in the midst of the others
			for j := i * sources / times; j < (i+1)*sources/times; j++ {
				e.Addr = addressOf(j)
				if err := tr.Refused(t.Context(), e); err != nil {
					t.Fatal(err)
				}
				total++
			}
			e.Addr = loud
			if err := tr.Refused(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if i%50 == 0 {
				record(t, tr, i, false)
				effects(t, tr, event(i))
				good++
			}
		}
		if used := heap() - before; used > 20<<20 {
			t.Errorf("%d sources take %d bytes of memory", sources, used)
		} else {
			t.Logf("%d sources: %d bytes of memory", sources, used)
		}
		shut(t, tr)
		bytes := bytesOf(t, filepath.Join(dir, Use))
		t.Logf("%d sources: %d bytes on the disk", sources, bytes)
		if bytes > 1_200_000 {
			t.Errorf("%d sources write %d bytes", sources, bytes)
		}
		found, err := Search(t.Context(), dir, Query{Limit: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		var refused, lines, addresses, loudest int64
		for _, f := range found {
			if f.Outcome == audit.Allow {
				good -= 1 // one of two
				continue
			}
			lines++
			refused += max(1, f.Count)
			if f.Addr == loud+"/32" || f.Addr == loud {
				loudest += max(1, f.Count)
			}
			if n := f.Detail["addresses"]; n != "" {
				more, err := strconv.ParseInt(n, 10, 64)
				if err != nil {
					t.Error(err)
				}
				addresses += more
			} else if f.Count > 0 {
				addresses++
			}
		}
		if refused != total || lines > minuteLines || loudest != times {
			t.Errorf("%d sources: %d of %d refusals are told of, in %d lines; %d of %d of the loudest", sources, refused, total, lines, loudest, times)
		}
		// The first 2048 have lines of their own and are not in a count.
		if addresses > int64(sources) || addresses < int64(sources)*93/100-ownOfAll {
			t.Errorf("%d addresses are told of, there are %d", addresses, sources)
		}
		if good != -times/50 {
			t.Errorf("%d lines of others are too few", good)
		}
		if r := verify(t, dir); !r.OK() {
			t.Error(r.Problems)
		}
	}
}

// However long clients make their lines, a minute's have at most 3 MB.
func TestLongestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := config(dir, "")
	c.SegmentBytes, c.Preallocate = 0, 0
	tr := openWith(t, c)
	e := refusal("", "token_unknown")
	e.Agent, e.Route = strings.Repeat(`"`, 1000), strings.Repeat(`\`, 1000)
	e.Request, e.Detail = "req_1k10d04hv3azzrg4w3dfpzhh72", map[string]string{"client_request": strings.Repeat(`"`, 64)}
	for i := range 10_000 {
		e.Addr = addressOf(i)
		if err := tr.Refused(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, tr)
	if n := bytesOf(t, dir); n > 3_000_000 {
		t.Errorf("%d bytes", n)
	} else {
		t.Logf("%d bytes", n)
	}
}

// However many sources there are, memory is bounded, also while nothing can be
// written; what has no room is counted together.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	tr := &Trail{Config: config("", "")}
	r := newRefusals(tr)
	sent, own := int64(0), int64(0)
	send := func(k source) {
		sent++
		if r.own(k) {
			own++
		}
	}
	for minute := range 5 {
		before := own
		for i := range 3 * maxSources {
			e := refusal(addressOf(1+i+minute*3*maxSources), "token_unknown")
			send(sourceOf(&e))
		}
		if len(r.now.seen) != maxSources || len(r.now.crowd) > toldOfAll+1 || own-before != ownOfAll {
			t.Errorf("%d sources in a minute, %d networks, %d lines", len(r.now.seen), len(r.now.crowd), own-before)
		}
		r.turn(true) // a minute that cannot be written
		if len(r.due) > toldOfAll {
			t.Errorf("%d lines are due", len(r.due))
		}
	}
	for i := range 2 * maxSources { // reasons instead of addresses, which is none of ours
		send(source{reason: fmt.Sprint(i)})
	}
	r.turn(true)
	for range 2 { // minutes that cannot be written add up
		for range ownLines + 50_000 {
			send(source{reason: "again"})
		}
		r.turn(true)
	}
	if n := r.due[source{reason: "again"}]; n.refusals != 100_000 || len(r.due) > toldOfAll {
		t.Errorf("%+v, %d lines are due", n, len(r.due))
	}
	told := own
	for _, n := range r.due {
		told += n.refusals
	}
	if told != sent {
		t.Errorf("%d of %d refusals are told of", told, sent)
	}
}

// Where a source has no room of its own, its network counts it, and its address
// once.
func TestCrowd(t *testing.T) {
	t.Parallel()
	r := newRefusals(&Trail{Config: config("", "")})
	for i := range maxSources {
		r.own(source{reason: fmt.Sprint(i)})
	}
	for range 3 {
		for _, addr := range []string{"198.51.100.1", "198.51.100.2", "2001:db8::1", "2001:db8::2"} { // the last two are one
			e := refusal(addr, "token_unknown")
			if r.own(sourceOf(&e)) {
				t.Errorf("%s has a line", addr)
			}
		}
	}
	for network, want := range map[string]tally{"198.0.0.0/8": {6, 2}, "2001:db8::/32": {6, 1}} {
		if got := r.now.crowd[source{netip.MustParsePrefix(network), "token_unknown"}]; got != want {
			t.Errorf("%s: %+v, want %+v", network, got, want)
		}
	}
	met, n := newAddresses(), 0
	for i := range 1_000_000 {
		e := refusal(addressOf(i), "token_unknown")
		if met.add(sourceOf(&e)) {
			n++
		}
	}
	if n < 930_000 || n >= 1_000_000 {
		t.Errorf("of a million addresses %d are told apart", n)
	}
}

// Where many are in one network, its line says how many of how many.
func TestRefusalsOfANetwork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		tr := open(t, dir, "")
		for range 11 {
			for i := range 1000 {
				refuse(t, tr, 1, netip.AddrFrom4([4]byte{198, 51, byte(i / 250), byte(1 + i%250)}).String(), "token_unknown")
			}
		}
		refuse(t, tr, 50, "192.0.2.1", "token_unknown")
		<-time.After(62 * time.Second)
		found, err := Search(t.Context(), dir, Query{Action: string(audit.Aggregate), Limit: 10_000})
		if err != nil || len(found) != 256+4 {
			t.Errorf("%d lines, %v", len(found), err)
		}
		var addresses, refusals int64
		for _, f := range found {
			if strings.HasSuffix(f.Addr, "/24") {
				n, _ := strconv.ParseInt(f.Detail["addresses"], 10, 64)
				addresses += n
			} else if addresses++; f.Detail != nil {
				t.Errorf("%+v", f)
			}
			refusals += f.Count
			if f.Addr == "192.0.2.1/32" && f.Count != 50 {
				t.Errorf("the loudest: %+v", f)
			}
		}
		if addresses != 1001 || refusals != 11*1000+50-ownOfAll {
			t.Errorf("%d addresses, %d refusals", addresses, refusals)
		}
		shut(t, tr)
	})
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
