package authn

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"gradegate/internal/clock"
	"gradegate/internal/token"
)

// shelf is every token, packed, split so that writers of one part never hold up
// readers of another.
type shelf struct {
	part [shardCount]part
}

// part is the tokens whose ids fall on one place.
type part struct {
	sync.RWMutex
	at    map[token.PublicID]uint32 // place in slots
	slots []slot
	free  []uint32 // slots of tokens that are gone
	bytes packed
	waste int // about how many bytes belong to nothing any more
	_     [24]byte
}

// slot is one token: where it lies, and what is known of its uses.
type slot struct {
	last   int64 // the latest use, in microseconds; 0: none
	count  uint32
	record place // 0: it is not known yet
	use    place // address and agent of the latest use; 0: unknown
	dirty  bool  // the use is not in the store
}

// packed is bytes in pieces that are only ever added to, so that whoever reads
// needs no lock and nothing has to move when there is more.
type packed struct {
	pieces [][]byte
	size   int
}

// place is a piece, counted from one, and where in it.
type place uint32

const (
	pieceBits = 16
	// smallPiece and largePiece bound a piece: it is an eighth of all, so that
	// little is allocated and not used.
	smallPiece = 512
	largePiece = 1<<pieceBits - 1
)

func (p *packed) read(at place) []byte {
	b := p.pieces[at>>pieceBits-1][at&largePiece:]
	n, size := binary.Uvarint(b)
	return b[size : size+int(n)] //nolint:gosec // a length that add wrote
}

func (p *packed) add(b []byte) place {
	last := len(p.pieces) - 1
	need := len(b) + binary.MaxVarintLen32
	if last < 0 || len(p.pieces[last])+need > cap(p.pieces[last]) {
		room := max(need, min(largePiece, max(smallPiece, p.size/8)))
		p.pieces = append(p.pieces, make([]byte, 0, room))
		last++
	}
	piece := &p.pieces[last]
	offset := len(*piece)
	*piece = append(binary.AppendUvarint(*piece, uint64(len(b))), b...)
	p.size += len(*piece) - offset
	return place(last+1)<<pieceBits | place(offset) //nolint:gosec // no piece has room behind largePiece
}

func (s *shelf) of(id token.PublicID) *part { return &s.part[index(id)] }

// found finds the slot of a token that is known. The part is locked.
func (p *part) found(id token.PublicID) *slot {
	i, ok := p.at[id]
	if !ok || p.slots[i].record == 0 {
		return nil
	}
	return &p.slots[i]
}

// put stores a packed token, unless what is known of it is as new. The
// scratch is for packing.
func (t *Table) put(k *token.Token, scratch []byte) []byte {
	id := publicOf(k.ID)
	p := t.tokens.of(id)
	scratch = t.pack(scratch[:0], k)
	p.Lock()
	defer p.Unlock()
	i, ok := p.at[id]
	if !ok {
		if p.at == nil {
			p.at = map[token.PublicID]uint32{}
		}
		i = p.place()
		p.at[id] = i
	}
	s := &p.slots[i]
	if s.record != 0 {
		if versionIn(p.bytes.read(s.record)) >= k.Version {
			return scratch
		}
		p.wasted(len(scratch))
		s = &p.slots[i]
	}
	s.record = p.bytes.add(scratch)
	return scratch
}

// place is a slot for one more token.
func (p *part) place() uint32 {
	if n := len(p.free); n > 0 {
		i := p.free[n-1]
		p.free = p.free[:n-1]
		return i
	}
	p.slots = grown(p.slots)
	return uint32(len(p.slots) - 1) //nolint:gosec // a part is a small share of all
}

// grown has one more slot. What there is grows by an eighth at a time.
func grown(s []slot) []slot {
	if len(s) == cap(s) {
		s = append(make([]slot, 0, len(s)+len(s)/8+4), s...)
	}
	return s[:len(s)+1]
}

// wasted counts bytes that were replaced, and moves what is left together when
// half of all is waste.
func (p *part) wasted(n int) {
	if p.waste += n; p.waste < 4096 || p.waste < p.bytes.size/2 {
		return
	}
	old := p.bytes
	p.bytes, p.waste = packed{}, 0
	for i := range p.slots {
		s := &p.slots[i]
		if s.record != 0 {
			s.record = p.bytes.add(old.read(s.record))
		}
		if s.use != 0 {
			s.use = p.bytes.add(old.read(s.use))
		}
	}
}

// held is a token that was found: its record, its owner and its latest use.
type held struct {
	token.Token
	owner *owner
	last  int64
}

// find unpacks a token into h, without its family: what a request needs. Finding
// none takes the same steps.
func (t *Table) find(id token.PublicID, h *held) bool {
	p := t.tokens.of(id)
	record := t.nobody
	p.RLock()
	s := p.found(id)
	if s != nil {
		record, h.last = p.bytes.read(s.record), s.last
	}
	p.RUnlock()
	h.owner, _ = t.unpack(record, &h.Token)
	return s != nil
}

// whole unpacks all of the token in a slot.
func (t *Table) whole(p *part, s *slot, h *held) {
	var family []byte
	if h.owner, family = t.unpack(p.bytes.read(s.record), &h.Token); family != nil {
		h.Family = unpackFamily(family)
	}
	h.last = s.last
}

// each goes through all tokens, part by part; do may ask for other tokens. What
// it is given is its own until it returns.
func (t *Table) each(do func(*held)) {
	for i := range t.tokens.part {
		t.in(i, do)
	}
}

// in goes through the tokens of one part, without holding its lock meanwhile.
func (t *Table) in(i int, do func(*held)) {
	p := &t.tokens.part[i]
	p.RLock()
	n := len(p.slots)
	p.RUnlock()
	var h held
	for j := range n {
		p.RLock()
		if j >= len(p.slots) || p.slots[j].record == 0 {
			p.RUnlock()
			continue
		}
		t.whole(p, &p.slots[j], &h)
		p.RUnlock()
		do(&h)
	}
}

// Len is the number of tokens in memory.
func (t *Table) Len() (n int) {
	for i := range t.tokens.part {
		p := &t.tokens.part[i]
		p.RLock()
		n += len(p.at)
		p.RUnlock()
	}
	return n
}

// useOf is what is known of the uses of the token in a slot.
func (p *part) useOf(s *slot) token.Use {
	u := token.Use{At: clock.Micro(s.last), Count: int64(s.count)}
	if s.use != 0 {
		u.Addr, u.Agent = unpackUse(p.bytes.read(s.use))
	}
	return u
}

// setUse notes from where and by what a token was used.
func (p *part) setUse(s *slot, addr netip.Addr, agent string) {
	switch {
	case s.use == 0 && !addr.IsValid() && agent == "":
		return
	case s.use != 0:
		if a, g := unpackUse(p.bytes.read(s.use)); a == addr && g == agent {
			return
		}
	}
	var room [256]byte
	b := packUse(room[:0], addr, agent)
	if s.use != 0 {
		p.wasted(len(b))
	}
	s.use = p.bytes.add(b)
}

// ApplyUse takes over a use that is in the store.
func (t *Table) ApplyUse(u LastUse) {
	id := publicOf(u.Token)
	p := t.tokens.of(id)
	p.Lock()
	defer p.Unlock()
	s := p.found(id)
	if s == nil {
		return
	}
	if at := clock.Micros(u.At); at > s.last {
		s.last = at
		p.setUse(s, u.Addr, u.Agent)
	}
	s.count = max(s.count, uint32(u.Count)) //nolint:gosec // four billion uses are enough to show
}

// Used records a successful use of the token behind ref.
func (t *Table) Used(ref *Ref, now time.Time, addr netip.Addr, agent string) {
	if !ref.noted {
		return
	}
	p := t.tokens.of(ref.id)
	p.Lock()
	s := p.found(ref.id)
	if s == nil {
		p.Unlock()
		return
	}
	s.last = max(s.last, now.UnixMicro())
	p.setUse(s, addr, agent)
	s.count++
	first := !s.dirty
	s.dirty = true
	p.Unlock()
	if first {
		t.dirtyMu.Lock()
		t.dirty = append(t.dirty, ref.id)
		t.dirtyMu.Unlock()
	}
}

// TakeUses returns the uses since the last call, one per token, and forgets
// that they were new. Give them back with KeepUses if they could not be stored.
func (t *Table) TakeUses() []LastUse {
	t.dirtyMu.Lock()
	dirty := t.dirty
	t.dirty = nil
	t.dirtyMu.Unlock()
	out := make([]LastUse, 0, len(dirty))
	for _, id := range dirty {
		p := t.tokens.of(id)
		p.Lock()
		if s := p.found(id); s != nil {
			s.dirty = false
			out = append(out, LastUse{Token: id.ID(), Use: p.useOf(s)})
		}
		p.Unlock()
	}
	return out
}

// KeepUses marks uses as not stored again.
func (t *Table) KeepUses(uses []LastUse) {
	for _, u := range uses {
		id := publicOf(u.Token)
		p := t.tokens.of(id)
		p.Lock()
		s := p.found(id)
		first := s != nil && !s.dirty
		if s != nil {
			s.dirty = true
		}
		p.Unlock()
		if first {
			t.dirtyMu.Lock()
			t.dirty = append(t.dirty, id)
			t.dirtyMu.Unlock()
		}
	}
}

// LastUse is what is known of the token's uses.
func (t *Table) LastUse(id token.ID) token.Use {
	public := publicOf(id)
	p := t.tokens.of(public)
	p.RLock()
	defer p.RUnlock()
	if s := p.found(public); s != nil {
		return p.useOf(s)
	}
	return token.Use{}
}

// AssumeUsed takes every token that was issued before at, and of which no use is
// known, for used then.
func (t *Table) AssumeUsed(at time.Time) {
	for i := range t.tokens.part {
		p := &t.tokens.part[i]
		p.Lock()
		for j := range p.slots {
			s := &p.slots[j]
			if s.record == 0 || s.last != 0 {
				continue
			}
			var k token.Token
			if t.unpack(p.bytes.read(s.record), &k); k.IssuedAt.Before(at) {
				s.last = at.UnixMicro()
			}
		}
		p.Unlock()
	}
}
