package token

import (
	"net/netip"
	"testing"
)

// The count of sources is about right for few and for many, whoever joins
// what; the same source counts once, however it is written.
func TestSources(t *testing.T) {
	for _, n := range []int{0, 1, 2, 5, 20, 100, 500} {
		var a, b Sources
		for i := range n {
			s := &a
			if i%2 == 1 {
				s = &b
			}
			s.Add(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
			s.Add(netip.AddrFrom16(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).As16()))
		}
		got := Guesses{Count: 1, Sources: a}.And(Guesses{Count: 1, Sources: b}).Sources.Count()
		if off := got - n; off > n/5+1 || -off > n/5+1 {
			t.Errorf("%d sources are counted as %d", n, got)
		}
	}
	var six Sources
	six.Add(netip.MustParseAddr("2001:db8::1"))
	six.Add(netip.MustParseAddr("2001:db8::2%eth0"))
	if six.Count() != 1 {
		t.Errorf("one /64 is counted as %d", six.Count())
	}
	for i := range 1 << 16 {
		six.Add(netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}))
	}
	for _, w := range six {
		if w < 0 || six.Count() < 1000 {
			t.Errorf("full: %v, %d", six, six.Count())
		}
	}
}
