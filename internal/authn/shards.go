package authn

import (
	"sync"

	"gradegate/internal/token"
)

// shardCount spreads the lock of the table; 256 keeps two busy cores from
// meeting at one lock, and costs a few kilobytes.
const shardCount = 256

// shards is a map from public ids, split so that writers of one part never
// hold up readers of another. Public ids are random, so their bytes spread them.
type shards[V any] struct {
	part [shardCount]struct {
		sync.RWMutex
		m map[token.PublicID]V
		_ [24]byte // keeps neighbouring locks off one cache line
	}
}

// index mixes two characters: each alone has only 62 values.
func index(id token.PublicID) int { return (int(id[0])*31 + int(id[1])*7 + int(id[2])) % shardCount }

func (s *shards[V]) get(id token.PublicID) (V, bool) {
	p := &s.part[index(id)]
	p.RLock()
	v, ok := p.m[id]
	p.RUnlock()
	return v, ok
}

func (s *shards[V]) getOrMake(id token.PublicID, fresh func() V) V {
	if v, ok := s.get(id); ok {
		return v
	}
	made := fresh()
	p := &s.part[index(id)]
	p.Lock()
	defer p.Unlock()
	if v, ok := p.m[id]; ok {
		return v
	}
	if p.m == nil {
		p.m = map[token.PublicID]V{}
	}
	p.m[id] = made
	return made
}

func (s *shards[V]) drop(dead func(V) bool) {
	for i := range s.part {
		p := &s.part[i]
		p.Lock()
		for id, v := range p.m {
			if dead(v) {
				delete(p.m, id)
			}
		}
		p.Unlock()
	}
}

func (s *shards[V]) each(do func(V)) {
	for i := range s.part {
		p := &s.part[i]
		p.RLock()
		for _, v := range p.m {
			do(v)
		}
		p.RUnlock()
	}
}
