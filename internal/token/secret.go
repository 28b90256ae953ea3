package token

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash/crc32"
	"log/slog"

	"gradegate/internal/keys"
)

// A secret is "gg" + kind + "_" + 12 base62 public id + 43 base62 random (256
// bits) + 6 base62 CRC32 (IEEE) of those 55 characters, left-padded with "0".
const (
	alphabet  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	prefixLen = 6 // "ggpat_"
	idLen     = 12
	randomLen = 43
	sumLen    = 6

	// SecretLen is the length of every secret, in bytes.
	SecretLen = prefixLen + idLen + randomLen + sumLen

	// Pattern is the expression that secret scanners look for.
	Pattern = `\bgg(pat|ses|svc|job|run|ref|scm|brk|inv)_[0-9A-Za-z]{61}\b`
)

// Digest is what stores keep of a secret, which cannot be had from it: SHA-256
// over the whole secret, whose public id salts it, or HMAC-SHA256 of that under
// a pepper.
type Digest struct {
	Pepper uint8 // version of the pepper; 0: none
	Sum    [sha256.Size]byte
}

// Under is the digest under the newest pepper. One that is under a pepper
// already stays as it is.
func (d Digest) Under(p *keys.Peppers) Digest {
	if d.Pepper != 0 || p.Newest() == 0 {
		return d
	}
	d.Pepper = p.Newest()
	d.Sum, _ = p.Sum(d.Pepper, d.Sum)
	return d
}

// Forms are all that a bare digest may be kept as: bare, or under one of the
// peppers that are there.
func (d Digest) Forms(p *keys.Peppers) (all []Digest) {
	for version := range 256 {
		f := Digest{Pepper: uint8(version)} //nolint:gosec // one of 256
		var ok bool
		if f.Sum, ok = p.Sum(f.Pepper, d.Sum); ok {
			all = append(all, f)
		}
	}
	return all
}

// Is reports in constant time whether this is what is kept of the secret whose
// bare digest was presented. Without its pepper nothing is.
func (d Digest) Is(presented Digest, p *keys.Peppers) bool {
	sum, known := p.Sum(d.Pepper, presented.Sum)
	return subtle.ConstantTimeCompare(d.Sum[:], sum[:]) == 1 && known && presented.Pepper == 0
}

// Outworn is a token in use that is kept under an older pepper, or none, and its
// digest under the newest.
type Outworn struct {
	Token   ID
	Was, Is Digest
}

// Bytes is the form in which a digest is stored: 32 bytes, and one more for the
// version of the pepper if there is one.
func (d Digest) Bytes() []byte {
	out := append(make([]byte, 0, len(d.Sum)+1), d.Sum[:]...)
	if d.Pepper != 0 {
		out = append(out, d.Pepper)
	}
	return out
}

// DigestOf is the inverse of Bytes. Of anything else it makes a digest that no
// secret has.
func DigestOf(stored []byte) (d Digest) {
	switch n := len(d.Sum); len(stored) {
	case n + 1:
		d.Pepper = stored[n]
		fallthrough
	case n:
		copy(d.Sum[:], stored)
	}
	return d
}

// PublicID is the part of a secret that may be logged; "tok_" and this is the
// token's ID.
type PublicID [idLen]byte

// ID is the token's name in the API.
func (p PublicID) ID() ID { return ID("tok_" + string(p[:])) }

// Presented is what a request showed, after its form was checked: nothing of
// the secret itself survives in it.
type Presented struct {
	Kind   Kind
	Public PublicID
	Digest Digest // bare
}

// Secret is the string that is shown once at issue. It cannot print itself:
// every formatting verb, log handler and encoder gives the hint only.
// Reveal is the one way out.
type Secret struct{ text string }

// NewSecret draws a secret of the kind from crypto/rand.
func NewSecret(k Kind) Secret {
	var b [SecretLen]byte
	copy(b[:], "gg"+k.String()+"_")
	fillRandom(b[prefixLen : prefixLen+idLen+randomLen])
	sum := checksum(b[prefixLen : SecretLen-sumLen])
	copy(b[SecretLen-sumLen:], sum[:])
	return Secret{text: string(b[:])}
}

// fillRandom writes uniform base62 characters; bytes of 248 and above are
// dropped so that none is favoured.
func fillRandom(out []byte) {
	var pool [96]byte
	for i := 0; i < len(out); {
		_, _ = rand.Read(pool[:]) // never fails: the runtime stops the process instead
		for _, v := range pool {
			if v < 248 && i < len(out) {
				out[i] = alphabet[v%62]
				i++
			}
		}
	}
}

// checksum finds typing mistakes and junk without a look-up. It is no security
// feature: anybody can compute it.
//
// The loop over the table is what hash/crc32 does for short input; calling it
// would move the secret's bytes to the heap.
func checksum(body []byte) [sumLen]byte {
	n := ^uint32(0)
	for _, c := range body {
		n = crc32.IEEETable[byte(n)^c] ^ n>>8
	}
	n = ^n
	var out [sumLen]byte
	for i := sumLen - 1; i >= 0; i-- {
		out[i] = alphabet[n%62]
		n /= 62
	}
	return out
}

// Malformed says what is wrong with the form of a presented secret. It is an
// error that costs no allocation, since junk must be cheaper than the real thing.
type Malformed uint8

// What can be wrong with the form.
const (
	Missing       Malformed = iota + 1 // nothing was presented
	UnknownPrefix                      // not one of ours
	WrongLength                        // cut off or run together with something
	WrongAlphabet                      // a character that no secret has
	WrongChecksum                      // one or more characters were changed
)

// Error is a sentence for the holder; it repeats nothing of the input.
func (m Malformed) Error() string {
	switch m {
	case Missing:
		return "no token was presented"
	case UnknownPrefix:
		return "a token starts with ggpat_, ggses_, ggsvc_ or ggjob_; one that was imported has 16 characters at least"
	case WrongLength:
		return "a token has 67 characters: it was cut off when it was copied, or something was added"
	case WrongAlphabet:
		return "a token has letters and digits only after its prefix"
	case WrongChecksum:
		return "the token's checksum does not match: a character was changed when it was copied"
	}
	return "the token is malformed"
}

// Parse checks the form of a presented secret and reduces it to what may be
// kept. It allocates nothing, accepts the exact form only, and its error is
// always a Malformed.
func Parse[T string | []byte](secret T) (Presented, error) {
	var p Presented
	if len(secret) == 0 {
		return p, Missing
	}
	if len(secret) < prefixLen || secret[0] != 'g' || secret[1] != 'g' || secret[5] != '_' {
		return p, UnknownPrefix
	}
	if p.Kind = kindOf(secret[2], secret[3], secret[4]); p.Kind == 0 {
		return p, UnknownPrefix
	}
	if len(secret) != SecretLen {
		return Presented{}, WrongLength
	}
	var b [SecretLen]byte
	copy(b[:], secret)
	for _, c := range b[prefixLen:] {
		if !base62(c) {
			return Presented{}, WrongAlphabet
		}
	}
	if checksum(b[prefixLen:SecretLen-sumLen]) != [sumLen]byte(b[SecretLen-sumLen:]) {
		return Presented{}, WrongChecksum
	}
	copy(p.Public[:], b[prefixLen:])
	p.Digest.Sum = sha256.Sum256(b[:])
	return p, nil
}

func base62(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// ReadSecret takes a secret that a person or a file gave us, for clients that
// must send it on. Its error is a Malformed.
func ReadSecret(text string) (Secret, error) {
	if _, err := Parse(text); err != nil {
		return Secret{}, err
	}
	return Secret{text: text}, nil
}

// Shown is a secret that was presented and read already, of ours or imported.
func Shown(text string) Secret { return Secret{text: text} }

// Reveal is the secret itself. Call it only to write the one answer that
// hands it over, or to derive a key from it.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

// Presented is the secret as a request would show it. An imported one says
// nothing of its record.
func (s Secret) Presented() Presented {
	p, err := Parse(s.text)
	if err != nil {
		p, _ = Foreign(s.text) // a Secret is one or the other, or zero
	}
	return p
}

// Hint is what people may see: enough to recognise a token, too little to use.
func (s Secret) Hint() string {
	if s.text == "" {
		return "(none)"
	}
	return s.text[:min(prefixLen+4, len(s.text)/4)] + "…"
}

// String is the hint.
func (s Secret) String() string { return s.Hint() }

// GoString is the hint.
func (s Secret) GoString() string { return s.Hint() }

// Format writes the hint for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.Hint())) }

// LogValue is the hint.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.Hint()) }

// MarshalText is the hint; JSON, YAML and XML encoders end up here.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.Hint()), nil }
