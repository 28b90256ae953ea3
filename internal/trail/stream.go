package trail

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gradegate/internal/journal"
)

// The streams.
const (
	Use = "use" // every verification
	Act = "act" // everything that changes something
)

// syncInterval is the longest time that a line of a read-only request is with
// the kernel only.
const syncInterval = 100 * time.Millisecond

// stream is one journal in one folder, with its Merkle tree and checkpoints.
// Its sink's loop opens, reopens, signs and closes it; lines come from anywhere.
type stream struct {
	name, dir string
	o         *Config
	sign      *signer
	broken    func(error) // tells the sink that the disk fails
	ids       *recentIDs  // of the act stream; nil in the other

	journal *journal.Journal
	commit  atomic.Pointer[journal.Committer] // a new one after each outage
	next    atomic.Uint64                     // index after the newest line
	anew    atomic.Uint64                     // index at which a segment began in an empty folder, not signed yet; 0: none

	files sync.Mutex // held by whoever replaces or removes segments

	// What is signed must be durable, so the tree goes up to a batch that is,
	// and the lines after it wait by their hashes. That also gives the tree
	// at any place where the journal may begin a segment.
	mu     sync.Mutex
	edge   edge
	chain  journal.Chain      // at the edge
	leaves []tlog.Hash        // of the lines after the edge
	ends   []journal.Position // of the batches after the edge

	// Of the sink's loop alone: the newest checkpoint, and the place of the
	// newest that was kept.
	signed uint64
	note   []byte
	kept   struct {
		size, segment uint64
		at            time.Time
	}
}

func newStream(dir, name string, o *Config, sign *signer, broken func(error)) *stream {
	s := &stream{name: name, dir: filepath.Join(dir, name), o: o, sign: sign, broken: broken}
	if name == Act {
		s.ids = newRecentIDs()
	}
	return s
}

// open opens the files and recovers from a crash.
func (s *stream) open() error {
	ahead := s.o.Preallocate
	if s.name == Use && !s.o.Strict {
		ahead = 0 // ten syncs a second would not gain what writing every byte twice costs
	}
	j, rec, err := journal.Open(s.dir, journal.Options{
		Stream: s.name, SegmentBytes: s.o.SegmentBytes, Preallocate: ahead, Meta: s.meta,
	})
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	if rec.Cut.Bytes > 0 {
		s.o.Log.Warn("trail: an incomplete tail was cut", "dir", s.dir, "bytes", rec.Cut.Bytes, "lines", rec.Cut.Records, "reason", rec.Cut.Reason)
	}
	if err := s.load(j.Position()); err != nil {
		_ = j.Close() // the first error is the one to report
		return err
	}
	s.journal = j
	s.start()
	return nil
}

// load makes in memory what belongs to the files up to pos.
func (s *stream) load(pos journal.Position) error {
	for _, file := range []string{allFile, trimsFile} {
		if err := mendNotes(filepath.Join(s.dir, file)); err != nil {
			return err
		}
	}
	e, err := loadEdge(s.dir, s.name, s.sign.verifier)
	if err != nil {
		return err
	}
	if e.Size != pos.Next {
		return fmt.Errorf("trail: %s has %d lines, and its tree %d", s.dir, pos.Next, e.Size)
	}
	if s.ids != nil {
		if err := s.ids.load(s.dir); err != nil {
			return err
		}
	}
	last, err := keepLatest(s.dir, s.sign.verifier)
	if err != nil {
		return err
	}
	if last.Size > pos.Next {
		s.o.Log.Error("trail: signed lines are missing at the end", "dir", s.dir, "lines", last.Size-pos.Next, "signed", last.At)
	}
	s.mu.Lock()
	s.edge, s.chain = e, pos.Chain
	s.mu.Unlock()
	s.next.Store(pos.Next)
	return nil
}

// loadEdge computes the tree's edge from the newest segment that carries one, or
// from the record of what was trimmed.
func loadEdge(dir, name string, v note.Verifier) (edge, error) {
	segments, err := journal.Segments(dir)
	if err != nil {
		return edge{}, fmt.Errorf("trail: %w", err)
	}
	var e edge
	for i := len(segments) - 1; i >= 0; i-- {
		m, err := readMeta(segments[i].Meta)
		if err != nil {
			return e, fmt.Errorf("trail: header of %s: %w", segments[i].Path, err)
		}
		if m.Edge != nil && m.Edge.Size == segments[i].First {
			e = *m.Edge
			break
		}
		if i > 0 || segments[0].First == 0 {
			continue
		}
		last, err := lastTrim(dir, name, v)
		if err != nil {
			return e, err
		}
		if last != nil && last.Size == segments[0].First {
			e = last.edge()
		} else {
			return e, fmt.Errorf("trail: the oldest segment %s carries no edge", segments[0].Path)
		}
	}
	_, err = journal.Read(dir, e.Size, func(r journal.Record) error {
		e.add(r.Data)
		return nil
	})
	if err != nil {
		return e, fmt.Errorf("trail: %w", err)
	}
	return e, nil
}

// start begins to take lines.
func (s *stream) start() {
	s.commit.Store(journal.NewCommitter(s.journal, journal.CommitterOptions{
		SyncInterval: syncInterval, OnBatch: s.onBatch, OnSyncError: s.broken,
	}))
}

// restart begins anew after an outage, in a segment of its own. It returns
// when every line that was handed over before is either written or void,
// which on a disk that hangs may be never.
func (s *stream) restart() error {
	if s.journal == nil {
		return s.open()
	}
	_ = s.commit.Load().Close() // why it fails is known; Seal tells whether it still does
	if err := s.journal.Seal(); err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	s.start()
	return nil
}

// beginAnew signs, in a folder that was empty when a segment began, what came
// before its first line, so that this is not taken for lines that somebody removed.
func (s *stream) beginAnew() error {
	anew := s.anew.Load()
	if anew == 0 {
		return nil
	}
	segments, err := journal.Segments(s.dir)
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	if len(segments) > 0 && segments[0].First == anew {
		first := segments[0]
		m, err := readMeta(first.Meta)
		if err != nil || m.Edge == nil { // cannot be said any more; verification tells that lines are missing
			s.o.Log.Error("trail: a new folder without the tree of what came before", "dir", s.dir, "error", err)
			s.anew.CompareAndSwap(anew, 0)
			return nil
		}
		if _, err := s.keepTrim(&trim{
			checkpoint: checkpoint{Stream: s.name, Size: first.First, Root: m.Edge.root(), At: s.o.Now(), Chain: first.Prev.String()},
			Why:        lost, First: 1, Last: first.Segment - 1, Roots: m.Edge.Roots,
		}); err != nil {
			return err
		}
	}
	s.anew.CompareAndSwap(anew, 0)
	return nil
}

// keepTrim signs a record of what is no longer there, and keeps it.
func (s *stream) keepTrim(t *trim) (msg []byte, err error) {
	s.files.Lock()
	defer s.files.Unlock()
	if msg, err = s.sign.signTrim(t); err != nil {
		return nil, fmt.Errorf("trail: %w", err)
	}
	if err := keepNote(filepath.Join(s.dir, trimsFile), msg); err != nil {
		return nil, err
	}
	return msg, syncDir(s.dir) // the file may be new
}

// onBatch takes note of lines that were written, before their callers are
// answered.
func (s *stream) onBatch(_ uint64, records [][]byte, pos journal.Position) {
	s.mu.Lock()
	for _, r := range records {
		s.leaves = append(s.leaves, tlog.RecordHash(r))
	}
	s.ends = append(s.ends, pos)
	s.mu.Unlock()
	if s.ids != nil {
		s.ids.add(records)
	}
	s.next.Store(pos.Next)
	s.o.point(s.dir, "written")
}

// meta is called by the journal when a segment begins. It does without the
// edge in the moment between a batch and onBatch; then a reader starts one
// segment earlier.
func (s *stream) meta(first uint64, _ journal.Chain) (json.RawMessage, error) {
	m := meta{Key: s.sign.hash()}
	if there, err := filepath.Glob(filepath.Join(s.dir, "*.jsonl*")); err == nil && len(there) == 0 {
		s.anew.Store(first) // or there is no folder, which beginAnew finds out
	}
	s.mu.Lock()
	if first >= s.edge.Size && first-s.edge.Size <= uint64(len(s.leaves)) {
		e := s.edge.clone()
		for _, h := range s.leaves[:first-s.edge.Size] {
			e.addLeaf(h)
		}
		m.Edge = &e
	}
	s.mu.Unlock()
	return json.Marshal(m)
}

// advance moves the edge to the newest batch that is durable and tells what
// there is to sign. The hashing is done without the lock, for which lines wait.
func (s *stream) advance() checkpoint {
	durable := s.journal.Synced().Next
	s.mu.Lock()
	n := 0
	for n < len(s.ends) && s.ends[n].Next <= durable {
		n++
	}
	e, chain := s.edge.clone(), s.chain
	var leaves []tlog.Hash
	if n > 0 {
		chain = s.ends[n-1].Chain
		leaves = s.leaves[:s.ends[n-1].Next-e.Size]
	}
	s.mu.Unlock()
	for _, h := range leaves {
		e.addLeaf(h)
	}
	c := checkpoint{Stream: s.name, Size: e.Size, Root: e.root(), Chain: chain.String()}
	s.mu.Lock()
	s.edge, s.chain = e, chain
	s.leaves = s.leaves[:copy(s.leaves, s.leaves[len(leaves):])]
	s.ends = s.ends[:copy(s.ends, s.ends[n:])]
	s.mu.Unlock()
	return c
}

// checkpoint signs what there is, if there is anything new, and keeps the note
// if it is time to, or if it is asked to.
func (s *stream) checkpoint(now time.Time, keep bool) error {
	if err := s.beginAnew(); err != nil {
		return err
	}
	segment := s.journal.Position().Segment // before, so that the note is of its lines up to here
	if s.next.Load() != s.signed {
		if err := s.vouch(now); err != nil {
			return err
		}
	}
	since := now.Sub(s.kept.at)
	due := keep || segment != s.kept.segment || since >= keepEvery || since < 0 // the clock was set back
	if s.note == nil || s.kept.size == s.signed || !due {
		return nil
	}
	if err := keepNote(filepath.Join(s.dir, allFile), s.note); err != nil {
		return err
	}
	s.kept.size, s.kept.segment, s.kept.at = s.signed, segment, now
	return nil
}

// vouch makes what is new durable, and then signs it. An error of the first
// kind is one of the disk, and the sink is told of it.
func (s *stream) vouch(now time.Time) error {
	s.o.point(s.dir, "sync")
	if err := s.journal.Sync(); err != nil {
		s.broken(err)
		return fmt.Errorf("trail: %w", err)
	}
	c := s.advance()
	if c.Size == s.signed {
		return nil
	}
	c.At = now
	msg, err := s.sign.sign(c)
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	if err := replaceLatest(s.dir, msg); err != nil {
		return err
	}
	s.signed, s.note = c.Size, msg
	return nil
}

// close writes what is pending, signs it and closes the files.
func (s *stream) close(now time.Time) error {
	if s.journal == nil {
		return nil
	}
	err := s.commit.Load().Close()
	if e := s.checkpoint(now, true); err == nil {
		err = e
	}
	if e := s.journal.Close(); err == nil {
		err = e
	}
	return err
}
