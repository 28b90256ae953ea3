package token

import (
	"crypto/sha256"
	"strings"
	"time"
)

// Imported secrets have no form of ours: a UUID, or whatever else an earlier
// system gave out. Nothing in them names a record, so they are found by their
// digest alone.
const (
	foreignLeast = 16
	foreignMost  = 256
)

// Foreign reduces a secret that may have been imported to what may be kept of
// it. ok is false for what cannot be one: it has a form of ours, is too short to
// be secret, or has characters that no header carries.
func Foreign(text string) (p Presented, ok bool) {
	if len(text) < foreignLeast || len(text) > foreignMost || looksOurs(text) {
		return p, false
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f {
			return p, false
		}
	}
	p.Kind = Legacy
	p.Digest.Sum = sha256.Sum256([]byte(text))
	return p, true
}

// looksOurs keeps a mistyped secret of ours from being taken for a foreign one.
func looksOurs(text string) bool {
	return strings.HasPrefix(text, "gg") && text[prefixLen-1] == '_'
}

// Imported tokens without an end of their own get one that lies in these bounds,
// spread by their digest, so that not all of them end on one day (R5.1).
const (
	importEndsFirst = 30 * 24 * time.Hour
	importEndsLast  = 90 * 24 * time.Hour
)

// StaggeredEnd is the end of an imported token that has none, to the second. It
// is the same each time it is asked for.
func StaggeredEnd(d Digest, imported time.Time) time.Time {
	spread := uint64(0)
	for _, b := range d.Sum[:8] {
		spread = spread<<8 | uint64(b)
	}
	const seconds = uint64((importEndsLast - importEndsFirst) / time.Second)
	return imported.Add(importEndsFirst + time.Duration(spread%seconds)*time.Second)
}
