package block

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func prefix(t testing.TB, text string) netip.Prefix {
	t.Helper()
	p, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// insist fails on with a network whose budget is spent, until it is blocked.
func insist(t *testing.T, l *List, p netip.Prefix, now time.Time) Shown {
	t.Helper()
	for range 10_000 {
		if s, began := l.Insists(p, now); began {
			return s
		}
	}
	t.Fatalf("%s is not blocked", p)
	return Shown{}
}

// R8.5: an automatic block lasts 15 minutes, each further one twice as long as
// the one before, up to a day; after a quiet day it begins anew.
func TestGrowth(t *testing.T) {
	l, now := New(nil), t0
	p := prefix(t, "192.0.2.7")
	for i, want := range []time.Duration{15, 30, 60, 120, 240, 480, 960, 1440, 1440} {
		s := insist(t, l, p, now)
		if got := s.Until.Sub(now); got != want*time.Minute || s.Times != i+1 {
			t.Errorf("the %dth lasts %v, the %dth", i+1, got, s.Times)
		}
		if l.Failed(p.Addr(), s.Until.Add(-time.Second)).IsZero() || !l.Failed(p.Addr(), s.Until).IsZero() {
			t.Error("it does not last until then")
		}
		now = s.Until
	}
	if s := insist(t, l, p, now.Add(remembered)); s.Until.Sub(s.Since) != 15*time.Minute {
		t.Errorf("after a quiet day: %v", s.Until.Sub(s.Since))
	}
}

// Nothing that is blocked in between counts twice: a block begins once.
func TestInsistence(t *testing.T) {
	l := New(nil)
	p, began := prefix(t, "2001:db8::/56"), 0
	for range 1000 {
		if _, b := l.Insists(p, t0); b {
			began++
		}
	}
	if began != 1 {
		t.Errorf("%d blocks began", began)
	}
	slow := prefix(t, "192.0.2.8")
	for i := range 1000 {
		if _, b := l.Insists(slow, t0.Add(time.Duration(i)*10*time.Second)); b {
			t.Fatal("who fails now and then is blocked")
		}
	}
}

// Loopback, trusted proxies, unknown addresses and networks of many people are
// never blocked automatically.
func TestSpared(t *testing.T) {
	l := New([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:1::5/128")})
	for _, p := range []netip.Prefix{
		prefix(t, "127.0.0.1"), prefix(t, "127.9.9.9"), prefix(t, "::1"), prefix(t, "10.1.2.3"), prefix(t, "2001:db8:1::/64"), prefix(t, "2001:db8:1::5"),
		prefix(t, "192.0.2.0/24"), {},
	} {
		for range 500 {
			if _, began := l.Insists(p, t0); began {
				t.Errorf("%s is blocked", p)
			}
		}
	}
	insist(t, l, prefix(t, "2001:db8:1::6"), t0) // beside the proxy
	if until := l.Failed(netip.Addr{}, t0); !until.IsZero() {
		t.Error("an unknown address is blocked")
	}
}

// The same address in other words is blocked as well, and nothing beside it.
func TestCovers(t *testing.T) {
	l := New(nil)
	for i, text := range []string{"192.0.2.7", "198.51.100.0/25", "2001:db8::/48"} {
		l.Apply(Block{ID: placeID(i), Version: 1, Prefix: prefix(t, text), Since: t0, Until: t0.Add(time.Hour)})
	}
	for text, want := range map[string]bool{
		"192.0.2.7": true, "::ffff:192.0.2.7": true, "192.0.2.8": false, "198.51.100.127": true, "198.51.100.128": false,
		"2001:db8::1": true, "2001:db8:0:ffff::1%eth0": true, "2001:db8:1::1": false,
	} {
		if got := !l.Failed(netip.MustParseAddr(text), t0).IsZero(); got != want {
			t.Errorf("%s: blocked %v", text, got)
		}
	}
	if got := l.InForce(t0); len(got) != 3 || got[0].Failures+got[1].Failures+got[2].Failures != 5 {
		t.Errorf("%+v", got)
	}
}

// What is lifted is over at once, and so is what grew there before; what grows
// afterwards stands.
func TestLifted(t *testing.T) {
	l := New(nil)
	a := prefix(t, "2001:db8::7")
	insist(t, l, prefix(t, "2001:db8::/64"), t0)
	insist(t, l, a, t0)
	b := Block{ID: placeID(0), Version: 1, Prefix: a, Since: t0, Until: t0.Add(time.Minute), Lifted: true}
	l.Apply(b)
	if got := l.InForce(t0.Add(time.Minute)); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	insist(t, l, a, t0.Add(time.Hour))
	for range 2 { // a node that reads everything anew
		l.Apply(b)
		b.Version++
	}
	if l.Failed(a.Addr(), t0.Add(time.Hour)).IsZero() {
		t.Error("a later block was lifted with an earlier one")
	}
}

// A place is used again after its block, in whatever order nodes hear of it.
func TestPlaces(t *testing.T) {
	var all []Block
	add := func(text string, now time.Time) (Block, bool) {
		p := prefix(t, text)
		old, id := Place(all, p, now)
		if id == "" {
			return Block{}, false
		}
		b := Block{ID: id, Version: 1, Prefix: p, Since: now, Until: now.Add(time.Hour)}
		if old != nil {
			b.Version = old.Version + 1
			*old = b
		} else {
			all = append(all, b)
		}
		return b, true
	}
	for i := range Most {
		if _, ok := add(fmt.Sprintf("10.0.%d.%d", i/256, i%256), t0); !ok {
			t.Fatalf("no place for the %dth", i)
		}
	}
	if _, ok := add("192.0.2.1", t0.Add(time.Hour)); ok {
		t.Error("a place is used again before every node has seen its block end")
	}
	if b, ok := add("10.0.0.5", t0); !ok || b.ID != placeID(5) {
		t.Errorf("the same network again: %+v", b)
	}
	ids := map[string]bool{}
	for _, b := range all {
		ids[b.ID] = true
	}
	if len(ids) != Most || len(all) != Most {
		t.Errorf("%d ids of %d", len(ids), len(all))
	}
	b, ok := add("192.0.2.1", t0.Add(2*time.Hour))
	if !ok || len(all) != Most {
		t.Errorf("no place is used again")
	}
	later, _ := add("192.0.2.2", t0.Add(2*time.Hour))
	l := New(nil)
	old := Block{ID: b.ID, Version: 1, Prefix: later.Prefix, Until: t0}
	for _, x := range []Block{old, later, b} {
		l.Apply(x)
	}
	if got := l.InForce(t0.Add(2 * time.Hour)); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

// R8.5: whatever comes, there are so many automatic blocks and counters, and
// those that say most stay.
func TestBounded(t *testing.T) {
	l := New(nil)
	loud := netip.MustParseAddr("198.51.100.1")
	for range 20_000 {
		l.Failed(loud, t0)
	}
	for i := range uint32(1_000_000) {
		var a [16]byte
		binary.BigEndian.PutUint32(a[:], 0x20010db8)
		binary.BigEndian.PutUint32(a[4:], i)
		l.Failed(netip.AddrFrom16(a), t0)
		if i < mostGrown+500 {
			l.makeRoom(t0)
			p, _ := netip.AddrFrom16(a).Prefix(64)
			l.grown[p] = &grown{since: t0, until: t0.Add(span(1 + int(i%3)))}
		}
	}
	made, automatic := l.Count(t0)
	top := l.Offenders(t0)
	if made != 0 || automatic > mostGrown || len(top) > mostOffenders || len(l.grown) > mostGrown {
		t.Errorf("%d blocks, %d offenders", automatic, len(top))
	}
	if top[0].Prefix.Addr() != loud || top[0].Failures != 20_000 {
		t.Errorf("the loudest is %+v", top[0])
	}
	if n := slices.IndexFunc(top, func(o Offender) bool { return o.Failures > 20_000 }); n >= 0 {
		t.Errorf("%+v is said to have failed more often than it did", top[n])
	}
	if got := l.Offenders(t0.Add(silent)); len(got) != 0 {
		t.Errorf("a day later: %+v", got[0])
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "192.0.2.7/24": "192.0.2.0/24", "::ffff:192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7/120": "192.0.2.0/24",
		"2001:DB8::1/48": "2001:db8::/48", "fe80::1%eth0": "fe80::1", "::/0": "::/0",
	} {
		if got := Text(prefix(t, text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "x", "192.0.2", "192.0.2.0/33", "::ffff:0.0.0.0/8", "192.0.2.7/24/24", "fe80::1%eth0/64"} {
		if p, err := Parse(text); err == nil {
			t.Errorf("%q: %s", text, p)
		}
	}
}

func BenchmarkFailed(b *testing.B) {
	l := New(nil)
	for i := range uint32(b.N) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], i)
		l.Failed(netip.AddrFrom4(a), t0)
	}
}

// Failures from nowhere are no offender: there is no address to name.
func TestUnknownIsNoOffender(t *testing.T) {
	l, now := New(nil), t0
	for range 3 {
		l.Failed(netip.Addr{}, now)
		l.Failed(netip.MustParseAddr("192.0.2.7"), now)
	}
	if got := l.Offenders(now); len(got) != 1 || Text(got[0].Prefix) != "192.0.2.7" || got[0].Failures != 3 {
		t.Errorf("%+v", got)
	}
}
