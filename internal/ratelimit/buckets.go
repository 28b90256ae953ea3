package ratelimit

import (
	"hash/maphash"
	"sync"
	"time"
)

// Buckets is one limit applied to many keys, in memory that is bounded whatever
// comes: a key has its place in one of many small sets, and where a set is full,
// a new key takes the place of the one whose bucket is nearest to full. That is
// one whose bucket is full again if there is any, since forgetting it changes
// nothing; otherwise a flood of new keys displaces its like and not a key that
// has spent its budget. An attacker who floods the table can win single
// events, never memory.
//
// Buckets are safe for concurrent use; a key that is known allocates nothing.
type Buckets[K comparable] struct {
	limit Limit
	seed  maphash.Seed
	sets  []set[K]
}

// ways is how many keys a set holds. Of keys as many as half of all places, one
// in some hundred finds its set full.
const ways = 16

type set[K comparable] struct {
	mu    sync.Mutex
	slots []slot[K]
}

type slot[K comparable] struct {
	key  K
	full int64 // when the bucket is full again, in microseconds since 1970
}

// NewBuckets makes buckets for at most the given number of keys, and for no
// fewer than one set of them.
func NewBuckets[K comparable](l Limit, keys int) *Buckets[K] {
	return &Buckets[K]{limit: l, seed: maphash.MakeSeed(), sets: make([]set[K], max(1, keys/ways))}
}

// Limit is the limit that holds for each key.
func (b *Buckets[K]) Limit() Limit { return b.limit }

// Take takes one event of the key.
func (b *Buckets[K]) Take(k K, now time.Time) Decision {
	s := b.setOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.find(k)
	if at == nil {
		at = s.place()
		*at = slot[K]{key: k}
	}
	next, d := b.limit.decide(at.full, now.UnixMicro())
	at.full = next
	return d
}

// Peek tells what Take would say. It remembers nothing of the key.
func (b *Buckets[K]) Peek(k K, now time.Time) Decision {
	s := b.setOf(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	full := int64(0)
	if at := s.find(k); at != nil {
		full = at.full
	}
	_, d := b.limit.decide(full, now.UnixMicro())
	return d
}

// Len is the number of keys remembered.
func (b *Buckets[K]) Len() (n int) {
	for i := range b.sets {
		s := &b.sets[i]
		s.mu.Lock()
		n += len(s.slots)
		s.mu.Unlock()
	}
	return n
}

func (b *Buckets[K]) setOf(k K) *set[K] {
	return &b.sets[maphash.Comparable(b.seed, k)%uint64(len(b.sets))]
}

func (s *set[K]) find(k K) *slot[K] {
	for i := range s.slots {
		if s.slots[i].key == k {
			return &s.slots[i]
		}
	}
	return nil
}

// place is where a new key goes.
func (s *set[K]) place() *slot[K] {
	if len(s.slots) < ways {
		s.slots = append(s.slots, slot[K]{})
		return &s.slots[len(s.slots)-1]
	}
	nearest := &s.slots[0]
	for i := range s.slots {
		if s.slots[i].full < nearest.full {
			nearest = &s.slots[i]
		}
	}
	return nearest
}
