package ratelimit

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// The algorithm equals a bucket that is refilled continuously.
func TestAgainstABucket(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		l := Limit{Events: 1 + r.IntN(20), Per: time.Duration(1+r.IntN(10)) * time.Second, Burst: 1 + r.IntN(10)}
		step := float64(l.step())
		b := NewBuckets[int](l, 1)
		level, last, now := float64(l.Burst), t0, t0
		for range 200 {
			now = now.Add(time.Duration(r.IntN(1_000_000)) * time.Microsecond)
			level = min(float64(l.Burst), level+float64(now.Sub(last).Microseconds())/step)
			last = now
			d := b.Take(0, now)
			if margin := level - 1; margin > -1e-6 != d.Allowed && (margin > 1e-6 || margin < -1e-6) {
				t.Fatalf("%+v: level %v, allowed %v", l, level, d.Allowed)
			}
			if d.Allowed {
				level--
			} else if again := b.Peek(0, now.Add(d.RetryAfter)); !again.Allowed {
				t.Fatalf("refused again after RetryAfter %v", d.RetryAfter)
			}
		}
	}
}

// R8.2: 100 failures a minute for one address, and no way round within a network.
func TestFailureTiers(t *testing.T) {
	count := func(next func(i int) netip.Addr) (passed int) {
		f := NewFailures(1 << 12)
		for i := range 10_000 {
			if d, _ := f.Fail(next(i), t0); d.Allowed {
				passed++
			}
		}
		return passed
	}
	six := func(hi, lo uint64) netip.Addr {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], 0x20010db8_00000000|hi)
		binary.BigEndian.PutUint64(b[8:], lo)
		return netip.AddrFrom16(b)
	}
	for _, c := range []struct {
		name string
		next func(i int) netip.Addr
		want int
	}{
		{"one address", func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }, 100},
		{"mapped and plain", func(i int) netip.Addr {
			return [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")}[i%2]
		}, 100},
		{"zones", func(i int) netip.Addr { return netip.MustParseAddr("fe80::1").WithZone(string(rune('a' + i%20))) }, 100},
		{"a /24", func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }, 400},
		{"a /64", func(i int) netip.Addr { return six(0, uint64(i)) }, 200},
		{"a /56", func(i int) netip.Addr { return six(uint64(i%256), uint64(i)) }, 400},
		{"a /48", func(i int) netip.Addr { return six(uint64(i%65536), uint64(i)) }, 800},
		{"unknown", func(int) netip.Addr { return netip.Addr{} }, 100},
	} {
		if got := count(c.next); got != c.want {
			t.Errorf("%s: %d passed, want %d", c.name, got, c.want)
		}
	}
}

// R8.2: memory is bounded at a million sources.
func TestMemoryIsBounded(t *testing.T) {
	b := NewBuckets[uint64](Limit{Events: 10, Per: time.Minute}, 4096)
	for i := range uint64(1_000_000) {
		b.Take(i, t0)
	}
	if b.Len() > 4096 {
		t.Errorf("%d keys remembered", b.Len())
	}
}

func TestTakeAllocatesNothing(t *testing.T) {
	b := NewBuckets[uint64](Limit{Events: 10, Per: time.Minute}, 64)
	b.Take(1, t0)
	if n := testing.AllocsPerRun(100, func() { b.Take(1, t0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// In no window does more pass than the burst and what the rate adds to it,
// counted in the plainest way: by remembering every event.
func TestAgainstAWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		l := Limit{Events: 1 + r.IntN(20), Per: time.Second, Burst: 1 + r.IntN(10)}
		b := NewBuckets[int](l, 1)
		var passed []int64
		now := t0
		for range 300 {
			now = now.Add(time.Duration(r.IntN(100_000)) * time.Microsecond)
			if !b.Take(0, now).Allowed {
				continue
			}
			passed = append(passed, now.UnixMicro())
			for i, from := range passed {
				most := int64(l.Burst) + (now.UnixMicro()-from)/l.step()
				if n := int64(len(passed) - i); n > most {
					t.Fatalf("%+v: %d passed within %d µs, want at most %d", l, n, now.UnixMicro()-from, most)
				}
			}
		}
	}
}

// Many at once get exactly the burst.
func TestConcurrentTakes(t *testing.T) {
	b := NewBuckets[string](Limit{Events: 100, Per: time.Minute}, 1000)
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if b.Take("k", t0).Allowed {
					passed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() != 100 {
		t.Errorf("%d passed", passed.Load())
	}
}

// A clock that is set back by a day empties a bucket, and does not close it for
// the day.
func TestClockSetBack(t *testing.T) {
	l := Limit{Events: 60, Per: time.Minute}
	b := NewBuckets[int](l, 1)
	b.Take(0, t0.Add(24*time.Hour))
	if d := b.Take(0, t0); d.Allowed || d.RetryAfter != time.Second || d.Reset != time.Minute {
		t.Errorf("%+v", d)
	}
	if d := b.Take(0, t0.Add(time.Second)); !d.Allowed {
		t.Errorf("a second later: %+v", d)
	}
}

// One host that fails for ever leaves its neighbours their budget.
func TestNoisyNeighbour(t *testing.T) {
	f := NewFailures(1 << 12)
	for range 10_000 {
		f.Fail(netip.MustParseAddr("192.0.2.1"), t0)
		f.Fail(netip.MustParseAddr("2001:db8::1"), t0)
	}
	for _, a := range []string{"192.0.2.2", "2001:db8::2"} {
		if d, _ := f.Fail(netip.MustParseAddr(a), t0); !d.Allowed {
			t.Errorf("%s: %+v", a, d)
		}
	}
}

// A flood of new keys does not wash away the key that has spent its budget.
func TestFloodKeepsTheSpent(t *testing.T) {
	b := NewBuckets[uint64](Limit{Events: 10, Per: time.Minute}, 4096)
	for range 10 {
		b.Take(7, t0)
	}
	for i := range uint64(100_000) {
		b.Take(1000+i, t0)
	}
	if d := b.Peek(7, t0); d.Allowed {
		t.Errorf("%+v", d)
	}
}

// Keys whose bucket is full again make room for others, and mean what they
// meant before.
func TestIdleKeysGoFirst(t *testing.T) {
	b := NewBuckets[uint64](Limit{Events: 10, Per: time.Minute}, 4096)
	for i := range uint64(4096) {
		b.Take(i, t0)
	}
	later := t0.Add(time.Hour)
	for i := range uint64(2000) {
		b.Take(1<<32+i, later)
	}
	if b.Len() > 4096 {
		t.Errorf("%d keys remembered", b.Len())
	}
	forgotten := 0
	for i := range uint64(2000) {
		if d := b.Peek(1<<32+i, later); d.Remaining != 8 {
			forgotten++
		}
	}
	if forgotten > 20 { // rarely a sample holds no idle key
		t.Errorf("%d live keys of 2000 were forgotten", forgotten)
	}
	if d := b.Peek(1, later); !d.Allowed || d.Remaining != 9 {
		t.Errorf("an idle key: %+v", d)
	}
}

func TestFailAllocatesNothing(t *testing.T) {
	f := NewFailures(1 << 12)
	a := netip.MustParseAddr("2001:db8::1")
	f.Fail(a, t0)
	if n := testing.AllocsPerRun(200, func() { f.Fail(a, t0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if f.Len() != 4 {
		t.Errorf("%d networks remembered", f.Len())
	}
}

func BenchmarkFail(b *testing.B) {
	f := NewFailures(1 << 16)
	a := netip.MustParseAddr("2001:db8::1")
	b.ReportAllocs()
	for b.Loop() {
		f.Fail(a, t0)
	}
}

func BenchmarkTake(b *testing.B) {
	k := NewBuckets[uint64](Limit{Events: 1 << 30, Per: time.Minute}, 1<<20)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := rand.Uint64N(1 << 16)
		for pb.Next() {
			i = (i + 7919) % (1 << 16)
			k.Take(i, t0)
		}
	})
}
