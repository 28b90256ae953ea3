package trail

import (
	"encoding/json"
	"errors"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// edge is the right edge of a Merkle tree (RFC 6962): the roots of the
// complete subtrees it consists of, largest first, one for each bit of the
// size. It is all that is needed to append and to compute the root.
type edge struct {
	Size  uint64      `json:"size"`
	Roots []tlog.Hash `json:"roots"`
}

// add appends one record.
func (e *edge) add(record []byte) { e.addLeaf(tlog.RecordHash(record)) }

// addLeaf appends the record whose hash is h.
func (e *edge) addLeaf(h tlog.Hash) {
	for n := e.Size; n&1 == 1; n >>= 1 {
		last := len(e.Roots) - 1
		h = tlog.NodeHash(e.Roots[last], h)
		e.Roots = e.Roots[:last]
	}
	e.Roots = append(e.Roots, h)
	e.Size++
}

// root is the tree's hash; of an empty tree it is that of RFC 6962.
func (e *edge) root() tlog.Hash {
	if len(e.Roots) == 0 {
		h, _ := tlog.TreeHash(0, nil) // reads nothing: the tree is empty
		return h
	}
	h := e.Roots[len(e.Roots)-1]
	for i := len(e.Roots) - 2; i >= 0; i-- {
		h = tlog.NodeHash(e.Roots[i], h)
	}
	return h
}

func (e *edge) clone() edge {
	return edge{Size: e.Size, Roots: append([]tlog.Hash(nil), e.Roots...)}
}

// meta is our part of a segment's header: with the edge in it, neither
// start-up nor verification needs the segments before.
type meta struct {
	// Key is the hash that notes carry of the signing key, so that a verifier
	// with the wrong key is told so by the first segment.
	Key  string `json:"key,omitempty"`
	Edge *edge  `json:"edge,omitempty"`
}

func readMeta(raw json.RawMessage) (meta, error) {
	var m meta
	if len(raw) == 0 {
		return m, nil
	}
	err := json.Unmarshal(raw, &m)
	if err == nil && m.Edge != nil && len(m.Edge.Roots) != bits.OnesCount64(m.Edge.Size) {
		err = errEdge
	}
	return m, err
}

var errEdge = errors.New("the edge of the tree does not fit its size")
