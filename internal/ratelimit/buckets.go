package ratelimit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const shardCount = 64

// Buckets is one limit applied to many keys, in bounded memory. When a shard
// is full, keys whose bucket is full again are dropped first, since forgetting
// them changes nothing. If a sample holds none, the one that is nearest to full
// goes: a flood of new keys displaces its like and not a key that has spent its
// budget. An attacker who floods the table can win single events, never memory.
//
// Buckets are safe for concurrent use; a key that is known allocates nothing.
type Buckets[K comparable] struct {
	limit Limit
	most  int // keys per shard
	seed  maphash.Seed
	shard [shardCount]struct {
		sync.Mutex
		m map[K]*atomic.Int64
	}
}

// NewBuckets makes buckets for at most the given number of keys, and for no
// fewer than one in each of the 64 shards.
func NewBuckets[K comparable](l Limit, keys int) *Buckets[K] {
	b := &Buckets[K]{limit: l, most: max(1, keys/shardCount), seed: maphash.MakeSeed()}
	for i := range b.shard {
		b.shard[i].m = map[K]*atomic.Int64{}
	}
	return b
}

// Limit is the limit that holds for each key.
func (b *Buckets[K]) Limit() Limit { return b.limit }

// Take takes one event of the key.
func (b *Buckets[K]) Take(k K, now time.Time) Decision {
	return b.limit.Take(b.state(k, now, true), now)
}

// Peek tells what Take would say. It remembers nothing of the key.
func (b *Buckets[K]) Peek(k K, now time.Time) Decision {
	if s := b.state(k, now, false); s != nil {
		return b.limit.Peek(s, now)
	}
	var fresh atomic.Int64
	return b.limit.Peek(&fresh, now)
}

// Len is the number of keys remembered.
func (b *Buckets[K]) Len() (n int) {
	for i := range b.shard {
		s := &b.shard[i]
		s.Lock()
		n += len(s.m)
		s.Unlock()
	}
	return n
}

func (b *Buckets[K]) state(k K, now time.Time, remember bool) *atomic.Int64 {
	s := &b.shard[maphash.Comparable(b.seed, k)%shardCount]
	s.Lock()
	defer s.Unlock()
	v := s.m[k]
	if v != nil || !remember {
		return v
	}
	if len(s.m) >= b.most {
		b.makeRoom(s.m, now.UnixMicro())
	}
	v = new(atomic.Int64)
	s.m[k] = v
	return v
}

// looks bounds the work of making room; Go's map order is random enough for a sample.
const looks = 16

// makeRoom drops at least one key of a map that is not empty.
func (b *Buckets[K]) makeRoom(m map[K]*atomic.Int64, now int64) {
	var nearest K
	var nearestFull int64
	dropped, seen := false, 0
	for k, v := range m {
		full := v.Load()
		if full <= now {
			delete(m, k)
			dropped = true
		}
		if seen == 0 || full < nearestFull {
			nearest, nearestFull = k, full
		}
		if seen++; seen == looks {
			break
		}
	}
	if !dropped {
		delete(m, nearest)
	}
}
