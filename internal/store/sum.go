package store

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// sum is the digest over a table: the sum, modulo 2^256, of one keyed term per
// row. It costs the same for one changed row however large the table is, and
// unlike the rows' own MACs it sees that a row is missing.
type sum [32]byte

func (s sum) plus(term [32]byte) sum { return s.combine(term, bits.Add64) }

func (s sum) minus(term [32]byte) sum { return s.combine(term, bits.Sub64) }

func (s sum) combine(term [32]byte, op func(x, y, carry uint64) (uint64, uint64)) (out sum) {
	var carry uint64
	for i := 24; i >= 0; i -= 8 {
		var word uint64
		word, carry = op(binary.BigEndian.Uint64(s[i:]), binary.BigEndian.Uint64(term[i:]), carry)
		binary.BigEndian.PutUint64(out[i:], word)
	}
	return out
}

// String is the sum in hexadecimal digits.
func (s sum) String() string { return hex.EncodeToString(s[:]) }

// MarshalText is the form in the ledger.
func (s sum) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *sum) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(s) {
		return hex.ErrLength
	}
	copy(s[:], raw)
	return nil
}
