package trail

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gradegate/internal/journal"
)

// tidyEvery is how often a sink looks for segments that were sealed.
const tidyEvery = time.Minute

// restShare is for how long the compression rests, in terms of its work: it
// leaves four fifths of one processor, and all of the others, to whoever answers requests.
const restShare = 4

// keep compresses the segments of a sink that are sealed, and makes their indices,
// until ctx ends. It may hang with the disk without anybody waiting for it.
func (s *sink) keep(ctx context.Context) {
	defer close(s.kept)
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	told := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.up.Load() {
			continue
		}
		for _, st := range s.streams {
			if err := st.tidy(ctx, resting(ctx)); err != nil && ctx.Err() == nil && !told[err.Error()] {
				told[err.Error()] = true
				s.o.Log.Error("trail: a segment is left as it is", "dir", st.dir, "error", err)
			}
		}
	}
}

// resting gives what waits between two pieces of work.
func resting(ctx context.Context) func() {
	begun := time.Now()
	return func() {
		timer := time.NewTimer(restShare * time.Since(begun))
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		begun = time.Now()
	}
}

// tidy does what there is to do in a stream's folder. A segment that is damaged is left
// for verification to tell of, and the error is the first of them.
func (s *stream) tidy(ctx context.Context, pace func()) error {
	plain, err := filepath.Glob(filepath.Join(s.dir, "*.jsonl"))
	packed, _ := filepath.Glob(filepath.Join(s.dir, "*.jsonl.zst")) // the patterns are well-formed
	indices, _ := filepath.Glob(filepath.Join(s.dir, "*.index"))
	if err != nil || len(plain) <= 1 && len(packed) <= len(indices) {
		return nil
	}
	segments, err := journal.Segments(s.dir)
	if err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	var first error
	for i := range segments[:max(0, len(segments)-1)] {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.tidyOne(ctx, segments[i], segments[i+1], pace); err != nil && first == nil {
			first = err
		}
		pace()
	}
	return first
}

func (s *stream) tidyOne(ctx context.Context, seg, following journal.Segment, pace func()) error {
	s.files.Lock()
	defer s.files.Unlock()
	if _, err := os.Stat(seg.Path); err != nil {
		return nil //nolint:nilerr // trimmed meanwhile
	}
	if readIndex(&seg, &following) == nil {
		x, err := makeIndex(&seg, &following)
		if err == nil {
			err = writeIndex(&seg, x)
		}
		if err != nil {
			return err
		}
	}
	if err := journal.Compress(ctx, seg, following, pace); err != nil {
		return fmt.Errorf("trail: %w", err)
	}
	return nil
}
