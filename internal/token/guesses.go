package token

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/bits"
	"net/netip"
	"time"
)

// Guesses is what is known of wrong secrets that were tried with the id of a
// token: somebody knows the id, and not the secret (R8.3).
type Guesses struct {
	Count       int64
	Since, Last time.Time
	Sources     Sources
}

// And joins what two observers saw.
func (g Guesses) And(h Guesses) Guesses {
	switch {
	case g.Count == 0:
		return h
	case h.Count == 0:
		return g
	}
	g.Count += h.Count
	if h.Since.Before(g.Since) {
		g.Since = h.Since
	}
	if h.Last.After(g.Last) {
		g.Last = h.Last
	}
	for i := range g.Sources {
		g.Sources[i] |= h.Sources[i]
	}
	return g
}

// Sources tells about how many different sources there were, in 252 bits: each
// source sets one of them (linear counting, Whang et al.). Few are counted
// exactly but for chance, and what is above a thousand reads as about that.
type Sources [4]int64

// wordBits of each word are used, so that none is negative in a database.
const wordBits = 63

// Add notes a source: an IPv4 address, an IPv6 /64, or the unknown ones.
func (s *Sources) Add(a netip.Addr) {
	text := a.Unmap().WithZone("").AsSlice()
	if len(text) == 16 {
		text = text[:8]
	}
	h := fnv.New64a()
	_, _ = h.Write(text) // never fails
	n := mix(h.Sum64()) % uint64(len(s)*wordBits)
	s[n/wordBits] |= 1 << (n % wordBits)
}

// mix spreads what differs in the last bytes over all bits.
func mix(x uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], x*0x9e3779b97f4a7c15)
	return binary.BigEndian.Uint64(b[:]) ^ x
}

// Count is about how many sources were noted.
func (s Sources) Count() int {
	all, set := len(s)*wordBits, 0
	for _, w := range s {
		set += bits.OnesCount64(uint64(w))
	}
	free := max(1, all-set)
	return int(math.Round(-float64(all) * math.Log(float64(free)/float64(all))))
}
