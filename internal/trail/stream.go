package trail

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gradegate/internal/journal"
)

// The streams.
const (
	Use = "use" // every verification
	Act = "act" // everything that changes something
)

// stream is one journal in one folder, with its Merkle tree and checkpoints.
type stream struct {
	name, dir string
	keyID     string
	journal   *journal.Journal
	commit    *journal.Committer

	mu     sync.Mutex
	edge   edge
	past   []edge // edges of recent batches, for a segment that begins before the newest
	signed uint64 // size of the latest checkpoint
}

// pastEdges bounds how far before the newest record a new segment may begin
// and still carry its edge; beyond that, verification reads one segment more.
const pastEdges = 4096

func openStream(dir, name, keyID string, o Config) (*stream, journal.Recovery, error) {
	s := &stream{name: name, dir: filepath.Join(dir, name), keyID: keyID}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, journal.Recovery{}, fmt.Errorf("trail: %w", err)
	}
	j, rec, err := journal.Open(s.dir, journal.Options{
		Stream: name, SegmentBytes: o.SegmentBytes, Preallocate: o.Preallocate, Meta: s.meta,
	})
	if err != nil {
		return nil, rec, fmt.Errorf("trail: %w", err)
	}
	s.journal = j
	if err := s.loadEdge(); err != nil {
		_ = j.Close()
		return nil, rec, err
	}
	s.commit = journal.NewCommitter(j, journal.CommitterOptions{SyncInterval: syncInterval, OnBatch: s.onBatch, OnSyncError: func(err error) {
		o.Log.Error("trail: fsync failed, records are kept and tried again", "stream", name, "dir", dir, "error", err)
	}})
	return s, rec, nil
}

// syncInterval is the longest time that a line of a read-only request is with
// the kernel only.
const syncInterval = 100 * time.Millisecond

// loadEdge computes the tree's edge from the newest segment that carries one.
func (s *stream) loadEdge() error {
	segments, err := journal.Segments(s.dir)
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	var e edge
	for i := len(segments) - 1; i >= 0; i-- {
		m, err := readMeta(segments[i].Meta)
		if err != nil {
			return fmt.Errorf("trail: header of %s: %w", segments[i].Path, err)
		}
		if m.Edge != nil && m.Edge.Size == segments[i].First {
			e = *m.Edge
			break
		}
		if i == 0 && segments[0].First != 0 {
			return fmt.Errorf("trail: the oldest segment %s carries no edge", segments[0].Path)
		}
	}
	_, err = journal.Read(s.dir, e.Size, func(r journal.Record) error {
		e.add(r.Data)
		return nil
	})
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	s.edge = e
	return nil
}

// meta is called by the journal when a segment begins.
func (s *stream) meta(first uint64, _ journal.Chain) (json.RawMessage, error) {
	m := meta{KeyID: s.keyID}
	s.mu.Lock()
	if s.edge.Size == first {
		e := s.edge.clone()
		m.Edge = &e
	}
	for i := range s.past {
		if s.past[i].Size == first {
			m.Edge = &s.past[i]
		}
	}
	s.mu.Unlock()
	return json.Marshal(m)
}

func (s *stream) onBatch(_ uint64, records [][]byte, _ journal.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.past) == pastEdges {
		s.past = append(s.past[:0], s.past[pastEdges/2:]...)
	}
	s.past = append(s.past, s.edge.clone())
	for _, r := range records {
		s.edge.add(r)
	}
}

func (s *stream) append(ctx context.Context, line []byte, durable bool) error {
	_, err := s.commit.Append(ctx, line, durable)
	return err
}

// checkpoint signs what there is, if there is anything new: first it is made
// durable, then it is vouched for.
func (s *stream) checkpoint(sign *signer, now time.Time) error {
	s.mu.Lock()
	size, root := s.edge.Size, s.edge.root()
	s.mu.Unlock()
	if size == s.signed {
		return nil
	}
	if err := s.journal.Sync(); err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	msg, err := sign.sign(checkpoint{Stream: s.name, Size: size, Root: root, At: now})
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	if err := storeCheckpoint(s.dir, msg); err != nil {
		return err
	}
	s.signed = size
	return nil
}

func (s *stream) close(sign *signer, now time.Time) error {
	err := s.commit.Close()
	if e := s.checkpoint(sign, now); err == nil {
		err = e
	}
	if e := s.journal.Close(); err == nil {
		err = e
	}
	return err
}
