package httpapi

import (
	bytes "encoding/binary"
	"net/netip"
	"runtime"
	"testing"

	"gradegate/internal/block"
	"gradegate/internal/ratelimit"
	"gradegate/internal/token"
)

// limiter is everything that remembers who failed, in the sizes that a server has.
type limiter struct {
	failures *ratelimit.Failures
	limits   *Limits
	blocks   *block.List
}

func newLimiter() *limiter {
	return &limiter{ratelimit.NewFailures(mostSources), NewLimits(DefaultRates(), 1<<17), block.New(nil)}
}

// fail is a failure of the nth source, which shares no network with another.
func (l *limiter) fail(n uint32) {
	a := [16]byte{0x20}
	bytes.BigEndian.PutUint32(a[1:], n)
	addr := netip.AddrFrom16(a)
	if n%2 == 0 {
		addr = netip.AddrFrom4([4]byte{a[4], a[3], a[2], a[1]})
	}
	var id token.PublicID
	bytes.BigEndian.PutUint32(id[:], n)
	l.blocks.Failed(addr, t0)
	_, spent := l.failures.Fail(addr, t0)
	l.blocks.Insists(spent, t0)
	l.limits.guesses.Take(guess{id, sourceOf(addr)}, t0)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMillionSources tells how much memory a million sources that fail
// take, all different ones.
func BenchmarkMillionSources(b *testing.B) {
	for b.Loop() {
		before, l := heap(), newLimiter()
		for n := range uint32(1_000_000) {
			l.fail(n)
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
		runtime.KeepAlive(l)
	}
}

// R8.2: so many sources take no more memory than half of them (a million: BenchmarkMillionSources).
func TestLimiterIsBounded(t *testing.T) {
	before, l := heap(), newLimiter()
	for n := range uint32(200_000) {
		l.fail(n)
	}
	half := heap() - before
	for n := range uint32(200_000) {
		l.fail(200_000 + n)
	}
	if all := heap() - before; all > half+half/10 || all > 96<<20 {
		t.Errorf("%d MiB for half of the sources, %d for all", half>>20, all>>20)
	}
	runtime.KeepAlive(l)
}
