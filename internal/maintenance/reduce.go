package maintenance

import (
	"context"
	"slices"

	"gradegate/internal/audit"
)

// segmentMost bounds the lines of one segment.
const segmentMost = 5000

// seal writes what the archive has kept for long enough to a segment on disk,
// and leaves tombstones. The segment is durable first: a crash in between writes
// some of the lines once more, which harms nobody.
func (r *run) seal(ctx context.Context) error {
	var after Place
	for !r.More {
		if ok, err := r.may(ctx); !ok || err != nil {
			return err
		}
		all, err := r.Store.Due(ctx, r.Began.Add(-r.Keep), after, segmentMost)
		if err != nil || len(all) == 0 {
			return err
		}
		last := all[len(all)-1]
		after = Place{EndedAt: last.EndedAt, ID: last.Token.ID}
		var due []Archived
		for _, a := range all {
			if r.held.Token(&a.Token) {
				r.stays.add("archived "+string(StaysHeld), a.Token.ID)
				continue
			}
			due = append(due, a)
		}
		if len(due) > 0 && !r.Dry {
			if err := r.reduce(ctx, due); err != nil {
				return err
			}
		}
		r.Sealed += len(due)
		r.More = r.most > 0 && r.Sealed >= r.most
	}
	return nil
}

func (r *run) reduce(ctx context.Context, due []Archived) error {
	lines := make([]Line, len(due))
	for i, a := range due {
		lines[i] = LineOf(a)
	}
	head, err := writeSegment(r.Dir, r.sign, lines, r.Began)
	if err != nil {
		return errSegment.Caused(err)
	}
	r.Segments = append(r.Segments, head.Segment)
	for chunk := range slices.Chunk(due, batchMost) {
		if ok, err := r.may(ctx); !ok || err != nil {
			return err
		}
		e := r.event(r.by, audit.ArchiveReduce)
		e.Target, e.Count, e.Detail = head.Segment, int64(len(chunk)), map[string]string{noteDetail: head.Note}
		if err := r.Store.Reduce(ctx, chunk, head.Segment, e); err != nil {
			return err
		}
		r.pause(ctx)
	}
	return nil
}
