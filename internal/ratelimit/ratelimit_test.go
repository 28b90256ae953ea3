package ratelimit

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
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
		var state atomic.Int64
		level, last, now := float64(l.Burst), t0, t0
		for range 200 {
			now = now.Add(time.Duration(r.IntN(1_000_000)) * time.Microsecond)
			level = min(float64(l.Burst), level+float64(now.Sub(last).Microseconds())/step)
			last = now
			d := l.Take(&state, now)
			if margin := level - 1; margin > -1e-6 != d.Allowed && (margin > 1e-6 || margin < -1e-6) {
				t.Fatalf("%+v: level %v, allowed %v", l, level, d.Allowed)
			}
			if d.Allowed {
				level--
			} else if again := l.Peek(&state, now.Add(d.RetryAfter)); !again.Allowed {
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
			if f.Fail(next(i), t0).Allowed {
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
		if got := count(c.next); got > c.want {
			t.Errorf("%s: %d passed, want at most %d", c.name, got, c.want)
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
