package authn

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"gradegate/internal/clock"
	"gradegate/internal/principal"
	"gradegate/internal/token"
)

// A token lies in memory packed into bytes: a million of them take little room,
// and the collector has nothing to look at in them. Unpacking costs a tenth of
// a microsecond. Strings of an unpacked token lie in those bytes, which are
// never written again.
//
// What many tokens have in common, their kind, scopes, standing and spans, is
// kept once, as a shape, and so are their owners. The rest is numbers, with the
// other instants counted from the issue, and strings with their lengths before them.

// shapes are the kinds of tokens that there are: what is left of a token without
// what is its own. They are few, and stay.
type shapes struct {
	mu    sync.Mutex
	by    map[string]uint64
	known atomic.Pointer[[]token.Token] // only ever longer
}

func (s *shapes) at(i uint64) *token.Token { return &(*s.known.Load())[i] }

// of finds the shape of a token, or makes it.
func (s *shapes) of(k *token.Token) uint64 {
	var room [512]byte
	key := shapeKey(room[:0], k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.by[string(key)]; ok {
		return i
	}
	shape := *k
	shape.ID, shape.Version, shape.Digest, shape.Name, shape.Owner, shape.Epochs = "", 0, token.Digest{}, "", "", principal.Epochs{}
	shape.Account = ""
	shape.Parent, shape.Family, shape.Generation, shape.Predecessor, shape.Successor, shape.IssuedBy, shape.Note = "", "", 0, "", "", "", ""
	for _, t := range []*time.Time{&shape.RevokedAt, &shape.GraceUntil, &shape.IssuedAt, &shape.FixedEnd, &shape.BornAt, &shape.RenewedAt} {
		*t = time.Time{}
	}
	var all []token.Token
	if old := s.known.Load(); old != nil {
		all = *old
	} else {
		s.by = map[string]uint64{}
	}
	i := uint64(len(all))
	all = append(all, shape)
	s.known.Store(&all)
	s.by[string(key)] = i
	return i
}

func shapeKey(b []byte, k *token.Token) []byte {
	b = append(b, byte(k.Kind), bit(k.EnforceRotation), bit(k.Observe))
	for _, d := range [...]time.Duration{k.Lifetime, k.Idle, k.Unused, k.MaxLifetime, k.RotateAfter, k.Budget.GPU, k.Budget.Per, time.Duration(k.Budget.Jobs)} {
		b = binary.AppendVarint(b, int64(d))
	}
	for _, s := range [...]string{string(k.Standing), string(k.Reason), string(k.Jobs), string(k.Renewal)} {
		b = appendText(b, s)
	}
	for _, list := range [...][]string{k.Scopes, k.Competitions} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = appendText(b, s)
		}
	}
	for _, p := range k.CIDRs {
		b = appendText(b, p.String())
	}
	return b
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// What a packed token holds beyond what every one has.
const (
	hasParent = 1 << iota
	hasRevoked
	hasPredecessor
	hasSuccessor
	hasGrace
	hasFixed
	hasRenewed
	hasNote
	hasIssuer   // it was not issued by its owner
	oddFamily   // its family's id is not one of ours
	notAShortID // its id has not the usual length
	hasAccount
)

// pack appends a token.
func (t *Table) pack(b []byte, k *token.Token) []byte {
	issued := clock.Micros(k.IssuedAt)
	var has uint64
	set := func(is bool, what uint64) {
		if is {
			has |= what
		}
	}
	set(k.Parent != "", hasParent)
	set(!k.RevokedAt.IsZero(), hasRevoked)
	set(k.Predecessor != "", hasPredecessor)
	set(k.Successor != "", hasSuccessor)
	set(!k.GraceUntil.IsZero(), hasGrace)
	set(!k.FixedEnd.IsZero(), hasFixed)
	set(!k.RenewedAt.IsZero(), hasRenewed)
	set(k.Note != "", hasNote)
	set(k.Account != "", hasAccount)
	set(k.IssuedBy != string(k.Owner), hasIssuer)
	family, short := packFamily(k.Family)
	set(!short, oddFamily)
	set(len(k.ID) != idLength, notAShortID)

	b = binary.AppendUvarint(b, uint64(k.Version)) //nolint:gosec // versions count from one
	b = binary.AppendUvarint(b, has)
	if has&notAShortID != 0 {
		b = appendText(b, string(k.ID))
	} else {
		b = append(b, k.ID...)
	}
	b = append(append(b, k.Digest.Pepper), k.Digest.Sum[:]...)
	b = binary.AppendUvarint(b, t.shapes.of(k))
	b = binary.AppendUvarint(b, uint64(t.owner(k.Owner).number))
	for _, n := range [...]int64{k.Epochs.Credentials, k.Epochs.Person, int64(k.Generation), issued, issued - clock.Micros(k.BornAt)} {
		b = binary.AppendVarint(b, n)
	}
	for _, at := range [...]struct {
		has  uint64
		time time.Time
		from int64
	}{
		{hasRevoked, k.RevokedAt, issued}, {hasGrace, k.GraceUntil, issued},
		{hasFixed, k.FixedEnd, issued + k.Lifetime.Microseconds()}, {hasRenewed, k.RenewedAt, issued},
	} {
		if has&at.has != 0 {
			b = binary.AppendVarint(b, clock.Micros(at.time)-at.from)
		}
	}
	b = appendText(b, k.Name)
	for _, text := range [...]struct {
		has uint64
		s   string
	}{{hasParent, string(k.Parent)}, {hasSuccessor, string(k.Successor)}, {hasPredecessor, string(k.Predecessor)}, {hasIssuer, k.IssuedBy}, {hasNote, k.Note}, {hasAccount, string(k.Account)}} {
		if has&text.has != 0 {
			b = appendText(b, text.s)
		}
	}
	if short {
		return append(b, family[:]...)
	}
	return appendText(b, string(k.Family))
}

const idLength = len("tok_") + len(token.PublicID{})

// unpacker reads what pack has written.
type unpacker struct{ b []byte }

func (u *unpacker) number() uint64 {
	n, size := binary.Uvarint(u.b)
	u.b = u.b[size:]
	return n
}

func (u *unpacker) signed() int64 {
	n, size := binary.Varint(u.b)
	u.b = u.b[size:]
	return n
}

func (u *unpacker) take(n int) string {
	if n == 0 {
		return ""
	}
	s := unsafe.String(&u.b[0], n)
	u.b = u.b[n:]
	return s
}

func (u *unpacker) text() string { return u.take(int(u.number())) } //nolint:gosec // a length that pack wrote

// unpack reads a token, without allocating anything: all of it but its family.
func (t *Table) unpack(b []byte, k *token.Token) (o *owner, family []byte) {
	u := unpacker{b}
	version, has := u.number(), u.number()
	id := idLength
	if has&notAShortID != 0 {
		id = int(u.number()) //nolint:gosec // a length that pack wrote
	}
	name := u.take(id)
	digest := token.Digest{Pepper: u.b[0]}
	u.b = u.b[1+copy(digest.Sum[:], u.b[1:]):]
	*k = *t.shapes.at(u.number())
	o = t.ownerAt(u.number())
	k.ID, k.Version, k.Digest, k.Owner = token.ID(name), int64(version), digest, o.id //nolint:gosec // as pack had it
	k.Epochs = principal.Epochs{Credentials: u.signed(), Person: u.signed()}
	k.Generation = int(u.signed())
	issued := u.signed()
	k.IssuedAt, k.BornAt = clock.Micro(issued), clock.Micro(issued-u.signed())
	if has&hasRevoked != 0 {
		k.RevokedAt = clock.Micro(issued + u.signed())
	}
	if has&hasGrace != 0 {
		k.GraceUntil = clock.Micro(issued + u.signed())
	}
	if has&hasFixed != 0 {
		k.FixedEnd = clock.Micro(issued + k.Lifetime.Microseconds() + u.signed())
	}
	if has&hasRenewed != 0 {
		k.RenewedAt = clock.Micro(issued + u.signed())
	}
	k.Name = u.text()
	if has&hasParent != 0 {
		k.Parent = token.ID(u.text())
	}
	if has&hasSuccessor != 0 {
		k.Successor = token.ID(u.text())
	}
	if has&hasPredecessor != 0 {
		k.Predecessor = token.ID(u.text())
	}
	k.IssuedBy = string(o.id)
	if has&hasIssuer != 0 {
		k.IssuedBy = u.text()
	}
	if has&hasNote != 0 {
		k.Note = u.text()
	}
	if has&hasAccount != 0 {
		k.Account = token.Family(u.text())
	}
	if has&oddFamily != 0 {
		k.Family = token.Family(u.text())
		return o, nil
	}
	return o, u.b
}

// versionIn is the version of a packed token.
func versionIn(b []byte) int64 {
	n, _ := binary.Uvarint(b)
	return int64(n) //nolint:gosec // as pack had it
}

// familyLength is that of the part of a family's id that is packed: 26
// characters of five bits each.
const (
	familyLength   = 26
	familyAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

type packedFamily [(familyLength*5 + 7) / 8]byte

func packFamily(f token.Family) (out packedFamily, ok bool) {
	text, ok := strings.CutPrefix(string(f), "fam_")
	if !ok || len(text) != familyLength {
		return out, false
	}
	for i := range familyLength {
		v := strings.IndexByte(familyAlphabet, text[i])
		if v < 0 {
			return out, false
		}
		at := i * 5
		wide := uint16(v) << (11 - at%8) //nolint:gosec // v is below 32
		out[at/8] |= byte(wide >> 8)
		if at/8+1 < len(out) {
			out[at/8+1] |= byte(wide)
		}
	}
	return out, true
}

func unpackFamily(b []byte) token.Family {
	var out [len("fam_") + familyLength]byte
	copy(out[:], "fam_")
	for i := range familyLength {
		at := i * 5
		wide := uint16(b[at/8]) << 8
		if at/8+1 < len(b) {
			wide |= uint16(b[at/8+1])
		}
		out[len("fam_")+i] = familyAlphabet[wide>>(11-at%8)&31]
	}
	return token.Family(out[:])
}

// A use is packed as the address and what the client calls itself.
func packUse(b []byte, addr netip.Addr, agent string) []byte {
	raw, err := addr.MarshalBinary()
	if err != nil {
		panic(fmt.Sprintf("authn: an address of this process cannot be written: %v", err))
	}
	b = append(append(b, byte(len(raw))), raw...) //nolint:gosec // 16 bytes, and a short zone
	return appendText(b, agent)
}

func unpackUse(b []byte) (addr netip.Addr, agent string) {
	n := int(b[0])
	_ = addr.UnmarshalBinary(b[1 : 1+n]) // it is what MarshalBinary wrote
	u := unpacker{b[1+n:]}
	return addr, u.text()
}
