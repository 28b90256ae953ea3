// Package keys holds the one root key of an installation and the sub-keys that
// are derived from it.
//
// The root key never leaves its file: everything that is authenticated, sealed
// or signed uses a sub-key made by HKDF-SHA256 (RFC 5869) with a label of its
// own, so that no use can be turned against another. Every row and record says
// under which key it was made (ID) and in which form (Version); that is how
// keys rotate without a flag day.
package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"sync"
)

// Size is the length of the root key in bytes.
const Size = 32

// Version is the form of MACs and digests made by this code; it is stored with
// them as mac_version.
const Version = 1

// Ring is the sub-keys of one root key. It is safe for concurrent use. It
// prints as its ID, never as key material.
type Ring struct {
	id                      string
	rowMAC, digest, headMAC sync.Pool // of hash.Hash, keyed
	sealing                 [32]byte
	trail                   ed25519.PrivateKey
	peppers                 *Peppers
}

// New derives the ring of a root key.
func New(root [Size]byte) *Ring {
	id := derive(root, "id", 4)
	r := &Ring{id: hex.EncodeToString(id)}
	r.rowMAC.New = macs(derive(root, "row mac", 32))
	r.digest.New = macs(derive(root, "table digest", 32))
	r.headMAC.New = macs(derive(root, "ledger head", 32))
	copy(r.sealing[:], derive(root, "sealed replies", 32))
	r.trail = ed25519.NewKeyFromSeed(derive(root, "trail signing", ed25519.SeedSize))
	return r
}

func derive(root [Size]byte, label string, n int) []byte {
	key, err := hkdf.Key(sha256.New, root[:], nil, "gradegate 1 "+label, n)
	if err != nil {
		panic("keys: " + err.Error()) // lengths are constants far below HKDF's limit
	}
	return key
}

func macs(key []byte) func() any {
	return func() any { return hmac.New(sha256.New, key) }
}

func sum(p *sync.Pool, data []byte) (out [32]byte) {
	h := p.Get().(hash.Hash)
	h.Reset()
	h.Write(data)
	h.Sum(out[:0])
	p.Put(h)
	return out
}

// ID names the root key: eight hexadecimal digits that tell nothing about it.
func (r *Ring) ID() string { return r.id }

// Use takes over the peppers; call it before anything else has the ring.
func (r *Ring) Use(p *Peppers) { r.peppers = p }

// Peppers are what goes into the digests of secrets besides them; nil: nothing.
func (r *Ring) Peppers() *Peppers { return r.peppers }

// String is the ID.
func (r *Ring) String() string { return "key " + r.id }

// RowMAC authenticates one row of a table.
func (r *Ring) RowMAC(row []byte) [32]byte { return sum(&r.rowMAC, row) }

// TableDigest is one row's term in the digest over its table.
func (r *Ring) TableDigest(row []byte) [32]byte { return sum(&r.digest, row) }

// HeadMAC authenticates a head: of the ledger, or of the table.
func (r *Ring) HeadMAC(head []byte) [32]byte { return sum(&r.headMAC, head) }

// Trail is the signing key of the audit trail.
func (r *Ring) Trail() ed25519.PrivateKey { return r.trail }

// Equal compares two MACs in constant time.
func Equal(a, b []byte) bool { return hmac.Equal(a, b) }

// Seal encrypts a short-lived reply under a key made of our own sealing key
// and what the request presented: neither the database nor this process alone
// can open it again, only the same request can. AES-256-GCM, fresh nonce.
func (r *Ring) Seal(plain []byte, presented ...string) []byte {
	box := r.box(presented)
	nonce := make([]byte, box.NonceSize(), box.NonceSize()+len(plain)+box.Overhead())
	_, _ = rand.Read(nonce) // never fails: the runtime stops the process instead
	return box.Seal(nonce, nonce, plain, nil)
}

// ErrSealed is the answer to a reply that cannot be opened with what was presented.
var ErrSealed = errors.New("the sealed reply does not open with what was presented")

// Open is the inverse of Seal.
func (r *Ring) Open(sealed []byte, presented ...string) ([]byte, error) {
	box := r.box(presented)
	if len(sealed) < box.NonceSize() {
		return nil, ErrSealed
	}
	plain, err := box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], nil)
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

func (r *Ring) box(presented []string) cipher.AEAD {
	h := hmac.New(sha256.New, r.sealing[:])
	for _, p := range presented {
		part := sha256.Sum256([]byte(p)) // fixed length, so that no two lists read alike
		h.Write(part[:])
	}
	block, err := aes.NewCipher(h.Sum(nil))
	if err != nil {
		panic("keys: " + err.Error()) // the key has 32 bytes
	}
	box, err := cipher.NewGCM(block)
	if err != nil {
		panic("keys: " + err.Error()) // AES has the block size that GCM wants
	}
	return box
}
